"""Passages of a session that resemble a text by the model's own vectors: what a recall would look at, and nothing more.

    with attach(model, ADDRESS, tokenizer=tokenizer) as attached:
        passages = find_passages(attached, tokenizer, "notes", "who keeps the lighthouse", 5)

The text is read at the session's end, again and again until what stood there has left the window and votes no more. No
token of it is kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attn_client.errors import InvalidSettings, MemoryUnavailable
from attn_client.hf.attach import Attached
from attn_client.memory import RecallAsk, StepRecord
from attn_client.reader import PROMPT_PASS_TOKENS
from attn_client.salience import wanted_signals
from attn_client.settings import BLOCK_TOKENS
from attn_client.streams import PROBE, embeddings_of
from attn_client.text import encode


@dataclass(frozen=True)
class Passage:
    """One block that resembles the text.

    Args:
        positions: First and last.
        score, z: Of its trail, and the same standardised over all candidates.
        bookmark: Index of the best matching bookmark.
        text: Of its tokens, as far as the session has them.
    """

    block: int
    positions: tuple[int, int]
    score: float
    z: float
    bookmark: int
    text: str


def find_passages(attached: Attached, tokenizer: Any, session: str, text: str, top: int) -> tuple[Passage, ...]:
    """The `top` blocks of a session that resemble a text most, best first.

    Raises:
        InvalidSettings: The text is empty or longer than one pass.
        MemoryRefused, MemoryUnavailable: As a view's opening; or the answer did not come in time.
    """
    own = encode(tokenizer, text, begins=False)
    most = min(PROMPT_PASS_TOKENS, attached.settings.window.chunk_tokens)
    if not 1 <= len(own) <= most:
        raise InvalidSettings(f"search: expected a text of 1 to {most} tokens, got {len(own)}")
    timeout_s = attached.settings.recall.timeout_s
    with attached.view(session) as reader:
        memory = reader.memory
        assert memory is not None, "a view has a session"
        # Its tokens alone vote then, and the window that a token does not vote for holds nothing of the session.
        wanted = memory.info.spec.search.trail_tokens + memory.info.spec.fingerprint.window_tokens + BLOCK_TOKENS
        ids = own * -(-wanted // len(own))
        last = min(len(ids), most)
        reader.read(ids[: len(ids) - last])
        ids = ids[len(ids) - last :]
        output = attached.passes.run([reader.plan(len(ids))], torch.tensor([ids], device=reader.residents.shape.device))
        record = StepRecord(
            first_position=reader.position,
            ids=np.asarray(ids, np.uint32),
            embeddings={PROBE: embeddings_of(output.probe[0])},
            # A view makes no bookmarks, so nobody looks at them; they must be there all the same.
            signals={name: np.zeros(len(ids), np.float32) for name in wanted_signals(memory.info.spec.policy)},
            resident=(reader.position, len(ids)),
            recall=RecallAsk(top, 0, top, int(timeout_s * 1000)),
        )
        seq = memory.append(record, wait=True)
        answer = memory.recall(seq, timeout_s) if seq is not None else None
        if answer is None:
            raise MemoryUnavailable(f"search: expected an answer within {timeout_s} s, got none")
    passages = []
    for one in answer.blocks:
        first = one.block * BLOCK_TOKENS
        _, found = attached.client.read_tokens(session, first, BLOCK_TOKENS)
        said = tokenizer.decode(found.tolist())
        positions = (first, first + BLOCK_TOKENS - 1)
        passages.append(Passage(one.block, positions, one.score, one.z, one.bookmark, said))
    return tuple(passages)
