"""Answers in OpenAI's shapes, with one more field: `memory` in an answer, `recalled` in a streamed piece of it."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from attn_client.generate import block_json
from attn_client.memory import RecallAnswer
from attn_client.worker.asks import Finished, MemoryReport, Piece
from attn_client.worker.failures import Failure

Json = dict[str, Any]


def _now() -> int:
    return int(time.time())


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Replies:
    """What one request is answered with, whole or in pieces; every part bears the same id and time."""

    kind: Literal["text", "chat"]
    model: str
    id: str = field(default_factory=_new_id)
    created: int = field(default_factory=_now)

    def whole(self, text: str, finished: Finished) -> Json:
        """The answer as one object."""
        if self.kind == "chat":
            content: Json = {"message": {"role": "assistant", "content": text, "refusal": None}}
        else:
            content = {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finished.reason}
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(name), "choices": [choice], "usage": _usage(finished), "memory": _memory(finished.memory)}

    def first(self) -> Json | None:
        """What a stream begins with: in a conversation, who speaks."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None) if self.kind == "chat" else None

    def piece(self, piece: Piece) -> Json:
        """More of the text, and what was recalled meanwhile."""
        content = {"delta": {"content": piece.text}} if self.kind == "chat" else {"text": piece.text}
        chunk = self._chunk(content, None)
        return chunk if piece.recalled is None else {**chunk, "recalled": recall_json(piece.recalled)}

    def last(self, finished: Finished) -> Json:
        """What says why the answer ended, and what memory did for it."""
        content: Json = {"delta": {}} if self.kind == "chat" else {"text": ""}
        return {**self._chunk(content, finished.reason), "memory": _memory(finished.memory)}

    def usage(self, finished: Finished) -> Json:
        """The counts, for who asked for them."""
        return {**self._head(self._chunk_name), "choices": [], "usage": _usage(finished)}

    @property
    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _chunk(self, content: Json, reason: str | None) -> Json:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
        return {**self._head(self._chunk_name), "choices": [choice]}

    def _head(self, name: str) -> Json:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": name, "created": self.created, "model": self.model}


def recall_json(recall: RecallAnswer) -> Json:
    """A recall: the position of the token that asked, and its blocks, best first."""
    return {"asked_at": recall.asked_at, "blocks": [block_json(block) for block in recall.blocks]}


def error_json(failure: Failure) -> Json:
    """OpenAI's shape of an error."""
    error = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"error": error}


def model_json(name: str, created: int) -> Json:
    """OpenAI's shape of a model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "attn-client"}


def _usage(finished: Finished) -> Json:
    prompt, answer = finished.prompt_tokens, finished.answer_tokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _memory(report: MemoryReport) -> Json:
    return {
        "session": report.session,
        "mode": report.mode,
        "position": report.position,
        "resident_tokens_max": report.resident_tokens_max,
        "saved": report.saved,
        "recalled": recall_json(report.recalled) if report.recalled is not None else None,
        "degraded": bool(report.degraded),
        "degraded_reasons": list(report.degraded),
    }
