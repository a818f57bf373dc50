"""What a writer does to a session, one record at a time: steps, blocks, tails.

First everything is checked, so that an error of the request changes nothing; then it is logged; then made visible.
All but `put_block` are called under the session's lock.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from memsvc.blocks import BlockRef
from memsvc.errors import InvalidRequest, PositionOutOfOrder, TailIncomplete
from memsvc.geometry import BLOCK_TOKENS
from memsvc.session.attachment import Attachment
from memsvc.session.core import SessionCore
from memsvc.session.files import SessionFiles
from memsvc.session.limits import SessionLimits
from memsvc.session.records import RecordKind, StepRecord, TailRecord, pack_block, pack_step, pack_tail
from memsvc.session.state import SessionState
from memsvc.session.steps import TokenStep
from protos import codec
from protos.memsvc.v1 import memory_pb2, session_pb2

# Version of Tail that is read and written.
TAIL_VERSION = 1


def check_order(message: memory_pb2.Step, applied_seq: int, position: int) -> None:
    """Raises InvalidRequest for a hole in the sequence, PositionOutOfOrder for one in the positions."""
    if message.seq != applied_seq + 1:
        raise InvalidRequest(f"expected seq {applied_seq + 1}, got {message.seq}, of attachment {message.attachment}")
    if message.first_position != position + message.gap_tokens:
        raise PositionOutOfOrder(
            f"expected first_position {position + message.gap_tokens} (position {position} and a gap of "
            f"{message.gap_tokens}), got {message.first_position}, of attachment {message.attachment}"
        )


def write_step(
    message: memory_pb2.Step,
    step: TokenStep,
    state: SessionState,
    files: SessionFiles,
    failing: AbstractContextManager[None],
) -> None:
    """Applies a step that passed `check_order`; `failing` puts the session out of use where that breaks off."""
    with failing:
        plan = state.plan_step(step, message.HasField("recall"))
        kept = state.kept_of(step, plan)
        record = StepRecord(message.attachment, message.seq, step, plan.decided, kept, plan.entry, plan.measured)
        files.append(RecordKind.STEP, message.epoch, pack_step(record))
        state.commit_step(step, plan)


@dataclass(frozen=True)
class BlockPut:
    """A block that is to be stored; `partial_tokens` is 0 for a whole one."""

    block: int
    partial_tokens: int
    size_bytes: int
    crc32c: int


def check_put(put: BlockPut, block_bytes: int, state: SessionState, limits: SessionLimits) -> None:
    """Raises InvalidRequest for a block of another size, one that lies too far ahead, or one that was given up."""
    if put.partial_tokens >= BLOCK_TOKENS:
        raise InvalidRequest(f"expected partial_tokens of 0 to {BLOCK_TOKENS - 1}, got {put.partial_tokens}")
    if put.size_bytes != block_bytes:
        raise InvalidRequest(f"expected {block_bytes} bytes of block {put.block}, got {put.size_bytes}")
    end = BLOCK_TOKENS * put.block + (put.partial_tokens or BLOCK_TOKENS)
    position = state.tokens.position
    if end > min(position + limits.put_ahead_tokens_max, limits.tokens_max):
        raise InvalidRequest(
            f"expected a block before position {position} (or at most {limits.put_ahead_tokens_max} tokens ahead), "
            f"got block {put.block}, which ends at {end}"
        )
    if state.blocks.gaps.end_of_range_at(put.block) is not None:
        raise InvalidRequest(f"expected a block that was not declared as a gap, got block {put.block}")


def is_stored(put: BlockPut, state: SessionState) -> bool:
    """Whether these bytes are stored already. Raises InvalidRequest where others are that these may not replace."""
    known = state.blocks.get(put.block)
    if known is None or (
        known.partial_tokens and (not put.partial_tokens or put.partial_tokens > known.partial_tokens)
    ):
        return False
    if (known.partial_tokens, known.crc32c) == (put.partial_tokens, put.crc32c):
        return True
    raise InvalidRequest(
        f"expected block {put.block} as it is stored, {_part(known.partial_tokens)} with CRC32C {known.crc32c:08x}, "
        f"got {_part(put.partial_tokens)} with CRC32C {put.crc32c:08x}"
    )


def put_block(core: SessionCore, attachment: Attachment, put: BlockPut, data: bytes | memoryview) -> None:
    """Stores a block of the writer; the same bytes again are fine. Takes the locks itself."""

    def stored() -> bool:
        core.require_writer(attachment, attachment.epoch)
        check_put(put, core.spec.fingerprint.block_bytes, core.state, core.limits)
        return is_stored(put, core.state)

    with core.files.put_lock:
        with core.lock:
            if stored():
                return
        ref = core.files.put(put.block, put.partial_tokens, data, put.crc32c)
        # The state may have moved while the bytes were written: another writer, or a gap declared.
        with core.lock:
            if not stored():
                write_block(ref, attachment.epoch, core.state, core.files)


def write_block(ref: BlockRef, epoch: int, state: SessionState, files: SessionFiles) -> None:
    """Notes where a block is stored."""
    files.append(RecordKind.BLOCK, epoch, {**pack_block(ref), "unix_ms": files.now_unix_ms})
    state.add_block(ref)


def check_tail(tail: session_pb2.Tail, state: SessionState) -> None:
    """Raises InvalidRequest for another format or place, TailIncomplete while something before it is missing."""
    position = state.tokens.position
    if tail.version != TAIL_VERSION:
        raise InvalidRequest(f"expected tail.version {TAIL_VERSION}, got {tail.version}")
    if tail.position > position:
        raise TailIncomplete(f"expected every step up to {tail.position} applied, got them up to {position}")
    if tail.position < position:
        raise InvalidRequest(f"expected a tail at the writer's position {position}, got {tail.position}")
    if tail.HasField("logits"):
        try:
            codec.as_float32(tail.logits)
        except ValueError as error:
            raise InvalidRequest(f"tail.logits: {error}") from error
    block, filled = divmod(position, BLOCK_TOKENS)
    if (through := state.blocks.through) < block:
        raise TailIncomplete(f"expected blocks 0 to {block - 1} put or declared as gaps, got no block {through}")
    # A whole block would not do: it was put ahead of its tokens, and who opens next has no use for what is void.
    if not filled or state.blocks.gaps.end_of_range_at(block) is not None:
        return
    partial = state.blocks.get(block)
    if partial is None or partial.partial_tokens != filled:
        got = _part(partial.partial_tokens) if partial else "nothing"
        raise TailIncomplete(f"expected the first {filled} tokens of block {block} put, got {got}")


def write_tail(
    tail: session_pb2.Tail,
    epoch: int,
    state: SessionState,
    files: SessionFiles,
    failing: AbstractContextManager[None],
) -> None:
    """Makes a tail that passed `check_tail` the newest; a repeated one is not written again."""
    if not state.changed and state.cut.tail == tail:
        return
    with failing:
        plan = state.plan_tail()
        files.append(RecordKind.TAIL, epoch, pack_tail(TailRecord(tail, plan.entry, plan.measured)))
        state.commit_tail(tail, plan)


def _part(partial_tokens: int) -> str:
    return f"its first {partial_tokens} tokens" if partial_tokens else "the whole"
