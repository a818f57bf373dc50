"""What a recalled block's bias is, by how it was reached."""

import pytest

from attn_client.memory import RecallAnswer, RecalledBlock
from attn_client.memory.records import Reached
from attn_client.recall import biases, what_is_wrong

LIFT = 2.0


def _block(block: int, z: float, reached: Reached = "trail", via: int | None = None) -> RecalledBlock:
    return RecalledBlock(block, max(0.0, z), z, reached, block if via is None else via, -1)


def _biases(*blocks: RecalledBlock, neighbours: int = 1) -> dict[int, float]:
    return biases(RecallAnswer(1000, blocks, 0.0, 1.0, 100), neighbours, LIFT)


def test_the_best_passage_has_the_lift_and_others_less_by_their_scores() -> None:
    """Proves the scale: standardised scores below the best one's, neighbours counting as their hit."""
    found = _biases(_block(9, 5.0), _block(8, -0.2, "neighbour", 9), _block(30, 3.5))
    assert found == {9: LIFT, 8: LIFT, 30: LIFT - 1.5}


@pytest.mark.parametrize("z", [-0.3, 1.0])
def test_a_block_along_links_counts_like_the_hit_they_begin_at(z: float) -> None:
    """Proves that a block which nothing voted for, but a hit leads to, is attended to as that hit is."""
    found = _biases(_block(9, 5.0), _block(30, 3.5), _block(60, z, "hop", 30), _block(70, z, "hop", 9))
    assert found == {9: LIFT, 30: LIFT - 1.5, 60: LIFT - 1.5, 70: LIFT}


def test_a_block_along_links_with_more_votes_of_its_own_keeps_them() -> None:
    """Proves that a link never lowers a bias."""
    found = _biases(_block(9, 5.0), _block(30, 1.0), _block(60, 4.0, "hop", 30))
    assert found[60] == LIFT - 1.0


def test_a_neighbour_of_a_block_along_links_counts_as_that_block() -> None:
    """Proves that a passage which a link leads to is one passage, whatever boundary it straddles."""
    found = _biases(_block(9, 5.0), _block(60, -0.3, "hop", 9), _block(61, -0.3, "neighbour", 60))
    assert found[61] == LIFT


def test_a_block_along_links_from_a_hit_that_gave_way_counts_as_itself() -> None:
    """Proves that a hit outside the budget is no error."""
    found = _biases(_block(9, 5.0), _block(60, 1.0, "hop", 30))
    assert found[60] == LIFT - 4.0


def test_nothing_recalled_has_no_bias() -> None:
    """Proves that an empty answer is one."""
    assert _biases() == {}


BLOCKS, BUDGET = range(1, 101), 4


def _wrong(*blocks: RecalledBlock) -> str | None:
    return what_is_wrong(RecallAnswer(1000, blocks, 0.0, 1.0, 100), BLOCKS, BUDGET)


def test_an_answer_of_blocks_that_could_be_chosen_is_right() -> None:
    """Proves that the ends of the range, the whole budget and the largest scores are taken, and so is nothing."""
    assert _wrong() is None
    assert _wrong(_block(1, 10.0), _block(100, -10.0), _block(50, 0.0), _block(51, 1.0)) is None


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ([_block(0, 1.0)], "expected blocks 1 to 100, got 0"),
        ([_block(7, 1.0), _block(101, 1.0)], "got 101"),
        ([_block(2**63, 1.0)], f"got {2**63}"),
        ([_block(7, 1.0), _block(7, 1.0)], "2, 1 of them different"),
        ([_block(block, 1.0) for block in range(1, 6)], "at most 4 different blocks, got 5"),
        ([_block(7, float("nan"))], "got nan"),
        ([_block(7, float("-inf"))], "got -inf"),
        ([_block(7, 1.0), _block(8, 10.5)], "within 10.0 of their mean, got 10.5"),
    ],
)
def test_an_answer_that_cannot_be_is_told_by_what_is_wrong(blocks: list[RecalledBlock], says: str) -> None:
    """Proves that sinks, the window, what is not there yet, doubles, too many and impossible scores are found."""
    assert says in str(_wrong(*blocks))
