"""Chosen configurations of the fused forward, in one place. Pure integers.

A *row* is one query of one head; the rows of the heads that share a KV head lie in one tile, so that a page is read
once for all of them. A *split* is a contiguous share of a batch row's entries that one program reads.

Half precision at D = 64 and 128 is the best of a sweep on an H100 (rows, warps, stages, programs, rotation ahead) over
the sizes of benchmarks/bench_kernels.py; D = 256 and float32 were chosen to fit, not for speed.
"""

from dataclasses import dataclass

# Rows of the smallest tile: what a matrix unit takes at least.
DECODE_ROWS = 16


@dataclass(frozen=True)
class Tiling:
    """Shape of one program.

    Args:
        rows: Rows of its tile, a power of two.
        warps: Warps that work on it.
        stages: Depth of the loop's software pipeline. A page's keys, values and angles take 32 to 128 KiB a stage, of
            the 227 KiB of shared memory that an H100's multiprocessor has.
        programs: Programs for each multiprocessor, which splits make up for where there are few tiles.
        turn_ahead: Rotate keys once ahead when several tiles read them: rotating in every tile takes a seventh to a
            fifth longer, for a page's float32 angles are as many bytes as its keys and values together.
    """

    rows: int
    warps: int
    stages: int
    programs: int
    turn_ahead: bool = False


_DECODE = {64: Tiling(DECODE_ROWS, 2, 2, 4), 128: Tiling(DECODE_ROWS, 4, 2, 2), 256: Tiling(DECODE_ROWS, 4, 1, 2)}
_CHUNK = {
    64: Tiling(128, 4, 2, 2, turn_ahead=True),
    128: Tiling(64, 4, 3, 2, turn_ahead=True),
    256: Tiling(64, 8, 1, 1, turn_ahead=True),
}
# float32 products run without matrix units and need the registers: small tiles.
_DECODE_FLOAT32 = Tiling(DECODE_ROWS, 4, 1, 2)
_CHUNK_FLOAT32 = Tiling(32, 8, 1, 1)
# One program merges all splits of a row: up to 128 KiB at once, in registers.
_SPLITS_MAX = 128
# Splits tried where there are several waves; each writes a partial result.
_SPLITS_OF_WAVES = 8
# Share of the time that must be left.
_WORTH_SPLITTING = 0.95


def tiling_for(rows: int, head_dim: int, element_bytes: int) -> Tiling:
    """Configuration for tiles over `rows` rows (queries times heads that share a KV head)."""
    decode = rows <= DECODE_ROWS
    if element_bytes == 4:
        return _DECODE_FLOAT32 if decode else _CHUNK_FLOAT32
    return (_DECODE if decode else _CHUNK)[head_dim]


def turns_ahead(tiling: Tiling, tiles: int) -> bool:
    """Whether keys are rotated once ahead, into memory of their own, and not in every tile that reads them."""
    return tiling.turn_ahead and tiles > 1


def splits_for(tiling: Tiling, programs: int, entries: int, multiprocessors: int) -> int:
    """How many splits fill the device when `programs` tiles are there already; at most one an entry.

    Where the tiles of decoding come to a few waves of programs, splitting them makes the last wave fuller. Larger tiles
    would write too much for that.
    """
    slots = tiling.programs * multiprocessors
    most = max(1, min(entries, _SPLITS_MAX))
    filling = min(most, max(1, slots // programs))
    if tiling.rows > DECODE_ROWS:
        return filling

    def waves_each(splits: int) -> float:
        return -(-programs * splits // slots) / splits

    best = min(range(1, min(most, _SPLITS_OF_WAVES) + 1), key=waves_each)
    return best if waves_each(best) < _WORTH_SPLITTING * waves_each(filling) else filling
