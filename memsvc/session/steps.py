"""A step as the session takes it: decoded, and checked against the spec and the limits.

What is checked here depends on the step and the spec alone; epochs, sequence and position are the session's business.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memsvc.errors import EmbeddingInvalid, InvalidRequest, LimitExceeded, MessageTooLarge
from memsvc.geometry import BLOCK_TOKENS
from memsvc.session.limits import SessionLimits
from memsvc.session.tokens import TokenText, Uint32Array
from memsvc.shards.base import Float32Array
from protos import codec
from protos.memsvc.v1 import memory_pb2, types_pb2

# Limits of a step beside its tokens.
SIGNALS_MAX = 8
BLOCK_GAPS_MAX = 4096
# Limits of a recall, in blocks.
BUDGET_BLOCKS_MAX = 4096
NEIGHBOURS_MAX = 64
# Links of a path, as a recall follows them.
HOPS_MAX = 16

FLOAT_TYPES = (types_pb2.ELEMENT_TYPE_FLOAT32, types_pb2.ELEMENT_TYPE_FLOAT16, types_pb2.ELEMENT_TYPE_BFLOAT16)

_ZERO = "EMBEDDING_ZERO"
_SIGNAL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Places of integers in signed 64 bits, with room for arithmetic.
_INTEGER_MAX = 1 << 62


@dataclass(frozen=True)
class TokenStep:
    """Tokens that follow each other.

    Args:
        gap_tokens: Dropped before the first one.
        ids: uint32 [count], or [0] if they were not sent.
        signals: By name, float32 [count].
        block_gaps: Ranges of blocks that were dropped.
        tensors: Embeddings as they came, by stream.
        embeddings: The same as float32 [count, dims].
        text: Of the tokens, if it was sent.
    """

    first_position: int
    count: int
    gap_tokens: int
    ids: Uint32Array
    signals: Mapping[str, Float32Array]
    block_gaps: tuple[range, ...]
    tensors: Mapping[str, types_pb2.Tensor]
    embeddings: Mapping[str, Float32Array]
    text: TokenText | None = None

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.first_position + self.count


def decode_step(
    step: memory_pb2.Step,
    spec: types_pb2.SessionSpec,
    signals: tuple[str, ...],
    limits: SessionLimits,
    *,
    needs_ids: bool = False,
) -> TokenStep:
    """The tokens of a step.

    Args:
        signals: Names that the policy needs.
        needs_ids: Whether it needs ids, too.

    Raises:
        MessageTooLarge, InvalidRequest, EmbeddingInvalid, LimitExceeded: As their names say; all name the field.
    """
    if step.count > limits.step_tokens_max:
        raise MessageTooLarge(f"expected count of at most {limits.step_tokens_max} tokens a step, got {step.count}")
    # A step without tokens declares what was dropped where no token follows that could, e.g. before a tail.
    if step.count < 1 and (step.HasField("recall") or not (step.gap_tokens or step.block_gaps)):
        raise InvalidRequest("expected count of at least 1, or gaps and no recall, got 0")
    if len(step.ids) not in (0, 4 * step.count):
        raise InvalidRequest(
            f"expected ids of 0 or {4 * step.count} bytes for {step.count} tokens, got {len(step.ids)}"
        )
    if needs_ids and len(step.ids) != 4 * step.count:
        raise InvalidRequest(
            f"expected ids with each step, as the session's policy needs them, got none of {step.count}"
        )
    if step.first_position + step.count > limits.tokens_max:
        end = step.first_position + step.count
        raise LimitExceeded(f"expected at most {limits.tokens_max} tokens a session, got a step that ends at {end}")
    if step.HasField("recall"):
        _check_recall(step.recall)
    return TokenStep(
        first_position=step.first_position,
        count=step.count,
        gap_tokens=step.gap_tokens,
        ids=np.frombuffer(step.ids, dtype="<u4"),
        signals=_signals(step, signals),
        block_gaps=_block_gaps(step, limits),
        tensors=step.embeddings,
        embeddings=_embeddings(step, spec),
        text=_text(step, keep_text=spec.keep_text),
    )


def decode_embeddings(tensors: Mapping[str, types_pb2.Tensor]) -> dict[str, Float32Array]:
    """Tensors that were checked once, as float32."""
    return {name: codec.as_float32(tensor) for name, tensor in tensors.items()}


def _text(step: memory_pb2.Step, *, keep_text: bool) -> TokenText | None:
    if not step.text and not step.text_sizes:
        return None
    if not keep_text:
        raise InvalidRequest(
            f"expected no text in a session that was made without keep_text, got {len(step.text)} bytes"
        )
    if len(step.text_sizes) != 4 * step.count or len(step.ids) != 4 * step.count:
        raise InvalidRequest(
            f"expected ids and text_sizes of {4 * step.count} bytes for {step.count} tokens with text, "
            f"got {len(step.ids)} and {len(step.text_sizes)}"
        )
    sizes = np.frombuffer(step.text_sizes, dtype="<u4")
    if (total := int(sizes.sum(dtype=np.int64))) != len(step.text):
        raise InvalidRequest(f"expected text of {total} bytes, as text_sizes say, got {len(step.text)}")
    return TokenText(step.text, sizes)


def _embeddings(step: memory_pb2.Step, spec: types_pb2.SessionSpec) -> dict[str, Float32Array]:
    dims = {stream.name: stream.dims for stream in spec.fingerprint.streams}
    if set(step.embeddings) != set(dims):
        raise InvalidRequest(f"expected embeddings of streams {sorted(dims)}, got {sorted(step.embeddings)}")
    rows = {name: _floats(f"embeddings[{name!r}]", step.embeddings[name], [step.count, dims[name]]) for name in dims}
    for name, own in rows.items():
        # Nothing resembles a zero vector: it means that something went wrong where it was made.
        if len(zero := np.flatnonzero(~own.any(axis=1))):
            place = f"embeddings[{name!r}]"
            raise EmbeddingInvalid(f"expected {place} of a length above 0, got 0 at {zero[:1].tolist()}", reason=_ZERO)
    return rows


def _signals(step: memory_pb2.Step, needed: tuple[str, ...]) -> dict[str, Float32Array]:
    if len(step.signals) > SIGNALS_MAX:
        raise LimitExceeded(f"expected at most {SIGNALS_MAX} signals a step, got {len(step.signals)}")
    for name in step.signals:
        if not _SIGNAL_NAME.fullmatch(name):
            raise InvalidRequest(f"expected a signal's name of 1 to 64 of [A-Za-z0-9._-], got {name[:80]!r}")
    for name in needed:
        if name not in step.signals:
            raise InvalidRequest(f"expected signal {name!r} with each step, got {sorted(step.signals) or 'none'}")
    return {name: _floats(f"signals[{name!r}]", tensor, [step.count]) for name, tensor in step.signals.items()}


def _floats(place: str, tensor: types_pb2.Tensor, shape: list[int]) -> Float32Array:
    """A float tensor of this shape, finite, as float32."""
    if list(tensor.shape) != shape:
        got = list(tensor.shape)
        raise EmbeddingInvalid(f"expected {place} of shape {shape}, got {got}", reason="EMBEDDING_WRONG_DIMENSION")
    if tensor.dtype not in FLOAT_TYPES:
        raise EmbeddingInvalid(f"expected {place} of a float type, got {tensor.dtype}", reason="EMBEDDING_WRONG_DTYPE")
    try:
        values = codec.as_float32(tensor)
    except ValueError as error:
        raise EmbeddingInvalid(f"{place}: {error}", reason="EMBEDDING_WRONG_DIMENSION") from error
    if not np.isfinite(values).all():
        at = np.argwhere(~np.isfinite(values))[0]
        raise EmbeddingInvalid(f"expected finite {place}, got {values[tuple(at)]} at {at.tolist()}")
    return values


def _block_gaps(step: memory_pb2.Step, limits: SessionLimits) -> tuple[range, ...]:
    if len(step.block_gaps) > BLOCK_GAPS_MAX:
        raise LimitExceeded(f"expected at most {BLOCK_GAPS_MAX} block_gaps a step, got {len(step.block_gaps)}")
    gaps = tuple(range(gap.first, gap.first + gap.count) for gap in step.block_gaps)
    end = (step.first_position + step.count + limits.put_ahead_tokens_max) // BLOCK_TOKENS
    for gap in gaps:
        if gap.stop > end:
            raise InvalidRequest(f"expected block_gaps below block {end}, got blocks {gap.start} to {gap.stop - 1}")
    return gaps


def _check_recall(ask: memory_pb2.RecallRequest) -> None:
    if not 1 <= ask.budget_blocks <= BUDGET_BLOCKS_MAX:
        raise InvalidRequest(f"expected recall.budget_blocks of 1 to {BUDGET_BLOCKS_MAX}, got {ask.budget_blocks}")
    if not 1 <= ask.top_blocks <= BUDGET_BLOCKS_MAX:
        raise InvalidRequest(f"expected recall.top_blocks of 1 to {BUDGET_BLOCKS_MAX}, got {ask.top_blocks}")
    if ask.neighbours > NEIGHBOURS_MAX:
        raise InvalidRequest(f"expected recall.neighbours of at most {NEIGHBOURS_MAX}, got {ask.neighbours}")
    if ask.blocks_through > _INTEGER_MAX:
        raise InvalidRequest(f"expected recall.blocks_through of at most {_INTEGER_MAX}, got {ask.blocks_through}")
    if ask.HasField("hops"):
        _check_hops(ask.hops, ask.top_blocks)


def _check_hops(hops: memory_pb2.HopRequest, top_blocks: int) -> None:
    if not 1 <= hops.hops <= HOPS_MAX:
        raise InvalidRequest(f"expected recall.hops.hops of 1 to {HOPS_MAX}, got {hops.hops}")
    if not 1 <= hops.blocks <= top_blocks:
        raise InvalidRequest(f"expected recall.hops.blocks of 1 to top_blocks, {top_blocks}, got {hops.blocks}")
    if hops.half_life_tokens > _INTEGER_MAX:
        raise InvalidRequest(
            f"expected recall.hops.half_life_tokens of at most {_INTEGER_MAX}, got {hops.half_life_tokens}"
        )
