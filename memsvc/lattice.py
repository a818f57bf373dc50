"""Embeddings as integer vectors, so that similarity is exact and owes nothing to how the work was split.

A vector is centred, shaped to a length of at most 1 (normalised, unless a metric says otherwise: `memsvc.scoring`),
multiplied by 4095 and rounded to integers. Its length is then at most 4096, so each product and each partial sum of a
dot product of two of them is an integer of magnitude at most 4096 ** 2 = 2 ** 24 (Cauchy-Schwarz, over any subset of
the dimensions): float32 holds them all, with or without fused multiply-add.

Invariants:
    A lattice vector depends on its own row and the centre alone, bit for bit, whatever rows share the call.
    The squares of a lattice vector sum to at most 2 ** 24. The row that equals the centre becomes the zero vector.
    `similarities` returns exact integers for any batch shape, BLAS and thread count.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# Length of a lattice vector before rounding: the largest integer that leaves rounding room below 4096.
SCALE = 4095
# Similarity (float64) of one unit of a lattice dot product: a cosine is `dot * SIMILARITY_UNIT`.
SIMILARITY_UNIT = 1.0 / SCALE**2
# Largest sum of squares: float32 holds every integer up to here.
_SQUARES_MAX = 2**24
# Rows converted at once, so that their float64 copies stay in the cache: 3.5 us a row of 576 against 14 for 512 rows.
_TILE_ROWS = 64

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int16Array = npt.NDArray[np.int16]
# Brings centred rows, [n, dims], to lengths of at most 1, each by itself.
Shape = Callable[[Float64Array], Float64Array]


def centre_of(rows: Float32Array) -> Float64Array:
    """Mean of the rows, [n, dims] to [dims], summed in float64 one row after the other; n is at least 1."""
    total = np.zeros(rows.shape[1], dtype=np.float64)
    for row in rows:
        total += row
    return total / len(rows)


def lengths_of(rows: Float64Array) -> Float64Array:
    """Length of each row, [n, dims] to [n]."""
    lengths: Float64Array = np.sqrt(row_sums(rows * rows))
    return lengths


def normalised(offsets: Float64Array) -> Float64Array:
    """Rows of length 1, [n, dims] to [n, dims]; a zero row stays zero."""
    lengths = lengths_of(offsets)
    unit: Float64Array = offsets / np.where(lengths > 0, lengths, 1.0)[:, None]
    return unit


def to_lattice(rows: Float32Array, centre: Float64Array, shape: Shape = normalised) -> Int16Array:
    """Integer vectors of the rows about the centre, [n, dims] to [n, dims]; rows and centre are finite."""
    lattice = np.empty(rows.shape, dtype=np.int16)
    for first in range(0, len(rows), _TILE_ROWS):
        tile = slice(first, first + _TILE_ROWS)
        lattice[tile] = _round_to_lattice(shape(rows[tile] - centre))
    return lattice


def similarities(queries: Int16Array | Float32Array, rows: Int16Array | Float32Array) -> Float32Array:
    """Dot products of lattice vectors, [m, dims] by [n, dims] to [m, n]: exact integers, in units of SIMILARITY_UNIT.

    Args:
        queries, rows: Lattice vectors as int16, or already widened to float32, which saves the conversion.
    """
    return queries.astype(np.float32, copy=False) @ rows.astype(np.float32, copy=False).T


def row_sums(values: Float64Array) -> Float64Array:
    """Sum of each row, [n, dims] to [n], by folding halves: the order of additions follows from dims alone."""
    while (width := values.shape[1]) > 1:
        half = width // 2
        folded = values[:, :half] + values[:, half : 2 * half]
        values = folded if width % 2 == 0 else np.concatenate([folded, values[:, -1:]], axis=1)
    return values.reshape(len(values))


def _round_to_lattice(shaped: Float64Array) -> Float64Array:
    scaled = shaped * SCALE
    rounded = np.rint(scaled)
    # Rounding moves a vector by up to sqrt(dims) / 2 and may carry it past 4096; cutting towards zero never lengthens.
    # Squares of integers: exact in any order of additions.
    long = np.einsum("nd,nd->n", rounded, rounded) > _SQUARES_MAX
    rounded[long] = np.trunc(scaled[long])
    return rounded
