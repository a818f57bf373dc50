"""How bookmarks are made, as the model side names it: everything it accepts, the server accepts, and nothing else."""

import pytest

from attn_client.cli.arguments import parser, settings_of
from attn_client.errors import InvalidSettings
from attn_client.session_spec import session_spec
from attn_client.settings import METRICS, POLICIES, BookmarkSettings
from memsvc.policy import COVERAGE_MIN, make_policy
from memsvc.scoring import make_scorer
from protos.memsvc.v1 import types_pb2


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("coverage", [COVERAGE_MIN, 0.19, 1.0])
def test_every_policy_named_here_is_one_of_the_server(policy: str, coverage: float) -> None:
    """Proves that names and ranges agree on both sides, hybrid's weights included."""
    spec = session_spec(types_pb2.Fingerprint(), BookmarkSettings(policy=policy, coverage=coverage))
    assert types_pb2.PolicyKind.Name(spec.policy.kind) == f"POLICY_KIND_{policy.upper()}"
    make_policy(spec.policy)


def test_every_metric_named_here_is_one_of_the_server() -> None:
    """Proves that names agree, and that the default is the cosine."""
    for metric in METRICS:
        spec = session_spec(types_pb2.Fingerprint(), BookmarkSettings(metric=metric))
        assert types_pb2.Metric.Name(spec.search.metric) == f"METRIC_{metric.upper()}"
        make_scorer(spec.search.metric)
    assert BookmarkSettings().metric == "cosine"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy": "attention"}, r"bookmarks.policy: expected one of every, .*hybrid, got 'attention'"),
        ({"policy": ""}, "bookmarks.policy"),
        ({"metric": "euclid"}, "bookmarks.metric: expected one of cosine, dot, pearson, got 'euclid'"),
        ({"policy": "novelty", "coverage": 0.019}, "bookmarks.coverage: expected 0.02 to 1 with novelty, got 0.019"),
        ({"coverage": 1.01}, "bookmarks.coverage: expected above 0, at most 1, got 1.01"),
        ({"coverage": float("nan")}, "bookmarks.coverage"),
        ({"hybrid_weights": ()}, "bookmarks.hybrid_weights: expected weights above 0 of different ones of surprisal"),
        ({"hybrid_weights": (("novelty", 1.0), ("novelty", 1.0))}, "bookmarks.hybrid_weights"),
        ({"hybrid_weights": (("novelty", 0.0),)}, "bookmarks.hybrid_weights"),
        ({"hybrid_weights": (("novelty", float("inf")),)}, "bookmarks.hybrid_weights"),
        ({"hybrid_weights": (("every", 1.0),)}, "bookmarks.hybrid_weights"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    """Proves that the error says which field, what was expected and what came."""
    with pytest.raises(InvalidSettings, match=message):
        BookmarkSettings(**fields)  # type: ignore[arg-type]


def test_the_command_line_names_policy_metric_and_weights() -> None:
    """Proves that the flags reach the settings."""
    line = "ask --question Q --policy hybrid --coverage 0.3 --weights surprisal=2,rarity=0.5 --metric pearson"
    bookmarks = settings_of(parser().parse_args(line.split())).bookmarks
    assert (bookmarks.policy, bookmarks.coverage, bookmarks.metric) == ("hybrid", 0.3, "pearson")
    assert bookmarks.hybrid_weights == (("surprisal", 2.0), ("rarity", 0.5))


@pytest.mark.parametrize("weights", ["surprisal", "surprisal=x", "=", "a=1=2"])
def test_weights_of_another_form_are_refused_in_one_line(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that the exit code is 2 and the message says what form was expected."""
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["ask", "--question", "Q", "--weights", weights])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected NAME=NUMBER, comma-separated" in said
