"""Links in the source's order, in a session: whatever the steps, and after a replay."""

from pathlib import Path

import pytest

from memsvc.session import Session
from protos.memsvc.v1 import types_pb2
from tests.session_driver import Node, Reader, Text, memory_of, session_spec

TEXT = Text(900)


def _spec(search: "types_pb2.LinkSearch.ValueType") -> types_pb2.SessionSpec:
    spec = session_spec("every")
    spec.search.link_search = search
    return spec


def _opened(folder: Path, search: "types_pb2.LinkSearch.ValueType" = types_pb2.LINK_SEARCH_WALK) -> tuple[Node, Reader]:
    node = Node(folder)
    node.create(_spec(search))
    return node, node.open()


def _parents(session: Session) -> list[tuple[int, ...]]:
    graph = session.core.state.graph
    return [tuple(link.parent for link in one.links) for one in graph.bookmarks(range(len(graph)))]


def test_links_by_walk_do_not_depend_on_steps(tmp_path: Path) -> None:
    """Proves that a text read in long steps or token by token gets the same links, weights and chains."""
    memories = []
    for name, length in (("long", 300), ("short", 1), ("uneven", 37)):
        node, reader = _opened(tmp_path / name)
        reader.read(TEXT, [*range(length, 900, length), 900])
        memories.append(memory_of(reader.session))
        node.close()
    assert memories[0] == memories[1] == memories[2]


def test_a_replay_takes_links_from_the_log_and_goes_on_alike(tmp_path: Path) -> None:
    """Proves that after a kill nothing is searched again, chains of graph and walk agree, and later links are those of
    a session that was never killed."""
    killed, first = _opened(tmp_path / "killed")
    whole, twin = _opened(tmp_path / "whole")
    for reader in (first, twin):
        reader.read(TEXT, [100, 500])
    after = killed.crash()
    again = after.open(resume_epoch=first.opened.epoch)
    assert "links by walk: no finds yet" in again.session.info().finder_status
    for reader in (again, twin):
        reader.read(TEXT, [600, 900])
    assert memory_of(again.session) == memory_of(twin.session)
    state = again.session.core.state
    levels = state.links._walker.dictionary.levels
    assert [levels.list_of(at) for at in range(len(state.graph))] == state.graph.chains.of_bookmarks().tolist()
    after.close()
    whole.close()


def test_the_walk_links_otherwise_than_the_finder(tmp_path: Path) -> None:
    """Proves that the spec's choice matters, that unspecified means the finder, and that the status tells of finds."""
    parents, statuses = [], []
    for name, search in (
        ("unspecified", types_pb2.LINK_SEARCH_UNSPECIFIED),
        ("finder", types_pb2.LINK_SEARCH_FINDER),
        ("walk", types_pb2.LINK_SEARCH_WALK),
    ):
        node, reader = _opened(tmp_path / name, search)
        reader.read(TEXT, [900])
        parents.append(_parents(reader.session))
        statuses.append(reader.session.info().finder_status)
        node.close()
    assert parents[0] == parents[1] != parents[2]
    assert "walk" not in statuses[1]
    assert f"links by walk: {len(parents[2])} finds" in statuses[2]


@pytest.mark.parametrize("search", [types_pb2.LINK_SEARCH_FINDER, types_pb2.LINK_SEARCH_WALK])
def test_a_find_can_be_explained_where_links_come_by_walk(
    tmp_path: Path, search: "types_pb2.LinkSearch.ValueType"
) -> None:
    """Proves that a vector's find is told among the first bookmarks alone, and that finders have none to tell."""
    node, reader = _opened(tmp_path, search)
    reader.read(TEXT, [400])
    links, vector = reader.session.core.state.links, reader.session.core.state.vectors.recent.rows["s0"][0]
    found = links.explain(vector, 50)
    if search == types_pb2.LINK_SEARCH_FINDER:
        assert found is None
    else:
        assert found is not None
        assert found.trace.walked[0] == 49
        assert all(link.parent < 50 for link in found.parents)
    node.close()
