"""Names, specs and fingerprints within bounds."""

from collections.abc import Callable

import pytest

from memsvc.errors import FingerprintMismatch, InvalidRequest, LimitExceeded
from memsvc.session.spec import check_id, check_name, check_spec, require_same_fingerprint
from protos.memsvc.v1 import types_pb2
from tests.session_driver import LIMITS, session_spec


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-1", "x" * 128, "acme/a", f"{'t' * 64}/{'x' * 128}"])
def test_good_names_pass_the_check(name: str) -> None:
    """Proves that all characters and both lengths at the limit are taken, with a tenant before them too."""
    check_name(name)
    check_id("worker", name)


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "/", "/a", "a/", "a/b/c", "a//b", "../a", f"{'t' * 65}/a", "ä", "a\n", "x" * 129]
)
def test_bad_names_are_refused(name: str) -> None:
    """Proves that what could leave the folder or break a line is no name."""
    with pytest.raises(InvalidRequest):
        check_name(name)


def _changed(change: Callable[[types_pb2.SessionSpec], object]) -> types_pb2.SessionSpec:
    spec = session_spec()
    change(spec)
    return spec


def _set(path: str, value: object) -> Callable[[types_pb2.SessionSpec], object]:
    *parts, last = path.split(".")

    def change(spec: types_pb2.SessionSpec) -> None:
        record: object = spec
        for part in parts:
            record = getattr(record, part)
        setattr(record, last, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("fingerprint.sink_tokens", 65), "sink_tokens"),
        (_set("fingerprint.window_tokens", 0), "window_tokens"),
        (_set("fingerprint.window_tokens", 100), "window_tokens"),
        (_set("fingerprint.dtype", types_pb2.ELEMENT_TYPE_UINT32), "dtype"),
        (_set("fingerprint.block_bytes", 0), "block_bytes"),
        (_set("fingerprint.model", "x" * 257), "model"),
        (lambda spec: spec.fingerprint.memory_layers.append(1), "memory_layers"),
        (lambda spec: spec.fingerprint.ClearField("streams"), "streams"),
        (lambda spec: spec.fingerprint.streams.append(spec.fingerprint.streams[0]), "streams"),
        (lambda spec: setattr(spec.fingerprint.streams[1], "dims", 0), r"streams\[1\].dims"),
        (lambda spec: setattr(spec.fingerprint.streams[0], "weight", float("nan")), r"streams\[0\].weight"),
        (lambda spec: setattr(spec.fingerprint.streams[0], "name", "a b"), r"streams\[0\].name"),
        (_set("policy.coverage", 0), "policy.coverage"),
        (_set("policy.kind", 0), "policy.kind"),
        (_set("policy.kind", 77), "policy.kind"),
        (_set("policy.compared_bookmarks", 65_537), "policy.compared_bookmarks"),
        (_set("search.metric", 9), "search.metric"),
        (_set("search.finder", 0), "search.finder"),
        (_set("search.trail_decay", 1.0), "search.trail_decay"),
        (_set("search.trail_blocks", 0), "search.trail_blocks"),
        (_set("search.trail_tokens", 4097), "search.trail_tokens"),
        (_set("search.links_max", 65), "search.links_max"),
        (_set("search.centring_tokens", 0), "search.centring_tokens"),
        (_set("search.link_similarity_min", 1.5), "search.link_similarity_min"),
        (_set("search.link_search", 3), "search.link_search to be FINDER or WALK, got 3"),
        (_set("search.index_every_tokens", 65_537), "search.index_every_tokens to be 0 to 65536, got 65537"),
    ],
)
def test_a_spec_out_of_range_is_refused_by_name(change: Callable[[types_pb2.SessionSpec], object], said: str) -> None:
    """Proves that each field is checked and that the message names it."""
    with pytest.raises(InvalidRequest, match=said):
        check_spec(_changed(change), LIMITS)


@pytest.mark.parametrize("coverage", [float("inf"), float("nan"), -0.1, 1.5])
def test_a_coverage_is_a_share_whatever_the_policy(coverage: float) -> None:
    """Proves that one that is none is refused of a policy that keeps to none, too: other parts reckon with it."""
    spec = session_spec("every")
    spec.policy.coverage = coverage
    with pytest.raises(InvalidRequest, match=r"policy.coverage to be in \[0, 1\]"):
        check_spec(spec, LIMITS)


def test_a_spec_at_the_limits_passes() -> None:
    """Proves that the limits that are settings hold to the unit."""
    spec = session_spec()
    spec.fingerprint.block_bytes = LIMITS.block_bytes_max
    spec.fingerprint.streams[0].dims = LIMITS.stream_dims_max
    check_spec(spec, LIMITS)
    spec.fingerprint.block_bytes += 1
    with pytest.raises(LimitExceeded, match="block_bytes"):
        check_spec(spec, LIMITS)
    spec.fingerprint.block_bytes -= 1
    spec.fingerprint.streams[0].dims += 1
    with pytest.raises(LimitExceeded, match="dims"):
        check_spec(spec, LIMITS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("fingerprint.model", "zz"), "expected model 'aaa.*got 'zz'"),
        (_set("fingerprint.window_tokens", 128), "expected window_tokens 64, .*got 128"),
        (lambda spec: spec.fingerprint.memory_layers.append(9), r"expected memory_layers \[1, 2\], .*got \[1, 2, 9\]"),
        (lambda spec: setattr(spec.fingerprint.streams[1], "dims", 7), r"expected streams\[1\].dims 13, .*got 7"),
        (lambda spec: spec.fingerprint.streams.pop(), "expected streams of 2, .*got of 1"),
        (_set("fingerprint.recall_while_reading", True), "expected recall_while_reading False, .*got True"),
    ],
)
def test_the_first_field_that_differs_is_named(change: Callable[[types_pb2.SessionSpec], object], said: str) -> None:
    """Proves that a fingerprint is compared field by field, into lists and streams."""
    require_same_fingerprint(session_spec().fingerprint, session_spec().fingerprint)
    with pytest.raises(FingerprintMismatch, match=said):
        require_same_fingerprint(session_spec().fingerprint, _changed(change).fingerprint)
