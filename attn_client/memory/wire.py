"""Records to and from protobuf.

Must not know: threads, connections.
"""

from collections.abc import Iterable, Sized

import numpy as np

from attn_client.errors import MemoryProtocol
from attn_client.memory.outbox import PendingStep
from attn_client.memory.records import Reached, RecallAnswer, RecallAsk, RecalledBlock, StepRecord
from protos import codec
from protos.memsvc.v1 import memory_pb2, types_pb2

BLOCK_TOKENS = 64

# Field numbers, lengths, seq and position of a step and of its envelope.
STEP_OVERHEAD_BYTES = 1024

_REACHED: dict[int, Reached] = {
    memory_pb2.REACHED_TRAIL: "trail",
    memory_pb2.REACHED_NEIGHBOUR: "neighbour",
    memory_pb2.REACHED_FILL: "fill",
    memory_pb2.REACHED_HOP: "hop",
}


def steps_of(record: StepRecord, welcome: memory_pb2.Welcome, *, sink_tokens: int | None) -> list[PendingStep]:
    """Steps to send for a record: one, or several where the server takes fewer tokens or bytes in one message.

    The last of them asks for the recall. Attachment, seq and gaps are set when they are queued and sent.

    Args:
        sink_tokens: The session's, which are never recalled; None for a view, whose blocks are all there.

    Raises:
        ValueError: No tokens, rows that are not one a token, or an element type that does not travel.
    """
    count = len(record.ids)
    arrays: dict[str, Sized] = {**record.embeddings, **record.signals, **({"text": record.text} if record.text else {})}
    unequal = {name: len(array) for name, array in arrays.items() if len(array) != count}
    if not count or unequal:
        raise ValueError(f"expected a row for each of 1 or more tokens, got {count} ids and rows {unequal}")
    own_bytes = sum(array.nbytes for array in (*record.embeddings.values(), *record.signals.values()))
    # Of text the longest token, and its size: no part may be too large.
    text_bytes = 4 + max(len(own) for own in record.text) if record.text else 0
    row_bytes = 4 + own_bytes // count + text_bytes
    bytes_max = welcome.message_bytes_max - STEP_OVERHEAD_BYTES
    part = min(welcome.step_tokens_max, welcome.credit_tokens, bytes_max // row_bytes)
    if part < 1:
        raise ValueError(f"expected at most {bytes_max} bytes a token, got {row_bytes}")
    steps = [_step(record, start, min(start + part, count)) for start in range(0, count, part)]
    if record.recall is not None:
        # All between sinks and the window that the answer meets: the same however the tokens were cut into steps.
        window = record.resident[0]
        through = 0 if sink_tokens is None or window <= sink_tokens else window // BLOCK_TOKENS
        steps[-1].step.recall.CopyFrom(_recall_request(record.recall, through))
    return steps


def gap_step(position: int, fingerprint: types_pb2.Fingerprint, signals: Iterable[str]) -> PendingStep:
    """A step without tokens, at the end of what was read: it only declares gaps.

    Args:
        signals: Names that the session's other steps carry.
    """
    request = memory_pb2.AttachRequest()
    step = request.steps.steps.add()
    step.first_position = position
    for stream in fingerprint.streams:
        step.embeddings[stream.name].MergeFrom(codec.encode(np.empty((0, stream.dims), np.float32)))
    for signal in signals:
        step.signals[signal].MergeFrom(codec.encode(np.empty(0, np.float32)))
    step.durability = types_pb2.DURABILITY_BUFFERED
    # It takes no room: it is what makes room.
    return PendingStep(request, tokens=0, end_position=position, size_bytes=0)


def ranges_of(numbers: Iterable[int]) -> list[types_pb2.Range]:
    """Ascending numbers as ranges."""
    ranges: list[types_pb2.Range] = []
    for number in numbers:
        if ranges and ranges[-1].first + ranges[-1].count == number:
            ranges[-1].count += 1
        else:
            ranges.append(types_pb2.Range(first=number, count=1))
    return ranges


def answer_of(recall: memory_pb2.Recall) -> RecallAnswer:
    """A recall as a record."""
    blocks = tuple(
        RecalledBlock(
            block=one.block,
            score=one.score,
            z=one.z,
            reached=_reached(one.reached),
            via=one.via_block,
            bookmark=one.bookmark,
            path=tuple(one.path),
        )
        for one in recall.blocks
    )
    return RecallAnswer(recall.asked_at_position, blocks, recall.mean, recall.std, recall.candidates)


def _reached(value: int) -> Reached:
    reached = _REACHED.get(value)
    if reached is None:
        raise MemoryProtocol(f"recalled block: expected it reached in one of {list(_REACHED)} ways, got {value}")
    return reached


def _step(record: StepRecord, start: int, stop: int) -> PendingStep:
    request = memory_pb2.AttachRequest()
    step = request.steps.steps.add()
    step.first_position = record.first_position + start
    step.count = stop - start
    step.ids = record.ids[start:stop].astype("<u4", copy=False).tobytes()
    for name, embedding in record.embeddings.items():
        step.embeddings[name].MergeFrom(codec.encode(embedding[start:stop]))
    for name, signal in record.signals.items():
        step.signals[name].MergeFrom(codec.encode(signal[start:stop].astype(np.float32, copy=False)))
    if record.text:
        own = record.text[start:stop]
        step.text, step.text_sizes = b"".join(own), np.array([len(one) for one in own], dtype="<u4").tobytes()
    step.resident.first, step.resident.count = record.resident
    step.durability = types_pb2.DURABILITY_BUFFERED
    size = request.ByteSize() + STEP_OVERHEAD_BYTES
    return PendingStep(request, tokens=step.count, end_position=step.first_position + step.count, size_bytes=size)


def _recall_request(ask: RecallAsk, blocks_through: int) -> memory_pb2.RecallRequest:
    hops = ask.hops
    return memory_pb2.RecallRequest(
        top_blocks=ask.top_blocks,
        neighbours=ask.neighbours,
        budget_blocks=ask.budget_blocks,
        deadline_ms=ask.deadline_ms,
        blocks_through=blocks_through,
        hops=memory_pb2.HopRequest(hops=hops.hops, blocks=hops.blocks, half_life_tokens=hops.half_life_tokens)
        if hops is not None
        else None,
    )
