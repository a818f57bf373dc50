"""A session as plain dicts and lists, and recalls by the formula worked out slowly: what state machines compare with.

Of the product it takes only what other tests prove by themselves: lattice vectors and where windows begin.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from memsvc.geometry import BLOCK_TOKENS, visible_blocks_end
from memsvc.lattice import SCALE
from memsvc.scoring import make_scorer
from protos.memsvc.v1 import graph_pb2, memory_pb2, types_pb2
from tests.session_driver import Text

TEXT_TOKENS = 8192


@cache
def text(seed: int) -> Text:
    """A made-up text; each seed's says something else."""
    return Text(TEXT_TOKENS, seed)


@cache
def floats(seed: int, stream: str) -> np.ndarray:
    """Its embeddings in one stream, float32 [TEXT_TOKENS, dims]."""
    return (text(seed).rows[stream].astype(np.uint32) << 16).view(np.float32)


@dataclass
class Model:
    """What a session must know.

    Attributes:
        seeds: Text of each position that came.
        runs: Tokens as [first, end, seed], cut at gaps and where the centre was frozen.
        held: Positions that wait for the centre.
        whole: Bytes of each whole block that was put.
        partial: Tokens and bytes of a block that was put in part.
        dropped: Blocks that were declared as gaps.
        bookmarks: As the session listed them, once they were checked.
    """

    spec: types_pb2.SessionSpec
    position: int = 0
    seeds: dict[int, int] = field(default_factory=dict)
    runs: list[list[int]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    frozen_at: int | None = None
    centre: dict[str, np.ndarray] = field(default_factory=dict)
    whole: dict[int, bytes] = field(default_factory=dict)
    partial: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    bookmarks: list[graph_pb2.Bookmark] = field(default_factory=list)
    lattice: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    # Lattice vectors of the first bookmarks, by stream; never changed in place.
    matrix: dict[str, np.ndarray] = field(default_factory=dict)
    # Of a view: where its tail was.
    cut_at: int = 0

    def cut(self) -> "Model":
        """As it is now, on its own."""
        own = copy.copy(self)
        own.runs = [list(run) for run in self.runs]
        for name in ("seeds", "held", "centre", "whole", "partial", "dropped", "bookmarks", "lattice", "matrix"):
            setattr(own, name, copy.copy(getattr(self, name)))
        return own

    def without_what_was_ahead(self) -> "Model":
        """As a writer that opens at this tail finds it."""
        own, end = self.cut(), self.position // BLOCK_TOKENS
        own.whole = {block: data for block, data in own.whole.items() if block < end}
        own.dropped = {block for block in own.dropped if block < -(-self.position // BLOCK_TOKENS)}
        return own

    def read(self, first: int, end: int, seed: int, asked: bool = False) -> None:
        """Tokens `first` to `end`; what lies between them and those before is lost."""
        joined = self.runs and self.runs[-1][1:] == [first, seed] and self.frozen_at != first
        if joined:
            self.runs[-1][1] = end
        elif first < end:
            self.runs.append([first, end, seed])
        self.seeds.update(dict.fromkeys(range(first, end), seed))
        self.position = end
        if not self.centre:
            self.held += range(first, end)
            if asked or len(self.held) >= self.spec.search.centring_tokens:
                self.freeze()

    def freeze(self) -> None:
        """The centre of what is held, if anything is."""
        if self.centre or not self.held:
            return
        scorer, own = make_scorer(self.spec.search.metric), self.held[: self.spec.search.centring_tokens]
        for stream in self.spec.fingerprint.streams:
            rows = np.stack([floats(self.seeds[position], stream.name)[position] for position in own])
            self.centre[stream.name] = scorer.freeze(rows)
        self.held, self.frozen_at = [], self.position

    def rows(self, stream: str, positions: Sequence[int]) -> np.ndarray:
        """Lattice vectors, int64 [n, dims]."""
        missing = [position for position in positions if (stream, position) not in self.lattice]
        if missing:
            own = np.stack([floats(self.seeds[position], stream)[position] for position in missing])
            made = make_scorer(self.spec.search.metric).to_lattice(own, self.centre[stream]).astype(np.int64)
            self.lattice.update({(stream, at): row for at, row in zip(missing, made, strict=True)})
        return np.stack([self.lattice[stream, position] for position in positions])

    def bookmark_rows(self, stream: str) -> np.ndarray:
        """Lattice vectors of all bookmarks, int64 [n, dims]."""
        known = self.matrix.get(stream)
        missing = [own.position for own in self.bookmarks[0 if known is None else len(known) :]]
        if missing:
            fresh = self.rows(stream, missing)
            self.matrix[stream] = fresh if known is None else np.concatenate([known, fresh])
        return self.matrix[stream]

    @property
    def through(self) -> int:
        """First block that is neither whole nor given up."""
        return next(block for block in range(1 << 20) if block not in self.whole and block not in self.dropped)

    @property
    def sink_blocks(self) -> int:
        """Blocks of the sinks."""
        return self.spec.fingerprint.sink_tokens // BLOCK_TOKENS

    def visible_end(self, position: int) -> int:
        """First block in the window of a token."""
        mark = self.spec.fingerprint
        return visible_blocks_end(position, mark.sink_tokens, mark.window_tokens)

    def candidates(self, asked_at: int, position_end: int, resident_first: int | None) -> list[int]:
        """Blocks that a recall may choose, ascending."""
        first = BLOCK_TOKENS * self.visible_end(asked_at) if resident_first is None else resident_first
        end = min(first, position_end, asked_at + 1) // BLOCK_TOKENS
        return [block for block in sorted(self.whole) if self.sink_blocks <= block < end]

    def votes(self, asked_at: int) -> list[tuple[int, float, int]]:
        """(block, contribution, bookmark), in order of token, stream and rank."""
        search, votes = self.spec.search, []
        positions = np.array([bookmark.position for bookmark in self.bookmarks], dtype=np.int64)
        for token in range(max(0, asked_at - search.trail_tokens + 1), asked_at + 1):
            first, last = np.searchsorted(
                positions, [BLOCK_TOKENS * self.sink_blocks, BLOCK_TOKENS * self.visible_end(token)]
            ).tolist()
            if token not in self.seeds or first >= last:
                continue
            blocks = positions[first:last] // BLOCK_TOKENS
            for stream in self.spec.fingerprint.streams:
                dots = self.bookmark_rows(stream.name)[first:last] @ self.rows(stream.name, [token])[0]
                fading = search.trail_decay ** (asked_at - token) * (stream.weight or 1.0)
                votes += _votes_of(dots, blocks, first, search.trail_blocks, fading)
        return votes

    def links_of(self, index: int) -> list[tuple[int, float]]:
        """Parents and weights of a bookmark by comparing it with every earlier one, strongest first."""
        search, stream = self.spec.search, self.spec.fingerprint.streams[0].name
        rows = self.bookmark_rows(stream)
        dots = rows[:index] @ rows[index]
        ranked = np.lexsort((-np.arange(index), -dots))[: search.links_max].tolist()
        return [
            (at, float(np.float32(dots[at] * (1.0 / SCALE**2))))
            for at in ranked
            if dots[at] / SCALE**2 >= search.link_similarity_min
        ]


def _votes_of(
    dots: np.ndarray, blocks: np.ndarray, first: int, count: int, fading: float
) -> list[tuple[int, float, int]]:
    best: dict[int, tuple[int, int]] = {}
    for at, (dot, block) in enumerate(zip(dots.tolist(), blocks.tolist(), strict=True)):
        best[block] = max(best.get(block, (-(1 << 30), 0)), (dot, first + at))
    ranked = sorted(((*hit, block) for block, hit in best.items()), reverse=True)[:count]
    unit, cut = 1.0 / SCALE**2, ranked[-1][0] * (1.0 / SCALE**2)
    return [(block, fading * (dot * unit - cut), bookmark) for dot, bookmark, block in ranked if dot * unit > cut]


def hits_kept(ask: memory_pb2.RecallRequest) -> int | None:
    """Hits that stay whatever links lead to; None where all do."""
    top = min(ask.top_blocks, ask.budget_blocks)
    return max((top + 1) // 2, top - ask.hops.blocks) if ask.HasField("hops") else None


def expected_recall(
    votes: list[tuple[int, float, int]], candidates: list[int], ask: memory_pb2.RecallRequest
) -> tuple[list[memory_pb2.RecalledBlock], float, float]:
    """Blocks in order, mean and standard deviation of a recall without hops, straight from the rules."""
    scores, best = dict.fromkeys(candidates, 0.0), dict.fromkeys(candidates, (0.0, -1))
    for block, contribution, bookmark in votes:
        if block in scores:
            scores[block] += contribution
            best[block] = max(best[block], (contribution, bookmark), key=lambda own: own[0])
            if contribution == best[block][0]:
                best[block] = (contribution, bookmark)
    values = np.array([scores[block] for block in candidates])
    mean, std = (float(values.mean()), float(values.std())) if candidates else (0.0, 0.0)
    ranked = sorted(candidates, key=lambda block: (-scores[block], -block))
    top = ranked[: min(ask.top_blocks, ask.budget_blocks)]
    reached = {
        block: (memory_pb2.REACHED_TRAIL if scores[block] > 0 else memory_pb2.REACHED_FILL, block) for block in top
    }
    for hit in [block for block in top if scores[block] > 0]:
        for offset in [sign * distance for distance in range(1, ask.neighbours + 1) for sign in (-1, 1)]:
            if hit + offset in scores and hit + offset not in reached and len(reached) < ask.budget_blocks:
                reached[hit + offset] = (memory_pb2.REACHED_NEIGHBOUR, hit)
    blocks = [
        memory_pb2.RecalledBlock(
            block=block,
            score=scores[block],
            z=(scores[block] - mean) / std if std > 0 else 0.0,
            reached=how,
            via_block=via,
            bookmark=best[block][1],
        )
        for block, (how, via) in reached.items()
    ]
    return blocks, mean, std
