"""What a session knows, in memory: a function of its log, rebuilt bit for bit from it.

A step goes through three moments:

    plan        embeddings become vectors, the policy decides, links are searched for     changes what nobody reads
    (the log)   what was planned is appended
    commit      bookmarks, tokens, gaps and the trail become visible

In replay the links, vectors and what was measured come from the record, so nothing is searched; the policy decides by
them again and must agree.

Invariants:
    Bookmarks enter in order of position, once the centre is frozen: none before.
    The state after a record depends on the records up to it alone, not on how tokens were split into steps.
Must not know: logs, disks, attachments, locks. One caller at a time.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from memsvc.blocks import BlockRef
from memsvc.disk import make_folder
from memsvc.errors import CorruptLog
from memsvc.geometry import BLOCK_TOKENS
from memsvc.graph import BookmarkGraph
from memsvc.policy import Measured
from memsvc.scoring import make_scorer
from memsvc.session.block_table import BlockTable
from memsvc.session.deciding import Decider
from memsvc.session.links import Links
from memsvc.session.ranges import runs
from memsvc.session.records import Decided, Entry, StepRecord, TailRecord
from memsvc.session.steps import TokenStep
from memsvc.session.tokens import TokenTable
from memsvc.session.vectors import RECENT_TOKENS, TokenRows, Vectors
from memsvc.shards.base import BlockHits, Int16Array, Int64Array
from memsvc.shards.choice import group_rows_of
from memsvc.shards.index import StreamIndex
from memsvc.trail import BlockSearch, Trail
from memsvc.votes import TrailSettings
from protos.memsvc.v1 import session_pb2, types_pb2


@dataclass(frozen=True)
class Cut:
    """What a tail fixed, for whoever goes on from there.

    Args:
        bookmarks: The first so many of the graph.
        partial: The block that was not whole; None if the tail ends with a block.
    """

    tail: session_pb2.Tail
    bookmarks: int
    trail: Trail
    partial: BlockRef | None

    @property
    def position(self) -> int:
        """Of the next token."""
        return self.tail.position


@dataclass(frozen=True)
class Plan:
    """What a step or tail does to the bookmarks.

    Args:
        decided: By the policy, now.
        fresh: Vectors that are new, of consecutive tokens but for gaps; None before centring.
        entering: Bookmarks that enter the graph, in order.
        entry: Their links.
        measured: What the policy's measures gave, for the log.
    """

    decided: Decided
    fresh: TokenRows | None
    entering: Decided
    entry: Entry
    measured: Measured


class SessionState:
    """Graph, indexes, policy, vectors, tokens, blocks and trail of one session.

    Args:
        shards: Folder for saved shards; exists.

    Attributes:
        links: Where links come from; bookmarks enter the indexes through it.
        cut: Of the newest tail; of an empty session if there is none.
        changed: Whether anything came after `cut`.
    """

    def __init__(self, spec: types_pb2.SessionSpec, shards: Path) -> None:
        streams, search = spec.fingerprint.streams, spec.search
        self.settings = TrailSettings.of(spec)
        self.graph = BookmarkGraph(search.links_max)
        self.indexes = {
            stream.name: StreamIndex(stream.dims, search, _shard_folder(shards, at, search), group_rows_of(spec))
            for at, stream in enumerate(streams)
        }
        dims = {stream.name: stream.dims for stream in streams}
        self.vectors = Vectors(dims, search.centring_tokens, make_scorer(search.metric))
        self.tokens = TokenTable()
        self.blocks = BlockTable()
        self.trail = Trail(self.settings)
        self.cut = Cut(session_pb2.Tail(), 0, self.trail.copy(), None)
        self.changed = False
        self.decider = Decider(spec)
        self.links = Links(self.indexes, streams[0].dims, search)
        # Decided, and not in the graph as long as there is no centre.
        self._waiting = Decided.of([])

    def plan_step(self, step: TokenStep, asked: bool) -> Plan:
        """What a step does; `asked` if it wants a recall. Ends with `commit_step`, or the state is of no use."""
        self.decider.take(step)
        if self.vectors.centre is not None:
            return self._enter(self.vectors.convert(step.first_position, step.embeddings))
        self.vectors.hold(step.first_position, step.embeddings)
        return self._freeze() if asked or self.vectors.due else self._wait()

    def plan_tail(self) -> Plan:
        """What a tail does: it freezes the centre if anything is held."""
        return self._freeze() if self.vectors.centre is None and self.vectors.held else self._wait()

    def replay_step(self, record: StepRecord) -> None:
        """Takes a step from the log. Raises CorruptLog if the policy decides otherwise than it says."""
        step = record.step
        self.decider.take(step)
        if record.kept is not None:
            plan = self._enter(record.kept, record)
        else:
            self.vectors.hold(step.first_position, step.embeddings)
            plan = self._freeze(record) if record.entry.centre else self._wait(record)
        self.commit_step(step, plan)

    def replay_tail(self, record: TailRecord) -> None:
        """Takes a tail from the log."""
        plan = self._freeze(record) if record.entry.centre else self._wait(record)
        self.commit_tail(record.tail, plan)

    def commit_step(self, step: TokenStep, plan: Plan) -> None:
        """Makes a planned step visible."""
        self.changed = True
        self._commit(plan)
        self.tokens.append(step.first_position, step.count, step.ids, step.text)
        for gap in step.block_gaps:
            self.blocks.declare_gap(gap.start, gap.stop)

    def commit_tail(self, tail: session_pb2.Tail, plan: Plan) -> None:
        """Makes a planned tail the newest."""
        self._commit(plan)
        block, filled = divmod(tail.position, BLOCK_TOKENS)
        partial = self.blocks.get(block) if filled else None
        self.cut = Cut(tail, len(self.graph), self.trail.copy(), partial)
        self.changed = False

    def add_block(self, ref: BlockRef) -> None:
        """Makes a stored block visible."""
        self.changed = True
        self.blocks.add(ref)

    def kept_of(self, step: TokenStep, plan: Plan) -> TokenRows | None:
        """Of a planned step's vectors, those that anything later needs; None before centring and in what froze it."""
        if plan.fresh is None or plan.entry.centre is not None:
            return None
        newest = max(RECENT_TOKENS, self.settings.tokens, self.decider.needs.vectors_back)
        needed = np.arange(step.count) >= step.count - newest
        own = plan.decided.positions
        needed[own[own >= step.first_position] - step.first_position] = True
        return plan.fresh if needed.all() else plan.fresh.take(np.flatnonzero(needed))

    def prepare(self) -> None:
        """Lets the finders do now what the first search after a replay would do, which may take long with HNSW."""
        find = self.search(len(self.graph))
        for name, dims in self.vectors.dims.items():
            find(name, np.zeros((1, dims), dtype=np.int16), np.zeros(1, dtype=np.int64), 1)

    def search(self, bookmarks: int) -> BlockSearch:
        """Finds blocks among the first so many bookmarks."""
        block_of = self.graph.blocks(bookmarks)
        first_block = self.settings.sink_tokens // BLOCK_TOKENS

        def best_blocks(stream: str, queries: Int16Array, blocks_end: Int64Array, k: int) -> BlockHits:
            return self.indexes[stream].best_blocks(queries, blocks_end, block_of, bookmarks, k, first_block)

        return best_blocks

    def _wait(self, record: StepRecord | TailRecord | None = None) -> Plan:
        settled = self.decider.settle(None, record)
        return Plan(settled.decided, None, Decided.of([]), self.links.none(), settled.measured)

    def _freeze(self, record: StepRecord | TailRecord | None = None) -> Plan:
        """Fixes the centre, as logged or as it comes out, and lets in all that waited for it."""
        centre = self.vectors.centre_of_held() if record is None else record.entry.centre
        assert centre is not None
        plan = self._enter(self.vectors.freeze(centre), record)
        return replace(plan, entry=Entry(plan.entry.parents, plan.entry.weights, centre))

    def _enter(self, fresh: TokenRows, record: StepRecord | TailRecord | None = None) -> Plan:
        known = self.vectors.remember(fresh)
        if isinstance(record, StepRecord) and not np.isin(record.decided.positions, known.positions).all():
            raise CorruptLog(f"expected a vector of each bookmark, got none of some, from step {record.seq} on")
        settled = self.decider.settle(known, record)
        entering = self._waiting.then(settled.decided)
        rows = known.at(entering.positions)
        if record is None:
            entry = self.links.find(rows)
        elif len(record.entry.parents) != len(entering):
            raise CorruptLog(f"expected links of {len(entering)} bookmarks, got {len(record.entry.parents)}")
        elif np.any(record.entry.parents >= len(self.graph) + np.arange(len(entering))[:, None]):
            raise CorruptLog(f"expected links of {len(entering)} bookmarks to earlier ones, got one to a later one")
        else:
            entry = record.entry
            self.links.enter(rows, entry.parents[:, 0])
        return Plan(settled.decided, fresh, entering, entry, settled.measured)

    def _commit(self, plan: Plan) -> None:
        if plan.fresh is None:
            self._waiting = self._waiting.then(plan.decided)
            return
        self._waiting = Decided.of([])
        new, entry = plan.entering, plan.entry
        if len(new):
            self.graph.extend(new.positions, entry.parents, entry.weights, new.signal, new.forced)
        append_to_trail(self.trail, plan.fresh)


def append_to_trail(trail: Trail, fresh: TokenRows) -> None:
    """Gives a trail the newest of these tokens, as many as it may want; there may be gaps."""
    newest = fresh.newest(trail.settings.tokens)
    start = 0
    for run in runs(newest.positions):
        own = newest.take(slice(start, start + len(run)))
        trail.append(run.start, own.rows)
        start += len(run)


def _shard_folder(shards: Path, stream: int, search: types_pb2.SearchSpec) -> Path | None:
    """Where a stream's full shards are saved; streams share no folder, since a shard's name says no stream."""
    if search.finder not in (types_pb2.FINDER_KIND_HNSW, types_pb2.FINDER_KIND_FAISS, types_pb2.FINDER_KIND_AUTO):
        return None
    folder = shards / str(stream)
    make_folder(folder)
    return folder
