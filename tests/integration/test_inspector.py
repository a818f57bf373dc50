"""The inspector over HTTP: what it serves, to whom, and what it refuses. A real server, and sessions of real steps."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from memsvc.inspector.shapes import NODES_MAX
from protos.memsvc.v1 import session_pb2
from tests.e2e.inspector_book import Book, Reading, book_spec, grow, watched
from tests.integration.inspector_site import Answer, InspectedNode, ask, inspected
from tests.integration.server_process import TIMEOUT_S, Stubs, connected, served

VIEWS = ("timeline", "graph", "why", "live", "search?q=%2312", "bookmarks/5")
# Longer than any name, and of all that a name may not have.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnorw",
    "a\0b",
    "x" * 5000,
    "../../etc",
)


@dataclass(frozen=True)
class Site:
    """A server with its inspector, and what a worker sees of it."""

    address: str
    stubs: Stubs

    def get(self, path: str, **headers: str) -> Answer:
        """The answer to a GET."""
        return ask(self.address, path, headers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server in whose session `book` 2,560 tokens were read, with recalls on the way."""
    with watched(tmp_path_factory.mktemp("node")) as (server, http), connected(server.address) as stubs:
        reading = Reading(stubs, "book", Book(2560))
        reading.read(2560, ask_every=8)
        yield Site(http, stubs)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InspectedNode]:
    """An inspector in this process, with a session `large` of 100,000 bookmarks."""
    with inspected(tmp_path_factory.mktemp("large")) as node:
        node.sessions.create("large", book_spec())
        grow(node.sessions.get("large"), 100_000)
        yield node


@pytest.mark.parametrize("view", VIEWS)
def test_each_page_has_a_twin_that_says_the_same(site: Site, view: str) -> None:
    """Proves that a page and its JSON are there, about the same session, and of their types."""
    path, _, query = view.partition("?")
    page, twin = site.get(f"/sessions/book/{view}"), site.get(f"/sessions/book/{path}.json?{query}")
    assert (page.status, twin.status) == (200, 200)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert twin.headers["content-type"] == "application/json"
    assert twin.json()["session"]["name"] == "book"
    assert "<h1>book</h1>" in page.text


@pytest.mark.parametrize(
    "path", ["/sessions", "/sessions/book/why", "/sessions/book/why.json", "/static/style.css", "/none"]
)
def test_every_answer_forbids_what_pages_do_not_need(site: Site, path: str) -> None:
    """Proves the headers of pages, twins, files and refusals alike."""
    headers = site.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store" or path.startswith("/static")


def test_a_timeline_says_what_the_api_says(site: Site) -> None:
    """Proves that nodes, their positions and the counts of the parts are those of the session's bookmarks."""
    view = site.get("/sessions/book/timeline.json").json()
    info = site.stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="book"), timeout=TIMEOUT_S).session
    assert (view["session"]["bookmarks"], view["session"]["tokens"]) == (info.bookmarks, info.tokens)
    assert view["nodes"]["index"] == list(range(view["session"]["bookmarks"]))
    assert sum(view["bins"]["bookmarks"]) == sum(view["whole"]["bookmarks"]) == view["session"]["bookmarks"]
    part = site.get("/sessions/book/timeline.json?first=640&count=320").json()
    inside = [at for at in view["nodes"]["position"] if 640 <= at < 960]
    assert part["nodes"]["position"] == inside
    assert [token["position"] for token in part["passage"]["tokens"]] == list(range(640, 960))


def test_why_tells_the_trail_the_cut_and_the_paths(site: Site) -> None:
    """Proves that votes, what lay below the cut, hops with their paths, and the walk's searches are all there."""
    recalls = site.get("/sessions/book/why.json").json()["recalls"]
    views = [site.get(f"/sessions/book/why.json?at={own['asked_at']}").json() for own in recalls]
    assert [view["asked_at"] for view in views] == [own["asked_at"] for own in recalls]
    for view, own in zip(views, recalls, strict=True):
        assert [block["block"] for block in view["chosen"]] == own["blocks"]
        by_trail = [block for block in view["chosen"] if block["reached"] == "trail"]
        assert all(block["votes"] for block in by_trail)
        assert all(vote["similarity"] >= vote["cut"] for block in by_trail for vote in block["votes"])
        least = min((block["score"] for block in by_trail), default=0.0)
        assert all(block["score"] <= least for block in view["below"])
    assert any(view["below"] for view in views)
    assert any(view["searches"] for view in views)
    hops = [block for view in views for block in view["chosen"] if block["reached"] == "hop"]
    assert all(len(block["path"]) % 2 == 0 and block["path"] for block in hops)


def test_a_graph_holds_its_seeds_and_only_links_between_its_nodes(site: Site) -> None:
    """Proves seeds, hops, the least weight and the limit on nodes."""
    view = site.get("/sessions/book/graph.json?seeds=40&hops=1").json()
    assert 40 in view["nodes"]["index"]
    known = set(view["nodes"]["index"])
    assert {*view["edges"]["source"], *view["edges"]["target"]} <= known
    assert len(view["x"]) == len(view["y"]) == len(known)
    strong = site.get("/sessions/book/graph.json?seeds=40&hops=1&weight_min=0.7").json()["edges"]["weight"]
    assert all(weight >= 0.7 for weight in strong)
    assert len(site.get("/sessions/book/graph.json?hops=8&most=30").json()["nodes"]["index"]) == 30


@pytest.mark.parametrize(("query", "position"), [("#12", None), ("@ 700", 700), ("id:IDS", 300)])
def test_a_search_finds_a_bookmark_a_position_and_ids(site: Site, query: str, position: int | None) -> None:
    """Proves each form of a query, and that a hit names the bookmark at or before it."""
    ids = ",".join(str(one) for one in Book(2560).ids[300:304].tolist())
    view = site.get(f"/sessions/book/search.json?q={quote(query.replace('IDS', ids))}").json()
    found = {hit["position"]: hit["bookmark"] for hit in view["hits"]}
    if position is None:
        assert list(found.values()) == [12]
    else:
        positions = site.get("/sessions/book/timeline.json").json()["nodes"]["position"]
        assert found[position] == sum(at <= position for at in positions) - 1


def test_a_query_without_meaning_is_answered_by_what_was_expected(site: Site) -> None:
    """Proves that words in a session without text, and places that are not there, are said to be so."""
    own = book_spec()
    own.keep_text = False
    Reading(site.stubs, "silent", Book(1280), own).read(1280)
    for query, expected in (("whale", "keeps no text"), ("#999999", "below"), ("@999999", "below")):
        answer = site.get(f"/sessions/silent/search.json?q={quote(query)}")
        assert (answer.status, answer.json()["hits"]) == (200, [])
        assert expected in answer.json()["problem"]


def test_words_are_found_where_the_session_keeps_its_text(site: Site) -> None:
    """Proves that words of several tokens are found at the token in which they begin, whatever their case."""
    pieces = Book(2560).pieces
    words = b"".join(pieces[500:503]).decode().strip().upper()
    view = site.get(f"/sessions/book/search.json?q={quote(words)}").json()
    assert 500 in [hit["position"] for hit in view["hits"]]
    assert site.get("/sessions/book/search.json?q=zyzzyva").json()["hits"] == []
    assert site.get("/sessions/book/bookmarks/5").text.count("<mark>") >= 1


def test_passages_show_text_only_where_it_was_kept(site: Site) -> None:
    """Proves that tokens have their text in a session that keeps it, and their ids alone in one that does not."""
    own = book_spec()
    own.keep_text = False
    Reading(site.stubs, "mute", Book(640), own).read(640)
    kept, mute = (site.get(f"/sessions/{name}/timeline.json?first=0&count=64").json() for name in ("book", "mute"))
    assert [token["text"].encode() for token in kept["passage"]["tokens"]] == Book(2560).pieces[:64]
    assert {token["text"] for token in mute["passage"]["tokens"]} == {None}
    assert [token["id"] for token in mute["passage"]["tokens"]] == Book(640).ids[:64].tolist()


def test_two_sessions_are_compared_on_one_axis(site: Site) -> None:
    """Proves which settings differ, how far two texts are the same, and that a session equals itself."""
    own = book_spec()
    own.search.links_max = 2
    Reading(site.stubs, "other", Book(1280), own).read(1280)
    view = site.get("/compare.json?left=book&right=other").json()
    assert [one["name"] for one in view["differences"]] == ["search.links_max"]
    assert len(view["left_bins"]["bookmarks"]) == len(view["right_bins"]["bookmarks"])
    assert view["compared_tokens"] == 1280
    shared = next((at for at in range(1280) if Book(1280).ids[at] != Book(2560).ids[at]), 1280)
    assert view["shared_tokens"] == shared
    same = site.get("/compare.json?left=book&right=book").json()
    assert (same["differences"], same["shared_tokens"]) == ([], same["compared_tokens"])


def test_a_live_view_follows_a_reader(site: Site) -> None:
    """Proves that tokens, the newest bookmark and the writer are those of the moment."""
    reading = Reading(site.stubs, "growing", Book(2560, 4))
    reading.read(1280)
    before = site.get("/sessions/growing/live.json").json()
    reading.read(1600)
    after = site.get("/sessions/growing/live.json").json()
    assert (before["session"]["tokens"], after["session"]["tokens"]) == (1280, 1600)
    assert after["newest"][0]["index"] == after["session"]["bookmarks"] - 1 > before["newest"][0]["index"]
    assert after["session"]["writer"] == "worker-growing"
    reading.worker.leave()


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/book/timeline?first=-1",
        "/sessions/book/timeline?count=99999999999999999999",
        "/sessions/book/graph?hops=9",
        f"/sessions/book/graph?most={NODES_MAX + 1}",
        "/sessions/book/graph?seeds=1,a",
        f"/sessions/book/graph?seeds={','.join('1' for _ in range(65))}",
        "/sessions/book/bookmarks/-1",
        "/sessions/book/bookmarks/x",
        "/sessions?count=0",
    ],
)
def test_one_past_a_limit_is_refused_in_one_line(site: Site, path: str) -> None:
    """Proves that a number out of range is a 400 for people and programs, and changes nothing."""
    head, _, query = path.partition("?")
    answer = site.get(f"{head}.json?{query}")
    assert answer.status == 400
    assert "\n" not in answer.json()["problem"]
    assert site.get(path).status == 400


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_not_found_and_not_repeated_as_markup(site: Site, name: str) -> None:
    """Proves that a name which no session can have gets a page that is inert."""
    answer = site.get(f"/sessions/{quote(name, safe='')}/timeline")
    assert answer.status in (400, 404)
    assert [part for part in ("<script>alert", "<img") if part in answer.text] == []
    assert "\u202e" not in answer.text
    assert len(answer.text) < 5_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_but_reading_is_offered(site: Site, method: str) -> None:
    """Proves that a view takes no method that changes things."""
    request = urllib.request.Request(f"http://{site.address}/sessions/book/timeline", b"", method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=TIMEOUT_S)
    refused.value.close()
    assert refused.value.code == 405


def test_a_name_that_somebody_pointed_here_gets_nothing(site: Site) -> None:
    """Proves that a server without credentials tells a page of another name nothing."""
    refused = site.get("/sessions.json", Host="evil.example")
    assert (refused.status, refused.json()["reason"]) == (403, "HOST_UNKNOWN")
    assert site.get("/sessions.json", Host="localhost:1").status == 200


def test_machines_get_their_pages_as_without_an_inspector(site: Site) -> None:
    """Proves that numbers and health ask for nothing and are served beside it."""
    assert (site.get("/livez", Host="any.example").text, site.get("/readyz").text) == ("ok\n", "ok\n")
    assert "memsvc_tokens_total" in site.get("/metrics").text


def test_the_description_names_every_twin(site: Site) -> None:
    """Proves that /openapi.json tells of each JSON view and of its refusals."""
    paths = site.get("/openapi.json").json()["paths"]
    assert len(paths) == 8
    assert all(
        path.endswith(".json") and {"200", "400", "403", "404"} <= set(own["get"]["responses"])
        for path, own in paths.items()
    )


def test_a_view_of_100_000_bookmarks_has_at_most_5_000(large: InspectedNode) -> None:
    """Proves the limit on nodes of timeline and graph, and that closer looks show every bookmark."""
    whole = large.get("/sessions/large/timeline.json").json()
    assert 0 < len(whole["nodes"]["index"]) <= NODES_MAX
    assert whole["least_height"] > 0
    assert sum(whole["bins"]["bookmarks"]) == 100_000
    near = large.get("/sessions/large/timeline.json?first=10000&count=5000").json()
    assert near["least_height"] == 0
    assert near["nodes"]["index"] == list(range(near["nodes"]["index"][0], near["nodes"]["index"][-1] + 1))
    graph = large.get(f"/sessions/large/graph.json?hops=8&most={NODES_MAX}").json()
    assert (len(graph["nodes"]["index"]), graph["full"]) == (NODES_MAX, True)


def test_an_address_that_others_reach_serves_no_inspector(tmp_path: Path) -> None:
    """Proves that sessions are not shown to other machines unless that is asked for, and that health still is."""
    with served(tmp_path, "--http", "0.0.0.0:0") as server:
        assert server.process.stdout is not None
        address = f"127.0.0.1:{server.process.stdout.readline().strip().rpartition(':')[2]}"
        assert ask(address, "/sessions").status == 404
        assert "expected a loopback address, or insecure" in ask(address, "/").text
        assert ask(address, "/livez").text == "ok\n"
