"""Reading bookmarks, links, token ids and explanations."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memsvc.errors import BookmarkNotFound, InvalidRequest, LimitExceeded, RecallNotFound
from memsvc.session import Session
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.session_driver import DIMS, LIMITS, Node, Reader, Text, session_spec

TEXT = Text(900)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A writer that read 900 tokens with policy `every`."""
    node = Node(Path(tmp_path_factory.mktemp("reads")) / "data")
    node.create(session_spec("every"))
    writer = node.open()
    writer.read(TEXT, range(100, 901, 100))
    yield writer
    node.close()


@pytest.fixture
def session(writer: Reader) -> Session:
    """Its session."""
    return writer.session


def test_bookmarks_are_listed_in_pages(session: Session) -> None:
    """Proves that first and count choose consecutive indices, and the total is told."""
    page = session.list_bookmarks(10, 5)
    assert ([bookmark.index for bookmark in page.bookmarks], page.total) == ([10, 11, 12, 13, 14], 900)
    assert [bookmark.position for bookmark in page.bookmarks] == [10, 11, 12, 13, 14]
    assert len(session.list_bookmarks(0, 0).bookmarks) == 900
    assert len(session.list_bookmarks(898, 10).bookmarks) == 2
    assert len(session.list_bookmarks(1 << 63, 10).bookmarks) == 0
    with pytest.raises(LimitExceeded):
        session.list_bookmarks(0, 10_001)


def test_links_point_back_strongest_first(session: Session) -> None:
    """Proves that parents are earlier bookmarks with falling weights no lower than the least similarity."""
    for bookmark in session.list_bookmarks(0, 0).bookmarks:
        weights = [link.weight for link in bookmark.links]
        assert weights == sorted(weights, reverse=True)
        assert all(link.parent < bookmark.index and link.weight >= 0.3 - 1e-6 for link in bookmark.links)
    assert any(len(bookmark.links) == 3 for bookmark in session.list_bookmarks(0, 0).bookmarks)


def test_a_graph_grows_from_its_seeds(session: Session) -> None:
    """Proves that seeds come first, the limit holds, and no seeds means the newest chains' newest bookmarks."""
    found = [bookmark.index for bookmark in session.graph([500, 20], 1, 50).bookmarks]
    assert (found[:2], len(found) <= 50) == ([500, 20], True)
    parents = {link.parent for link in session.list_bookmarks(500, 1).bookmarks[0].links}
    assert parents <= set(found)
    heads = session.graph([], 0, 0).bookmarks
    chains = [bookmark.chain for bookmark in heads]
    assert chains == sorted(chains, reverse=True)
    assert len(session.graph([], 3, 10).bookmarks) == 10
    for seeds in ([900], [1 << 63]):
        with pytest.raises(BookmarkNotFound):
            session.graph(seeds, 1, 10)
    with pytest.raises(LimitExceeded):
        session.graph([], 65, 10)
    with pytest.raises(LimitExceeded):
        session.graph([], 1, 10_001)


def test_an_empty_session_reads_as_empty(node: Node) -> None:
    """Proves that nothing is an answer, not an error."""
    session = node.sessions.get("book")
    assert (len(session.list_bookmarks(0, 10).bookmarks), len(session.graph([], 2, 10).bookmarks)) == (0, 0)
    assert session.read_tokens(types_pb2.Range(first=0, count=10)).ids == b""


def test_token_ids_are_read_by_position(session: Session) -> None:
    """Proves that ids come back as they were sent, and too long a range is refused."""
    read = session.read_tokens(types_pb2.Range(first=890, count=100_000))
    np.testing.assert_array_equal(np.frombuffer(read.ids, dtype="<u4"), TEXT.ids[890:])
    assert [(own.first, own.count) for own in read.positions] == [(890, 10)]
    with pytest.raises(InvalidRequest):
        session.read_tokens(types_pb2.Range(first=0, count=100_001))


def test_an_explanation_adds_up_to_the_score(tmp_path: Path) -> None:
    """Proves that votes of each chosen block sum to its score, and the newest answer or a named one is explained."""
    node = Node(tmp_path / "data")
    node.create(session_spec("every"))
    writer = node.open()
    with pytest.raises(RecallNotFound):
        writer.session.explain(None)
    writer.read(TEXT, [500])
    first, second = writer.ask(TEXT, 510), writer.ask(TEXT, 600)
    assert writer.session.explain(None).recall == second
    explained = writer.session.explain(509)
    assert explained.recall == first
    for own in explained.chosen:
        # At most 32 votes are shown: enough for a block with fewer.
        if len(own.votes) < 32:
            assert sum(vote.contribution for vote in own.votes) == pytest.approx(own.block.score, abs=1e-12)
    assert any(own.votes for own in explained.chosen)
    with pytest.raises(RecallNotFound, match="position 77"):
        writer.session.explain(77)
    node.close()


def test_only_the_newest_recalls_are_remembered(tmp_path: Path) -> None:
    """Proves that as many as the limit says can be explained, and one more cannot."""
    node = Node(tmp_path / "data")
    node.create()
    writer = node.open()
    writer.read(TEXT, [300])
    for at in range(LIMITS.recalls_remembered + 1):
        assert writer.ask(TEXT, 301 + at).asked_at_position == 300 + at
    assert writer.session.explain(301).recall.asked_at_position == 301
    with pytest.raises(RecallNotFound):
        writer.session.explain(300)
    node.close()


def test_a_recall_never_answered_is_not_explained(tmp_path: Path) -> None:
    """Proves that a recall that was asked for and not given is not among those remembered as answers."""
    node = Node(tmp_path / "data")
    node.create()
    writer = node.open()
    writer.send(TEXT, 300, memory_pb2.RecallRequest(top_blocks=1, budget_blocks=1))
    with pytest.raises(RecallNotFound):
        writer.session.explain(299)
    node.close()


def test_an_explanation_shows_the_walk_where_links_come_from_it(tmp_path: Path) -> None:
    """Proves that the walk's search is made again for voting tokens, among what the recall saw; else nothing is."""
    spec = session_spec("every", streams=1)
    spec.search.link_search = types_pb2.LINK_SEARCH_WALK
    node = Node(tmp_path / "data")
    node.create(spec)
    writer = node.open()
    text = Text(900, dims={"s0": DIMS})
    writer.read(text, [500])
    recall = writer.ask(text, 520)
    writer.read(text, [600])
    explained = writer.session.explain(None)
    assert explained.finder_status == writer.session.info().finder_status
    voted = {vote.position for own in explained.chosen for vote in own.votes[:1]}
    assert {search.position for search in explained.searches} == voted
    for search in explained.searches:
        # The newest bookmark that the recall could see comes first.
        assert search.walked[0] == 519
        assert search.last_stage in {"walk", "dictionary", "across", "contents"}
        compared = {*search.walked, *search.refined, *search.contents}
        assert search.compared_across or search.landed in compared
        assert max(compared) <= recall.asked_at_position
    node.close()


def test_without_a_walk_no_search_is_explained(session: Session, writer: Reader) -> None:
    """Proves that an explanation of a session whose finder links says which finder, and shows no walk."""
    pending = writer.send(Text(1000), 910, memory_pb2.RecallRequest(top_blocks=1, budget_blocks=1))
    assert pending is not None
    session.recall(pending)
    explained = session.explain(909)
    assert (len(explained.searches), explained.finder_status.split(":")[0]) == (0, "flat")
