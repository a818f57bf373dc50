"""Steps as they are checked before the session looks at them."""

from collections.abc import Callable

import numpy as np
import pytest

from memsvc.errors import EmbeddingInvalid, InvalidRequest, LimitExceeded, MemsvcError, MessageTooLarge
from memsvc.session.steps import BLOCK_GAPS_MAX, SIGNALS_MAX, decode_step
from protos import codec
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.session_driver import LIMITS, Text, session_spec

TEXT = Text(20)
NEEDED = ("surprisal",)


def _step(change: Callable[[memory_pb2.Step], object] = lambda step: None) -> memory_pb2.Step:
    step = TEXT.step(10, 16)
    change(step)
    return step


def _embedding(array: np.ndarray) -> Callable[[memory_pb2.Step], object]:
    return lambda step: step.embeddings["s0"].CopyFrom(codec.encode(array))


def _recall(**fields: int) -> Callable[[memory_pb2.Step], object]:
    asked = {"top_blocks": 1, "budget_blocks": 1, **fields}
    return lambda step: step.recall.CopyFrom(memory_pb2.RecallRequest(**asked))


def _recall_with_hops(**fields: int) -> Callable[[memory_pb2.Step], object]:
    asked = memory_pb2.HopRequest(**{"hops": 1, "blocks": 1, **fields})
    wanted = memory_pb2.RecallRequest(top_blocks=1, budget_blocks=1, hops=asked)
    return lambda step: step.recall.CopyFrom(wanted)


def _values(at: float = 1.0) -> np.ndarray:
    values = np.ones((6, 12), dtype=np.float32)
    values[2, 3] = at
    return values


def test_a_good_step_is_decoded_exactly() -> None:
    """Proves that ids, signals, embeddings and gaps come out as they went in."""
    step = _step(lambda step: step.block_gaps.add(first=3, count=2))
    decoded = decode_step(step, session_spec(), NEEDED, LIMITS)
    assert (decoded.first_position, decoded.count, decoded.end) == (10, 6, 16)
    np.testing.assert_array_equal(decoded.ids, TEXT.ids[10:16])
    np.testing.assert_array_equal(decoded.signals["surprisal"], TEXT.surprisal[10:16])
    np.testing.assert_array_equal(decoded.embeddings["s1"].view(np.uint32) >> 16, TEXT.rows["s1"][10:16])
    assert decoded.block_gaps == (range(3, 5),)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (lambda step: setattr(step, "count", 0), InvalidRequest, "INVALID_REQUEST"),
        (lambda step: setattr(step, "count", 4097), MessageTooLarge, "MESSAGE_TOO_LARGE"),
        (lambda step: setattr(step, "ids", b"123"), InvalidRequest, "INVALID_REQUEST"),
        (lambda step: setattr(step, "first_position", 1 << 63), LimitExceeded, "LIMIT_EXCEEDED"),
        (lambda step: step.embeddings.pop("s1"), InvalidRequest, "INVALID_REQUEST"),
        (lambda step: step.embeddings["other"].CopyFrom(step.embeddings["s0"]), InvalidRequest, "INVALID_REQUEST"),
        (_embedding(_values(np.nan)), EmbeddingInvalid, "EMBEDDING_NOT_FINITE"),
        (_embedding(_values(np.inf)), EmbeddingInvalid, "EMBEDDING_NOT_FINITE"),
        (_embedding(_values() * (np.arange(6) != 4)[:, None].astype(np.float32)), EmbeddingInvalid, "EMBEDDING_ZERO"),
        (_embedding(_values()[:, :11]), EmbeddingInvalid, "EMBEDDING_WRONG_DIMENSION"),
        (_embedding(_values()[:5]), EmbeddingInvalid, "EMBEDDING_WRONG_DIMENSION"),
        (_embedding(_values().astype(np.uint32)), EmbeddingInvalid, "EMBEDDING_WRONG_DTYPE"),
        (lambda step: setattr(step.embeddings["s0"], "dtype", 0), EmbeddingInvalid, "EMBEDDING_WRONG_DTYPE"),
        (lambda step: setattr(step.embeddings["s0"], "data", b"12"), EmbeddingInvalid, "EMBEDDING_WRONG_DIMENSION"),
        (lambda step: step.signals.pop("surprisal"), InvalidRequest, "INVALID_REQUEST"),
        (lambda step: step.signals["a b"].CopyFrom(step.signals["surprisal"]), InvalidRequest, "INVALID_REQUEST"),
        (
            lambda step: step.signals["surprisal"].CopyFrom(codec.encode(np.full(6, np.nan, dtype=np.float32))),
            EmbeddingInvalid,
            "EMBEDDING_NOT_FINITE",
        ),
        (
            lambda step: [step.signals[f"x{at}"].CopyFrom(step.signals["surprisal"]) for at in range(SIGNALS_MAX)],
            LimitExceeded,
            "LIMIT_EXCEEDED",
        ),
        (lambda step: step.block_gaps.add(first=0, count=1 << 60), InvalidRequest, "INVALID_REQUEST"),
        (
            lambda step: step.block_gaps.extend([types_pb2.Range(first=0, count=1)] * (BLOCK_GAPS_MAX + 1)),
            LimitExceeded,
            "LIMIT_EXCEEDED",
        ),
        (_recall(budget_blocks=0), InvalidRequest, "INVALID_REQUEST"),
        (_recall(budget_blocks=4097), InvalidRequest, "INVALID_REQUEST"),
        (_recall(top_blocks=0), InvalidRequest, "INVALID_REQUEST"),
        (_recall(neighbours=65), InvalidRequest, "INVALID_REQUEST"),
        (_recall(blocks_through=1 << 63), InvalidRequest, "INVALID_REQUEST"),
        (_recall_with_hops(hops=0), InvalidRequest, "INVALID_REQUEST"),
        (_recall_with_hops(hops=17), InvalidRequest, "INVALID_REQUEST"),
        (_recall_with_hops(blocks=0), InvalidRequest, "INVALID_REQUEST"),
        (_recall_with_hops(blocks=2), InvalidRequest, "INVALID_REQUEST"),
        (_recall_with_hops(half_life_tokens=1 << 63), InvalidRequest, "INVALID_REQUEST"),
    ],
)
def test_a_bad_step_is_refused_in_one_line(
    change: Callable[[memory_pb2.Step], object], error: type[MemsvcError], reason: str
) -> None:
    """Proves that every field is checked, with its own error and a message of one line."""
    with pytest.raises(error) as raised:
        decode_step(_step(change), session_spec(), NEEDED, LIMITS)
    assert (type(raised.value), raised.value.reason) == (error, reason)
    assert "\n" not in str(raised.value)


def test_a_zero_vector_is_named_with_its_place() -> None:
    """Proves that the message says in which stream and row, and that a row with one number is fine."""
    rows = np.zeros((6, 12), dtype=np.float32)
    rows[:, 5] = 1e-30
    decode_step(_step(_embedding(rows)), session_spec(), NEEDED, LIMITS)
    rows[3] = 0
    with pytest.raises(EmbeddingInvalid, match=r"expected embeddings\['s0'\] of a length above 0, got 0 at \[3\]"):
        decode_step(_step(_embedding(rows)), session_spec(), NEEDED, LIMITS)


def test_an_unknown_stream_is_named() -> None:
    """Proves that the streams expected and those that came are in the message."""
    with pytest.raises(InvalidRequest, match=r"expected embeddings of streams \['s0', 's1'\], got \['s0', 's2'\]"):
        decode_step(
            _step(lambda step: step.embeddings["s2"].CopyFrom(step.embeddings.pop("s1"))),
            session_spec(),
            NEEDED,
            LIMITS,
        )


def test_a_policy_that_needs_ids_refuses_a_step_without() -> None:
    """Proves that ids may be missing only where nobody looks at them, and not from a step without tokens either way."""
    bare = _step(lambda step: setattr(step, "ids", b""))
    decode_step(bare, session_spec(), NEEDED, LIMITS)
    decode_step(_step(), session_spec(), NEEDED, LIMITS, needs_ids=True)
    with pytest.raises(
        InvalidRequest, match="expected ids with each step, as the session's policy needs them, got none"
    ):
        decode_step(bare, session_spec(), NEEDED, LIMITS, needs_ids=True)
