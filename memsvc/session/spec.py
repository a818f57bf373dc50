"""What a session is made with: names and specs within bounds, and fingerprints that agree.

Invariant: a spec that passes can be worked with: every other part of the session takes its values as they are.
"""

import math
import re

from google.protobuf.message import Message

from memsvc.errors import FingerprintMismatch, InvalidRequest, LimitExceeded
from memsvc.geometry import BLOCK_TOKENS
from memsvc.policy import make_policy
from memsvc.scoring import make_scorer
from memsvc.session.limits import SessionLimits
from memsvc.session.steps import FLOAT_TYPES
from memsvc.shards.choice import sealed_kind
from protos.memsvc.v1 import types_pb2

# Limits of a spec that are no settings: past them its values make no sense.
STREAMS_MAX = 16
LAYERS_MAX = 4096
WINDOW_TOKENS_MAX = 1 << 24
TRAIL_BLOCKS_MAX = 4096
TRAIL_TOKENS_MAX = 4096
LINKS_MAX = 64
CENTRING_TOKENS_MAX = 1 << 16
INDEX_TOKENS_MAX = 1 << 16
TEXT_BYTES_MAX = 256

LINK_SEARCHES = (
    types_pb2.LINK_SEARCH_UNSPECIFIED,
    types_pb2.LINK_SEARCH_FINDER,
    types_pb2.LINK_SEARCH_WALK,
)

# With the tenant before it, if it has one.
_SESSION_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STREAM_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"(?:[A-Za-z0-9._-]{1,64}/){0,2}[A-Za-z0-9._-]{1,128}")


def check_name(name: str) -> None:
    """Raises InvalidRequest for what is no session's name."""
    if not _SESSION_NAME.fullmatch(name):
        raise InvalidRequest(
            "expected a session's name of 1 to 128 characters of [A-Za-z0-9._-] that starts with a letter or digit, "
            f"got {name[:160]!r}"
        )


def check_id(field: str, value: str) -> None:
    """Raises InvalidRequest for what names no worker or attachment."""
    if not _ID.fullmatch(value):
        raise InvalidRequest(f"expected {field} of 1 to 128 characters of [A-Za-z0-9._-], got {value[:160]!r}")


def check_spec(spec: types_pb2.SessionSpec, limits: SessionLimits) -> None:
    """Raises InvalidRequest for the first field out of range, LimitExceeded for one past a setting."""
    mark = spec.fingerprint
    for name in ("model", "tokenizer", "rope"):
        _require(len(getattr(mark, name).encode()) <= TEXT_BYTES_MAX, name, f"at most {TEXT_BYTES_MAX} bytes", "more")
    layers = list(mark.memory_layers)
    ascending = len(layers) <= LAYERS_MAX and layers == sorted(set(layers))
    _require(ascending, "memory_layers", f"at most {LAYERS_MAX} layers, ascending", layers[:8])
    _require(mark.dtype in FLOAT_TYPES, "dtype", "FLOAT32, FLOAT16 or BFLOAT16", mark.dtype)
    whole = mark.sink_tokens % BLOCK_TOKENS == 0 and mark.sink_tokens <= WINDOW_TOKENS_MAX
    _require(whole, "sink_tokens", f"a multiple of {BLOCK_TOKENS} up to {WINDOW_TOKENS_MAX}", mark.sink_tokens)
    # A block must have its bookmarks before any token may vote for it: decisions lag by less than a block.
    whole = mark.window_tokens % BLOCK_TOKENS == 0 and BLOCK_TOKENS <= mark.window_tokens <= WINDOW_TOKENS_MAX
    expected = f"a multiple of {BLOCK_TOKENS} from {BLOCK_TOKENS} to {WINDOW_TOKENS_MAX}"
    _require(whole, "window_tokens", expected, mark.window_tokens)
    _require(mark.block_bytes >= 1, "block_bytes", "at least 1", mark.block_bytes)
    if mark.block_bytes > limits.block_bytes_max:
        raise LimitExceeded(f"expected block_bytes of at most {limits.block_bytes_max}, got {mark.block_bytes}")
    _check_streams(mark, limits)
    make_policy(spec.policy)
    # Of policies that have none, too: what a finder takes in together is reckoned with it.
    _require(0 <= spec.policy.coverage <= 1, "policy.coverage", "in [0, 1]", spec.policy.coverage)
    _check_search(spec.search)


def require_same_fingerprint(session: types_pb2.Fingerprint, caller: types_pb2.Fingerprint) -> None:
    """Raises FingerprintMismatch that names the first field, in order of number, in which the two differ."""
    if difference := first_difference(session, caller):
        name, ours, theirs = difference
        raise FingerprintMismatch(f"expected {name} {ours}, as the session was made with, got {theirs}")


def first_difference(ours: Message, theirs: Message) -> tuple[str, str, str] | None:
    """Name of the first field that differs between two messages of one type, and its two values, as text."""
    for field in ours.DESCRIPTOR.fields:
        own, other = getattr(ours, field.name), getattr(theirs, field.name)
        if own == other:
            continue
        if not field.is_repeated:
            return field.name, repr(own), repr(other)
        if field.message_type is None or len(own) != len(other):
            return field.name, *(_listed(values) for values in (own, other))  # type: ignore[return-value]
        at = next(place for place in range(len(own)) if own[place] != other[place])
        inner = first_difference(own[at], other[at])
        assert inner is not None
        return f"{field.name}[{at}].{inner[0]}", inner[1], inner[2]
    return None


def _listed(values: list[object]) -> str:
    if values and isinstance(values[0], Message):
        return f"of {len(values)}"
    text = str(list(values))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_streams(mark: types_pb2.Fingerprint, limits: SessionLimits) -> None:
    streams = mark.streams
    _require(1 <= len(streams) <= STREAMS_MAX, "streams", f"1 to {STREAMS_MAX}", len(streams))
    names = [stream.name for stream in streams]
    _require(len(set(names)) == len(names), "streams", "names that differ", names)
    for at, stream in enumerate(streams):
        place = f"streams[{at}]"
        _require(bool(_STREAM_NAME.fullmatch(stream.name)), f"{place}.name", "1 to 64 of [A-Za-z0-9._-]", stream.name)
        _require(stream.dims >= 1, f"{place}.dims", "at least 1", stream.dims)
        if stream.dims > limits.stream_dims_max:
            raise LimitExceeded(f"expected {place}.dims of at most {limits.stream_dims_max}, got {stream.dims}")
        positive = math.isfinite(stream.weight) and stream.weight >= 0
        _require(positive, f"{place}.weight", "0 (for 1) or more, finite", stream.weight)


def _check_search(search: types_pb2.SearchSpec) -> None:
    sealed_kind(search.finder)
    make_scorer(search.metric)
    _require(0 < search.trail_decay < 1, "search.trail_decay", "in (0, 1)", search.trail_decay)
    for name, high in (
        ("trail_blocks", TRAIL_BLOCKS_MAX),
        ("trail_tokens", TRAIL_TOKENS_MAX),
        ("links_max", LINKS_MAX),
        ("centring_tokens", CENTRING_TOKENS_MAX),
    ):
        value = getattr(search, name)
        _require(1 <= value <= high, f"search.{name}", f"1 to {high}", value)
    every = search.index_every_tokens
    _require(every <= INDEX_TOKENS_MAX, "search.index_every_tokens", f"0 to {INDEX_TOKENS_MAX}", every)
    _require(search.link_search in LINK_SEARCHES, "search.link_search", "FINDER or WALK", search.link_search)
    least = search.link_similarity_min
    _require(-1 <= least <= 1, "search.link_similarity_min", "in [-1, 1]", least)


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise InvalidRequest(f"expected {name} to be {expected}, got {came}")
