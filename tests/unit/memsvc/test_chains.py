"""Chains: a bookmark joins the chain of its strongest parent, or starts one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memsvc.chains import Chains


@st.composite
def strongest_parents(draw: st.DrawFn) -> list[int]:
    """The strongest parent of each bookmark in turn: an earlier one, or -1."""
    count = draw(st.integers(0, 40))
    return [draw(st.integers(-1, at - 1)) for at in range(count)]


def _by_hand(parents: list[int]) -> list[int]:
    chains: list[int] = []
    for parent in parents:
        chains.append(max(chains, default=-1) + 1 if parent < 0 else chains[parent])
    return chains


def _chains(parents: list[int], cuts: list[int]) -> Chains:
    chains = Chains()
    for part in np.split(np.array(parents, dtype=np.int64), sorted(min(cut, len(parents)) for cut in cuts)):
        chains.join(part)
    return chains


def test_the_worked_example_makes_two_chains() -> None:
    """Proves by hand: 0 starts a chain, 1 and 3 follow it, 2 starts another and 4 joins that."""
    chains = Chains()
    assert chains.join(np.array([-1, 0, -1, 1])).tolist() == [0, 0, 1, 0]
    assert chains.join(np.array([2])).tolist() == [1]
    assert chains.heads().tolist() == [3, 4]
    assert [chains.members(chain).tolist() for chain in (0, 1, 2)] == [[3, 1, 0], [4, 2], []]
    assert [chains.count(total) for total in (0, 2, 3, None)] == [0, 1, 2, 2]


@settings(deadline=None)
@given(parents=strongest_parents(), cuts=st.lists(st.integers(0, 40)))
def test_chains_owe_nothing_to_the_split_into_calls(parents: list[int], cuts: list[int]) -> None:
    """Proves that joining in any batches gives each bookmark the chain that joining one by one gives."""
    chains = _chains(parents, cuts)
    assert chains.of_bookmarks().tolist() == _by_hand(parents)
    assert chains.count() == len(set(_by_hand(parents)))


@settings(deadline=None)
@given(parents=strongest_parents(), cuts=st.lists(st.integers(0, 40)), data=st.data())
def test_a_cut_is_the_chains_of_that_time(parents: list[int], cuts: list[int], data: st.DataObject) -> None:
    """Proves that heads, members and counts at a cut are those before anything later was joined."""
    total = data.draw(st.integers(0, len(parents)))
    chains, expected = _chains(parents, cuts), _by_hand(parents)[:total]
    assert chains.of_bookmarks(total).tolist() == expected
    assert chains.count(total) == len(set(expected))
    members = {chain: [at for at in reversed(range(total)) if expected[at] == chain] for chain in set(expected)}
    assert {chain: chains.members(chain, total).tolist() for chain in members} == members
    assert chains.heads(total).tolist() == [members[chain][0] for chain in sorted(members)]
