"""Chosen configurations of the scan, in one place. Pure integers.

The shapes are the best of a sweep on an H100 (rows, warps, stages, programs) over 10,000,000 sketches of 128 bytes:
0.46 ms where reading alone takes 0.43. More programs than fit into a multiprocessor's shared memory cost a quarter.
"""

from dataclasses import dataclass

# Columns of the smallest product of a matrix unit: fewer queries cost the same.
QUERIES_MIN = 16
# Bookmarks whose best score is kept, and which are scored again together: 64 rows of 576 bytes are read in one piece,
# and 10,000,000 bookmarks leave 156,250 scores.
GROUP_ROWS = 64
# Of the 227 KiB that an H100's multiprocessor has, what tiles of sketches may take.
_SHARED_BYTES = 200 << 10
_STAGES_MIN, _STAGES_MAX = 3, 4


@dataclass(frozen=True)
class Tiling:
    """Shape of one program of the scan.

    Args:
        rows: Bookmarks of its tile, a power of two from GROUP_ROWS to TILE_ROWS_MAX.
        warps: Warps that work on it.
        stages: Depth of the loop's software pipeline: so many tiles of sketches lie in shared memory.
        programs: Programs for each multiprocessor; each takes every so-many-th tile.
    """

    rows: int
    warps: int
    stages: int
    programs: int


def tiling_for(queries: int, sketch_bytes: int) -> Tiling:
    """The configuration for so many queries, padded to a power of two, and bytes of a sketch."""
    rows = 128 if sketch_bytes <= 256 else 64
    warps = 4 if queries <= 2 * QUERIES_MIN else 8
    fitting = _SHARED_BYTES // (rows * sketch_bytes)
    programs = 2 if fitting >= 2 * _STAGES_MIN else 1
    return Tiling(rows, warps, max(1, min(_STAGES_MAX, fitting // programs)), programs)
