"""How bookmarks are made, as the model side names it: everything it accepts, the server accepts, and nothing else."""

from typing import Any

import pytest

from attn_client.cli.arguments import parser, settings_of
from attn_client.errors import InvalidSettings
from attn_client.session_spec import session_spec
from attn_client.settings import FINDERS, METRICS, POLICIES, BookmarkSettings
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
        ({"policy": "best"}, r"bookmarks.policy: expected one of every, .*attention, .*hybrid, got 'best'"),
        ({"policy": ""}, "bookmarks.policy"),
        ({"metric": "euclid"}, "bookmarks.metric: expected one of cosine, dot, pearson, got 'euclid'"),
        ({"policy": "novelty", "coverage": 0.019}, "bookmarks.coverage: expected 0.02 to 1, got 0.019"),
        ({"coverage": 1.01}, "bookmarks.coverage: expected 0.02 to 1, got 1.01"),
        ({"coverage": float("nan")}, "bookmarks.coverage"),
        ({"hybrid_weights": ()}, "bookmarks.hybrid_weights: expected weights above 0 of different ones of surprisal"),
        ({"hybrid_weights": (("novelty", 1.0), ("novelty", 1.0))}, "bookmarks.hybrid_weights"),
        ({"hybrid_weights": (("novelty", 0.0),)}, "bookmarks.hybrid_weights"),
        ({"hybrid_weights": (("novelty", float("inf")),)}, "bookmarks.hybrid_weights"),
        ({"hybrid_weights": (("every", 1.0),)}, "bookmarks.hybrid_weights"),
        ({"policy": "attention", "coverage": 0.01}, "bookmarks.coverage: expected 0.02 to 1, got 0.01"),
        ({"finder": "gpu"}, r"bookmarks.finder: expected one of flat, .*auto, faiss_gpu, got 'gpu'"),
        ({"link_search": "chain"}, "bookmarks.link_search: expected one of finder, walk, got 'chain'"),
        ({"index_every_tokens": 65537}, r"bookmarks.index_every_tokens: expected 0 .* to 65536, got 65537"),
        ({"index_every_tokens": -1}, "bookmarks.index_every_tokens"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    """Proves that the error says which field, what was expected and what came."""
    with pytest.raises(InvalidSettings, match=message):
        BookmarkSettings(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("finder", FINDERS)
def test_every_finder_named_here_is_one_of_the_protocol(finder: Any) -> None:
    """Proves that names agree, whatever a server has installed."""
    spec = session_spec(types_pb2.Fingerprint(), BookmarkSettings(finder=finder))
    assert types_pb2.FinderKind.Name(spec.search.finder) == f"FINDER_KIND_{finder.upper()}"


def test_defaults_that_came_later_travel_as_absent() -> None:
    """Proves that a session made before there was a link search or an index interval still opens by default."""
    search = session_spec(types_pb2.Fingerprint(), BookmarkSettings()).search
    assert search.link_search == types_pb2.LINK_SEARCH_UNSPECIFIED
    assert search.index_every_tokens == 0
    chosen = session_spec(types_pb2.Fingerprint(), BookmarkSettings(link_search="walk", index_every_tokens=256)).search
    assert (chosen.link_search, chosen.index_every_tokens) == (types_pb2.LINK_SEARCH_WALK, 256)


def test_the_command_line_names_links_and_index() -> None:
    """Proves that the flags about links, hops and the index reach the settings."""
    line = "ask --question Q --finder auto --link-search walk --index-every 16 --hops 2 --hop-blocks 3"
    settings = settings_of(parser().parse_args([*line.split(), "--link-half-life", "4096"]))
    assert (settings.bookmarks.finder, settings.bookmarks.link_search) == ("auto", "walk")
    assert settings.bookmarks.index_every_tokens == 16
    recall = settings.recall
    assert (recall.hops, recall.hop_blocks, recall.link_half_life_tokens) == (2, 3, 4096)


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
