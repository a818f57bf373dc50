"""Chosen configurations."""

from attn_kernels.forward.tilings import DECODE_ROWS, Tiling, splits_for, tiling_for, turns_ahead


def test_few_rows_take_the_smallest_tile() -> None:
    """Proves that decode and chunk are told apart by rows: queries times heads of a group."""
    assert tiling_for(1, 64, 2).rows == tiling_for(DECODE_ROWS, 64, 2).rows == DECODE_ROWS
    assert tiling_for(DECODE_ROWS + 1, 64, 2).rows > DECODE_ROWS


def test_splits_fill_the_device_and_no_more() -> None:
    """Proves the limits: one split at least, none without its entries, and no more programs than asked for."""
    tiling = Tiling(rows=16, warps=4, stages=1, programs=2)
    assert splits_for(tiling, programs=3, entries=1000, multiprocessors=132) == 88
    assert splits_for(tiling, programs=3, entries=5, multiprocessors=132) == 5
    assert splits_for(tiling, programs=500, entries=1000, multiprocessors=132) == 1
    assert splits_for(tiling, programs=1, entries=0, multiprocessors=132) == 1


def test_splits_fill_the_last_of_few_waves() -> None:
    """Proves that 512 programs of 396 places, two waves of which the second is a third full, become four full ones."""
    assert splits_for(Tiling(rows=16, warps=4, stages=1, programs=3), 512, 1000, 132) == 3
    assert splits_for(Tiling(rows=16, warps=4, stages=1, programs=3), 512, 2, 132) == 2
    assert splits_for(Tiling(rows=128, warps=8, stages=1, programs=1), 2048, 64, 132) == 1


def test_keys_are_rotated_ahead_only_for_several_tiles() -> None:
    """Proves that decode, which reads each key once, takes no memory and no launch for rotated keys."""
    tiling = tiling_for(1000, 128, 2)
    assert turns_ahead(tiling, 2)
    assert not turns_ahead(tiling, 1)
    assert not turns_ahead(tiling_for(1, 128, 2), 2)
