"""Bad policies, metrics, coverages and vectors over the wire: each is refused by a typed error that names the field."""

from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

from protos import codec
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.integration.server_process import DIMS, TIMEOUT_S, Stubs, Worker, connected, reason_of, served, spec, step

Weights = tuple[tuple[int, float], ...]

KINDS = types_pb2.PolicyKind
NAN, INF = float("nan"), float("inf")
JUST_BELOW = 0.019
HELD = [
    types_pb2.POLICY_KIND_RELEVANCE,
    types_pb2.POLICY_KIND_NOVELTY,
    types_pb2.POLICY_KIND_DISTANCE,
    types_pb2.POLICY_KIND_TOPIC_SHIFT,
    types_pb2.POLICY_KIND_RARITY,
    types_pb2.POLICY_KIND_ATTENTION,
    types_pb2.POLICY_KIND_HYBRID,
]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with served(tmp_path_factory.mktemp("node")) as server, connected(server.address) as stubs:
        yield stubs


def _policy(kind: int, coverage: float = 0.1, weights: Weights = ()) -> types_pb2.PolicySpec:
    spec = types_pb2.PolicySpec(coverage=coverage)
    # Any number travels: the stubs' types name the known ones only.
    spec.kind = kind  # type: ignore[assignment]
    for part, weight in weights:
        added = spec.weights.add(weight=weight)
        added.kind = part  # type: ignore[assignment]
    return spec


def _hybrid(*weights: tuple[int, float]) -> types_pb2.PolicySpec:
    return _policy(types_pb2.POLICY_KIND_HYBRID, weights=weights)


SURPRISAL, EVERY = types_pb2.POLICY_KIND_SURPRISAL, types_pb2.POLICY_KIND_EVERY
# A policy, and what the message says of field, range and value.
POLICIES: list[tuple[types_pb2.PolicySpec, list[str]]] = [
    (_policy(0), ["policy.kind", "SURPRISAL", "ATTENTION", "got UNSPECIFIED"]),
    (_policy(77), ["policy.kind", "SURPRISAL", "ATTENTION", "got 77"]),
    (_policy(types_pb2.POLICY_KIND_FIXED), ["policy.every_tokens", "at least 1", "got 0"]),
    *((_policy(SURPRISAL, bad), ["policy.coverage", "[0.02, 1]", f"got {bad}"]) for bad in (-0.5, 1.5, -INF)),
    *(
        (_policy(kind, bad), ["policy.coverage", "[0.02, 1]", f"got {bad}"])
        for kind in HELD
        for bad in (0.0, JUST_BELOW, 1.001, NAN, INF)
    ),
    (types_pb2.PolicySpec(kind=EVERY, compared_bookmarks=65_537), ["policy.compared_bookmarks", "65536", "got 65537"]),
    (_hybrid(), ["policy.weights", "1 to 7", "got none"]),
    (_hybrid((SURPRISAL, 1.0), (SURPRISAL, 2.0)), ["policy.weights", "differ", "got SURPRISAL, SURPRISAL"]),
    *(
        (_hybrid((SURPRISAL, bad)), ["policy.weights[0].weight", "above 0", f"got {bad}"])
        for bad in (0.0, -1.0, NAN, INF)
    ),
    *(
        (_hybrid((SURPRISAL, 1.0), (bad, 1.0)), ["policy.weights[1].kind", "SURPRISAL", "ATTENTION", f"got {word}"])
        for bad, word in ((EVERY, "EVERY"), (types_pb2.POLICY_KIND_HYBRID, "HYBRID"), (0, "UNSPECIFIED"), (77, "77"))
    ),
]


def _create(stubs: Stubs, name: str, policy: types_pb2.PolicySpec | None = None, metric: int = 0) -> None:
    own = spec()
    own.search.metric = metric  # type: ignore[assignment]
    if policy is not None:
        own.policy.CopyFrom(policy)
    stubs.sessions.CreateSession(session_pb2.CreateSessionRequest(name=name, spec=own), timeout=TIMEOUT_S)


def _refused(stubs: Stubs, call: Callable[[], None], name: str, says: list[str]) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert (raised.value.code(), reason_of(raised.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    details = raised.value.details() or ""
    assert "\n" not in details
    assert all(part in details for part in ("expected", *says)), details
    with pytest.raises(grpc.RpcError) as missing:
        stubs.sessions.GetSession(session_pb2.GetSessionRequest(name=name), timeout=TIMEOUT_S)
    assert reason_of(missing.value) == "SESSION_NOT_FOUND"


@pytest.mark.parametrize(("policy", "says"), POLICIES, ids=[f"{at}-{row[1][0]}" for at, row in enumerate(POLICIES)])
def test_a_bad_policy_is_refused_by_field_range_and_value(
    stubs: Stubs, policy: types_pb2.PolicySpec, says: list[str]
) -> None:
    """Proves the error of each, and that no session is left behind."""
    _refused(stubs, lambda: _create(stubs, "bad-policy", policy), "bad-policy", says)


@pytest.mark.parametrize("metric", [4, 99, -1])
def test_an_unknown_metric_is_refused_by_field_range_and_value(stubs: Stubs, metric: int) -> None:
    """Proves that numbers that no metric has are not taken for one."""
    says = ["search.metric", "COSINE, DOT, PEARSON", f"got {metric}"]
    _refused(stubs, lambda: _create(stubs, "bad-metric", metric=metric), "bad-metric", says)


@pytest.mark.parametrize("finder", [0, 77, -1])
def test_an_unknown_finder_is_refused_by_field_range_and_value(stubs: Stubs, finder: int) -> None:
    """Proves that a session is not made with a way to search that there is not."""

    def create() -> None:
        own = spec()
        own.search.finder = finder  # type: ignore[assignment]
        request = session_pb2.CreateSessionRequest(name="bad-finder", spec=own)
        stubs.sessions.CreateSession(request, timeout=TIMEOUT_S)

    _refused(stubs, create, "bad-finder", ["search.finder", "FLAT", "DICTIONARY", f"got {finder}"])


@pytest.mark.parametrize("coverage", [0.02, 1.0])
@pytest.mark.parametrize("kind", HELD, ids=[KINDS.Name(kind) for kind in HELD])
def test_the_ends_of_the_range_are_taken(stubs: Stubs, kind: int, coverage: float) -> None:
    """Proves that 2 % and 100 % are served although float32 has neither exactly nor both."""
    weights = ((SURPRISAL, 1.0),) if kind == types_pb2.POLICY_KIND_HYBRID else ()
    _create(stubs, f"end-{kind}-{coverage}", _policy(kind, coverage, weights))


def _rows(value: float, at: int = 3, dims: int = DIMS, count: int = 64) -> types_pb2.Tensor:
    rows = np.ones((count, dims), np.float32)
    rows[at] = value
    return codec.encode(rows)


def _signal(value: float, count: int = 64) -> types_pb2.Tensor:
    values = np.ones(count, np.float32)
    values[5] = value
    return codec.encode(values)


GOOD = {"surprisal": _signal(1.0), "attention_mass": _signal(1.0)}
BOTH = _hybrid((SURPRISAL, 1.0), (types_pb2.POLICY_KIND_ATTENTION, 1.0), (types_pb2.POLICY_KIND_RARITY, 1.0))
NOT_FINITE, ZERO = "EMBEDDING_NOT_FINITE", "EMBEDDING_ZERO"
DIMENSION, DTYPE = "EMBEDDING_WRONG_DIMENSION", "EMBEDDING_WRONG_DTYPE"
# What is changed of a good step, the reason of its fault, and what the message says.
STEPS: dict[str, tuple[dict[str, object], str, list[str]]] = {
    "NaN": ({"embeddings": {"probe": _rows(NAN)}}, NOT_FINITE, ["embeddings['probe']", "finite", "nan at [3, 0]"]),
    "infinite": ({"embeddings": {"probe": _rows(INF)}}, NOT_FINITE, ["embeddings['probe']", "finite", "inf at [3, 0]"]),
    "zero": ({"embeddings": {"probe": _rows(0.0)}}, ZERO, ["embeddings['probe']", "above 0", "got 0 at [3]"]),
    "dimension": ({"embeddings": {"probe": _rows(1.0, dims=9)}}, DIMENSION, ["[64, 8]", "got [64, 9]"]),
    "count": ({"embeddings": {"probe": _rows(1.0, count=63)}}, DIMENSION, ["[64, 8]", "got [63, 8]"]),
    "type": ({"embeddings": {"probe": codec.encode(np.ones((64, DIMS), np.uint32))}}, DTYPE, ["float", "probe"]),
    "unknown stream": (
        {"embeddings": {"probe": _rows(1.0), "deep": _rows(1.0)}},
        "INVALID_REQUEST",
        ["streams ['probe']", "got ['deep', 'probe']"],
    ),
    "no stream": ({"embeddings": {}}, "INVALID_REQUEST", ["streams ['probe']", "got []"]),
    "signal NaN": (
        {"signals": {**GOOD, "surprisal": _signal(NAN)}},
        NOT_FINITE,
        ["signals['surprisal']", "finite", "nan at [5]"],
    ),
    "mass infinite": (
        {"signals": {**GOOD, "attention_mass": _signal(INF)}},
        NOT_FINITE,
        ["signals['attention_mass']", "finite", "inf at [5]"],
    ),
    "signal short": ({"signals": {**GOOD, "surprisal": _signal(1.0, 60)}}, DIMENSION, ["[64]", "got [60]"]),
    "signal missing": (
        {"signals": {"surprisal": _signal(1.0)}},
        "INVALID_REQUEST",
        ["signal 'attention_mass'", "got ['surprisal']"],
    ),
    "signals missing": ({"signals": {}}, "INVALID_REQUEST", ["signal 'surprisal'", "got none"]),
    "ids missing": ({"ids": b""}, "INVALID_REQUEST", ["ids with each step", "got none of 64"]),
}


@pytest.mark.parametrize("case", STEPS)
def test_a_bad_step_is_a_fault_by_field_range_and_value(stubs: Stubs, case: str) -> None:
    """Proves the fault of each, that it changes nothing, and that the right step is taken after it."""
    changed, reason, says = STEPS[case]
    name = f"step-{list(STEPS).index(case)}"
    _create(stubs, name, BOTH)
    worker = Worker(stubs, name)
    assert worker.receive().WhichOneof("message") == "welcome"
    epoch = worker.open(name, name).epoch

    worker.steps(step(name, epoch, 1, 0, 64, **{"signals": GOOD, **changed}))
    fault = worker.receive().fault
    assert fault.reason == reason
    assert "\n" not in fault.message
    assert all(part in fault.message for part in ("expected", *says)), fault.message
    worker.steps(step(name, epoch, 1, 0, signals=GOOD))
    assert worker.receive().ack.seq == 1
    info = stubs.sessions.GetSession(session_pb2.GetSessionRequest(name=name), timeout=TIMEOUT_S).session
    assert info.tokens == 64
    worker.leave()
