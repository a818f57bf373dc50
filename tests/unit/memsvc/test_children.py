"""Links by the bookmark they lead to, against a look at every link."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.children import Children

LINKS_MAX = 3


@st.composite
def parents_of(draw: st.DrawFn) -> list[list[int]]:
    """Distinct earlier parents of up to 30 bookmarks, -1 for none."""
    rows = []
    for at in range(draw(st.integers(0, 30))):
        own = draw(st.lists(st.integers(0, at - 1), unique=True, max_size=LINKS_MAX)) if at else []
        rows.append(own + [-1] * (LINKS_MAX - len(own)))
    return rows


@settings(deadline=None)
@given(rows=parents_of(), cuts=st.sets(st.integers(0, 30)), total=st.integers(0, 30), most=st.integers(1, 4))
def test_links_into_a_bookmark_are_those_of_a_look_at_every_link(
    rows: list[list[int]], cuts: set[int], total: int, most: int
) -> None:
    """Proves for any graph, split into adds, cut and limit: the newest links below the cut, newest first."""
    children = Children(LINKS_MAX)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    for start, end in pairwise(bounds):
        children.extend(np.array(rows[start:end], dtype=np.int64).reshape(-1, LINKS_MAX))
    cut = min(total, len(rows))
    wanted = np.arange(cut)[::-1]
    for limit in (most, None):
        places, links = children.links(wanted, cut, limit)
        for place, bookmark in enumerate(wanted.tolist()):
            into = [
                LINKS_MAX * child + slot
                for child in range(cut)[::-1]
                for slot in range(LINKS_MAX)
                if rows[child][slot] == bookmark
            ]
            assert links[places == place].tolist() == into[:limit]


def test_room_is_made_for_more_bookmarks_than_there_is() -> None:
    """Proves that a chain of 5,000 bookmarks, added one and many at a time, keeps each one's child."""
    children = Children(1)
    parents = np.arange(-1, 4999, dtype=np.int64)[:, None]
    for start, end in ((0, 1), (1, 3000), (3000, 3001), (3001, 5000)):
        children.extend(parents[start:end])
    places, links = children.links(np.array([0, 1022, 4998, 4999]), 5000)
    assert (places.tolist(), links.tolist()) == ([0, 1, 2], [1, 1023, 4999])
