"""Votes as arrays: what is handed out, and what it counts."""

import numpy as np
import pytest

from memsvc.votes import TrailSettings, VoteColumns, Votes

SETTINGS = TrailSettings(
    blocks=4, decay=0.9, tokens=8, weights={"near": 1.0, "far": 0.5}, sink_tokens=0, window_tokens=64
)


def _votes(position: int, count: int) -> Votes:
    """Of one token, for blocks 100 times its position and on, all different numbers."""
    place = np.arange(count)
    near = (place >= count // 2).astype(np.int64)
    similarity = 0.5 + 0.01 * place + 0.001 * position
    return Votes(
        place * 0 + position, near, 100 * position + place, 1000 * position + place, similarity, similarity - 0.25
    )


def test_what_was_handed_out_stays_while_votes_come_and_leave() -> None:
    """Proves that a recall explained later is explained by the votes that it counted, however many came since."""
    columns, seen = VoteColumns(SETTINGS), {}
    counts = np.random.default_rng(5).integers(0, 9, 200).tolist()
    for position, count in enumerate(counts):
        columns.drop_before(position - SETTINGS.tokens + 1)
        columns.append(_votes(position, count))
        seen[position] = columns.view()
    for position, view in seen.items():
        kept = range(max(0, position - SETTINGS.tokens + 1), position + 1)
        expected = [own for at in kept for own in _votes(at, counts[at]).bookmark.tolist()]
        assert view.bookmark.tolist() == expected
        assert view.block.tolist() == [1000 * (own // 1000) // 10 + own % 1000 for own in expected]


def test_a_copy_goes_on_by_itself() -> None:
    """Proves that a view's votes are not those of the writer it began from."""
    columns = VoteColumns(SETTINGS)
    columns.append(_votes(1, 3))
    copy = columns.copy()
    columns.append(_votes(2, 3))
    copy.append(_votes(3, 3))
    assert columns.view().position.tolist() == [1, 1, 1, 2, 2, 2]
    assert copy.view().position.tolist() == [1, 1, 1, 3, 3, 3]


def test_a_vote_counts_what_lies_above_the_cut_faded_and_weighted() -> None:
    """Proves the formula by hand, to the last bit."""
    votes = _votes(3, 4)
    expected = [
        0.9**4 * weight * (similarity - cut)
        for weight, similarity, cut in zip([1.0, 1.0, 0.5, 0.5], votes.similarity, votes.cut, strict=True)
    ]
    assert votes.contributions(7, SETTINGS).tolist() == expected
    assert votes.of_block(302).contributions(7, SETTINGS).tolist() == expected[2:3]


@pytest.mark.parametrize(("position", "kept"), [(0, 0), (1, 2), (2, 5), (9, 5)])
def test_votes_through_a_position_are_those_of_tokens_up_to_it(position: int, kept: int) -> None:
    """Proves that a recall as of an earlier token does not count later ones."""
    columns = VoteColumns(SETTINGS)
    columns.append(_votes(1, 2))
    columns.append(_votes(2, 3))
    assert len(columns.view().through(position)) == kept
