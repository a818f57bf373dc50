"""What goes into a memory session and what comes out of it, as plain records.

Must not know: gRPC, threads, torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Reached = Literal["trail", "neighbour", "fill", "hop"]


@dataclass(frozen=True)
class HopAsk:
    """A wish to follow links from the hits; the fields are those of HopRequest in memory.proto."""

    hops: int
    blocks: int
    half_life_tokens: int


@dataclass(frozen=True)
class RecallAsk:
    """A wish to be told where to look; the fields are those of RecallRequest in memory.proto.

    Without `hops` no links are followed.
    """

    top_blocks: int
    neighbours: int
    budget_blocks: int
    deadline_ms: int
    hops: HopAsk | None = None


@dataclass(frozen=True)
class StepRecord:
    """Tokens that the model has read, and what it made of them.

    Args:
        first_position: Position of the first token.
        ids: uint32 [n].
        embeddings: By stream name, [n, dims]; float32, float16, or uint16 (the raw bits of bfloat16).
        signals: By signal name, float32 [n].
        resident: First position and count of what the device holds beside the sinks when the answer is used.
        recall: Asks for a recall as of the last token.
        text: Bytes that each token stands for, of a session that keeps text; none if it is not sent.
    """

    first_position: int
    ids: npt.NDArray[np.uint32]
    embeddings: Mapping[str, npt.NDArray[np.generic]]
    signals: Mapping[str, npt.NDArray[np.float32]]
    resident: tuple[int, int]
    recall: RecallAsk | None
    text: Sequence[bytes] = ()


@dataclass(frozen=True)
class RecalledBlock:
    """One block to look at.

    `z` is the score standardised over all candidates, `via` the hit that brought a neighbour along or that a hop began
    at (else the block itself), `bookmark` the index of the best matching bookmark, -1 if none voted, `path` the
    bookmarks from that hit to a hop's block.
    """

    block: int
    score: float
    z: float
    reached: Reached
    via: int
    bookmark: int
    path: tuple[int, ...] = ()


@dataclass(frozen=True)
class RecallAnswer:
    """Where to look, best first, as of the token at `asked_at`; mean and std are over the `candidates` scores."""

    asked_at: int
    blocks: tuple[RecalledBlock, ...]
    mean: float
    std: float
    candidates: int


@dataclass(frozen=True)
class SessionStats:
    """Counts of one session and of the outbox that all sessions of a client share.

    `outbox_bytes_peak` is the most it ever held; gaps are (first, count) ranges of tokens and of blocks that were
    dropped.
    """

    outbox_bytes: int
    outbox_bytes_peak: int
    outbox_bytes_max: int
    bookmarks: int
    token_gaps: tuple[tuple[int, int], ...]
    block_gaps: tuple[tuple[int, int], ...]
