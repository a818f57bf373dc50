"""Asking a reader: prompt, greedy continuation, and the record that says what was recalled."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from attn_client.hf.passes import ModelPasses
from attn_client.memory import RecalledBlock
from attn_client.reader import Reader, decode
from attn_client.settings import BLOCK_TOKENS


@dataclass(frozen=True)
class Answer:
    """What `ask` gives. `recalled` is what the prompt's last pass attended to, best first."""

    ids: tuple[int, ...]
    text: str
    context_tokens: int
    resident_tokens_max: int
    recalled: tuple[RecalledBlock, ...]
    degraded: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The object that `ask --json` prints."""
        return {
            "answer": self.text,
            "context_tokens": self.context_tokens,
            "resident_tokens_max": self.resident_tokens_max,
            "recalled": [block_json(block) for block in self.recalled],
            "degraded": bool(self.degraded),
            "degraded_reasons": list(self.degraded),
            "seconds": round(self.seconds, 3),
        }


def block_json(block: RecalledBlock) -> dict[str, Any]:
    """A recalled block as programs read it."""
    first = block.block * BLOCK_TOKENS
    return {
        "block": block.block,
        "positions": [first, first + BLOCK_TOKENS - 1],
        "score": block.score,
        "z": block.z,
        "reached": block.reached,
        "via_block": block.via,
        "path": list(block.path),
    }


def greedy(passes: ModelPasses, reader: Reader, max_tokens: int, ends: frozenset[int]) -> Iterator[int]:
    """Likeliest next tokens, at most `max_tokens`, up to and without an end id.

    Tokens given out but the last are read.
    """
    token = int(reader.next_logits().argmax())
    for step in range(max_tokens):
        if token in ends:
            return
        yield token
        if step + 1 < max_tokens:
            token = int(decode(passes, [reader], [token])[0].argmax())


def ask(passes: ModelPasses, reader: Reader, tokenizer: Any, prompt: Sequence[int], max_tokens: int = 32) -> Answer:
    """Read the prompt's ids, continue greedily, and say what was recalled."""
    began = time.monotonic()
    reader.prompt(prompt)
    prompted = reader.recalls.prompted if reader.recalls is not None else None
    recalled = prompted.blocks if prompted is not None else ()
    ids = tuple(greedy(passes, reader, max_tokens, passes.end_ids))
    return Answer(
        ids=ids,
        text=tokenizer.decode(ids),
        context_tokens=reader.position,
        resident_tokens_max=reader.resident_tokens_max,
        recalled=recalled,
        degraded=reader.degraded,
        seconds=time.monotonic() - began,
    )
