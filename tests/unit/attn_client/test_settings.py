"""Ranges of the bookmark settings: those of the server, told before a session is asked for."""

import math

import pytest

from attn_client.errors import InvalidSettings
from attn_client.session_spec import session_spec
from attn_client.settings import BOOKMARK_COUNTS_MAX, BookmarkSettings, ProbeSettings, RecallSettings
from memsvc.errors import InvalidRequest
from memsvc.session.limits import SessionLimits
from memsvc.session.spec import check_spec
from protos.memsvc.v1 import types_pb2

FINGERPRINT = types_pb2.Fingerprint(
    dtype=types_pb2.ELEMENT_TYPE_FLOAT32,
    sink_tokens=64,
    window_tokens=64,
    block_bytes=64,
    streams=[types_pb2.StreamSpec(name="probe", dims=8)],
)
LIMITS = SessionLimits(
    sessions_max=1, step_tokens_max=1, recalls_remembered=1, block_bytes_max=1 << 20, stream_dims_max=8
)

# Field, lowest and highest value that is taken, the next ones that are not, and what is expected.
RANGES = [
    *((name, 1, most, [0, -1, most + 1], f"1 to {most}") for name, most in BOOKMARK_COUNTS_MAX.items()),
    ("trail_decay", 2.0**-20, 1 - 2.0**-20, [0.0, 1.0, -0.5, math.nan, math.inf], "above 0, below 1"),
    ("link_similarity_min", -1.0, 1.0, [-1.001, 1.001, math.nan, math.inf], "-1 to 1"),
]


def _settings(name: str, value: float) -> BookmarkSettings:
    # `fixed` is the policy that takes every_tokens.
    return BookmarkSettings(policy="fixed", **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "low", "high", "out", "expected"), RANGES)
def test_a_bookmark_setting_past_its_range_is_refused_by_name(
    name: str, low: float, high: float, out: list[float], expected: str
) -> None:
    """Proves that both ends are taken, and that past them the error says field, range and value."""
    _settings(name, low)
    _settings(name, high)
    for value in out:
        with pytest.raises(InvalidSettings) as refused:
            _settings(name, value)
        assert str(refused.value) == f"bookmarks.{name}: expected {expected}, got {value!r}"


# The same of settings of a recall, beside one of them that matters.
HOP_RANGES = [
    ("hops", 0, 16, [-1, 17], "0 to 16"),
    ("hop_blocks", 1, 8, [0, 9], "1 to 8"),
    ("link_half_life_tokens", 0, 2**40, [-1, 2**40 + 1], f"0 to {2**40}"),
]


@pytest.mark.parametrize(("name", "low", "high", "out", "expected"), HOP_RANGES)
def test_a_setting_about_links_past_its_range_is_refused_by_name(
    name: str, low: int, high: int, out: list[int], expected: str
) -> None:
    """Proves that both ends are taken with 8 best blocks and hops, and what the error says past them."""
    for value in (low, high):
        RecallSettings(**{"hops": 1, name: value})
    for value in out:
        with pytest.raises(InvalidSettings) as refused:
            RecallSettings(**{"hops": 1, name: value})
        assert str(refused.value) == f"recall.{name}: expected {expected}, got {value!r}"


def test_few_best_blocks_need_no_setting_about_links_without_hops() -> None:
    """Proves that the default number of blocks along links refuses nobody who follows none."""
    assert RecallSettings(top_blocks=1).hop_blocks > 1
    with pytest.raises(InvalidSettings, match=r"recall.hop_blocks: expected 1 to 1, got 4"):
        RecallSettings(top_blocks=1, hops=1)


def test_attention_mass_is_taken_at_two_fifths_of_the_depth_or_where_it_is_said() -> None:
    """Proves the default for the demo's model, tiny ones and one of a single layer, and the layer that is chosen."""
    assert [ProbeSettings().mass_layer_of(layers) for layers in (30, 4, 1)] == [12, 1, 0]
    assert ProbeSettings(mass_layer=7).mass_layer_of(30) == 7
    with pytest.raises(InvalidSettings, match=r"probe.mass_layer: expected 0 or more, got -1"):
        ProbeSettings(mass_layer=-1)


@pytest.mark.parametrize(("name", "low", "high"), [row[:3] for row in RANGES])
def test_the_server_takes_what_is_taken_here(name: str, low: float, high: float) -> None:
    """Proves that no value passes here that a session would then be refused for."""
    for value in (low, high):
        check_spec(session_spec(FINGERPRINT, _settings(name, value)), LIMITS)


@pytest.mark.parametrize("name", [name for name in BOOKMARK_COUNTS_MAX if name != "every_tokens"])
def test_the_server_refuses_what_is_refused_here(name: str) -> None:
    """Proves that the highest values are the server's own and no lower ones."""
    spec = session_spec(FINGERPRINT, BookmarkSettings())
    setattr(spec.search, name, BOOKMARK_COUNTS_MAX[name] + 1)
    with pytest.raises(InvalidRequest, match=name):
        check_spec(spec, LIMITS)
