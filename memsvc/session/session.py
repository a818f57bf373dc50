"""One session: steps, blocks, recalls, tails and reads of its attachments.

Invariants:
    What is acknowledged is in the log. A request that is refused changed nothing.
    One writer at a time: only the newest epoch's attachment writes.
    Once a write broke off half way the session takes no more, until its folder is opened anew.
Must not know: gRPC, workers' streams, the manifest beyond a session's entry.
"""

from collections.abc import Sequence

from memsvc.errors import BlockNotFound, InvalidRequest
from memsvc.session import reads, stepping, writing
from memsvc.session.attachment import Attachment
from memsvc.session.core import SessionCore
from memsvc.session.info import describe
from memsvc.session.recalls import PendingRecall
from protos.memsvc.v1 import graph_pb2, memory_pb2, session_pb2, types_pb2

_SYNC = types_pb2.DURABILITY_SYNC


class Session:
    """A session whose log is read.

    Concurrency: any calls may overlap; those of one attachment's steps come one after the other.
    """

    def __init__(self, core: SessionCore) -> None:
        # For this package: opening, closing and syncing are not among what an attachment may ask for.
        self.core = core

    @property
    def name(self) -> str:
        """Name of the session."""
        return self.core.entry.name

    @property
    def spec(self) -> types_pb2.SessionSpec:
        """What it was made with; not to be changed."""
        return self.core.spec

    @property
    def bookmarks(self) -> int:
        """How many there are now."""
        return len(self.core.state.graph)

    def info(self) -> types_pb2.SessionInfo:
        """The session as it is now."""
        with self.core.lock:
            return describe(self.core)

    def apply(self, attachment: Attachment, step: memory_pb2.Step) -> tuple[memory_pb2.Ack, PendingRecall | None]:
        """Takes the next tokens of an attachment; a step that was applied before is acknowledged again.

        Returns:
            The acknowledgement, and the recall if one is asked for; of a repeated step, if it is still remembered.

        Durability: BUFFERED survives kill -9, SYNC power loss. A view's tokens survive nothing.

        Raises:
            StaleEpoch, AttachmentNotFound: Not, or no longer, the writer or an open view.
            InvalidRequest, PositionOutOfOrder, EmbeddingInvalid, MessageTooLarge, LimitExceeded: Nothing changed.
            StorageFailed: The disk refused; nothing more is taken.
        """
        durability = _SYNC if step.durability == _SYNC else types_pb2.DURABILITY_BUFFERED
        bookmarks, pending = stepping.apply(self.core, attachment, step)
        if durability == _SYNC and not attachment.is_view:
            self.core.sync()
        if not attachment.is_view:
            self.core.require_held(attachment.epoch)
        ack = memory_pb2.Ack(attachment=attachment.id, seq=step.seq, durability=durability, bookmarks=bookmarks)
        return ack, pending

    def recall_ready(self, pending: PendingRecall) -> bool:
        """Whether every block that the asker finished before is put or declared as a gap."""
        with self.core.lock:
            return pending.ready

    def recall(self, pending: PendingRecall) -> memory_pb2.Recall:
        """The answer, with the blocks stored now as candidates; the same again once it was given."""
        core = self.core
        with core.lock:
            result = core.remembered.result(pending)
            candidates = pending.candidates()
        if result is None:
            scores = pending.score(candidates)
            with core.lock:
                hops = pending.follow(scores)
            result = pending.choose(scores, hops)
            with core.lock:
                core.remembered.keep(pending, result)
        return pending.to_wire(result)

    def put_block(
        self,
        attachment: Attachment,
        block: int,
        partial_tokens: int,
        data: bytes | memoryview,
        crc32c: int,
        durability: types_pb2.Durability.ValueType,
    ) -> None:
        """Stores a block; the same bytes again are fine.

        Args:
            partial_tokens: 0 for a whole block, else how many tokens of it there are.

        Durability: as named; BUFFERED survives kill -9.

        Raises:
            StaleEpoch: Not the writer, or not any more.
            InvalidRequest: A view, another size, too far ahead, given up as a gap, or other bytes than are stored.
            CorruptBlock: The bytes do not have this checksum.
            StorageFailed: The disk refused.
        """
        if attachment.is_view:
            raise InvalidRequest(f"expected a writer to put block {block}, got view {attachment.id}")
        writing.put_block(self.core, attachment, writing.BlockPut(block, partial_tokens, len(data), crc32c), data)
        if durability == _SYNC:
            self.core.sync()
        self.core.require_held(attachment.epoch)

    def read_block(self, attachment: Attachment, block: int) -> tuple[bytes, int, int]:
        """A block's bytes, their CRC32C, and how many tokens it holds if not whole, else 0.

        Raises:
            StaleEpoch, AttachmentNotFound: Not, or no longer, attached.
            BlockNotFound: It was never put, is a gap, or lies past a view's cut.
            CorruptBlock: Its bytes did not come back as they were put.
        """
        core = self.core
        with core.lock:
            core.require_attached(attachment, attachment.epoch)
            state = attachment.view.state if attachment.view else core.state
            ref = attachment.view.block(block) if attachment.view else state.blocks.get(block)
            gap = state.blocks.gaps.end_of_range_at(block) is not None
        if ref is None:
            got = "a recorded gap" if gap else "one that was never put"
            raise BlockNotFound(f"expected a stored block of session {self.name!r}, got block {block}, {got}")
        with core.served():
            return core.files.read(ref), ref.crc32c, ref.partial_tokens

    def save_tail(self, attachment: Attachment, epoch: int, tail: session_pb2.Tail) -> None:
        """Cuts a tail at the writer's position; views and new writers begin there from now on.

        Durability: survives power loss, with everything before it.

        Raises:
            StaleEpoch: Not the writer, or not any more.
            TailIncomplete: Steps or blocks before its position are missing.
            InvalidRequest: Another format, or before the writer's position.
        """
        core = self.core
        with core.lock:
            core.require_writer(attachment, epoch)
            writing.check_tail(tail, core.state)
            writing.write_tail(tail, epoch, core.state, core.files, core.failing())
        core.sync()
        core.require_held(epoch)

    def list_snapshots(self) -> list[session_pb2.Snapshot]:
        """All snapshots, in order of position, then of name."""
        with self.core.lock:
            return [snapshot.to_wire() for snapshot in self.core.lineage.snapshots()]

    def list_bookmarks(self, first: int, count: int) -> graph_pb2.ListBookmarksResponse:
        """Bookmarks by index. Raises LimitExceeded."""
        with self.core.lock:
            graph = self.core.state.graph
            bookmarks, total = reads.bookmarks_from(graph, first, count), len(graph)
        return graph_pb2.ListBookmarksResponse(bookmarks=reads.bookmarks_to_wire(bookmarks), total=total)

    def graph(self, seeds: Sequence[int], hops: int, limit: int) -> graph_pb2.GetGraphResponse:
        """Bookmarks around the seeds. Raises BookmarkNotFound, LimitExceeded."""
        with self.core.lock:
            bookmarks = reads.bookmarks_around(self.core.state.graph, seeds, hops, limit)
        return graph_pb2.GetGraphResponse(bookmarks=reads.bookmarks_to_wire(bookmarks))

    def read_tokens(self, positions: types_pb2.Range) -> graph_pb2.ReadTokensResponse:
        """Token ids of a range. Raises InvalidRequest."""
        reads.check_token_range(positions)
        with self.core.lock:
            read = self.core.state.tokens.read(positions.first, positions.count)
        return reads.tokens_to_wire(read)

    def explain(self, asked_at: int | None) -> graph_pb2.ExplainResponse:
        """Why a recall that was answered chose its blocks; the newest if `asked_at` is None. Raises RecallNotFound."""
        with self.core.lock:
            pending, result = self.core.remembered.answered(asked_at)
            searches = reads.searches(pending, result, self.core.state.links)
            status = self.core.state.links.status()
        return reads.explanation(pending, result, searches, status)
