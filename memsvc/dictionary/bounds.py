"""What a checkpoint keeps of the vectors below it: three bounds on their similarity to anything, and one estimate.

    box         the largest and smallest value of each dimension, outwards to 8 bits       576 dims: 1,152 bytes a node
    projected   the same over a sketch of 64 dimensions (see `memsvc.shards.sketch`)                   512 bytes a node
    ball        mean and radius                                                                      2,308 bytes a node
    centroid    the mean alone: a guess, no bound                                                    2,304 bytes a node

A box is kept as one vector: the elementwise maximum of (x, -x) over the vectors x below. Its dot product with
max((q, -q), 0) is the largest that q reaches anywhere in the box.

Invariants:
    `Reach.most` is at least the lattice dot product of the query with every vector below the node, rounding included.
    A node's summary is a function of the vectors below it and of how they are divided into segments.
Must not know: lists, levels, searches.
"""

from collections.abc import Callable, Mapping
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from memsvc.lattice import SCALE
from memsvc.shards.base import DOT_MAX, Float32Array, Int16Array, Int64Array
from memsvc.shards.sketch import Sketch

BoundKind = Literal["box", "projected", "ball", "centroid"]

Scalar = TypeVar("Scalar", bound=np.generic)

# Largest length of a lattice vector.
_LENGTH_MAX = 4096
# Largest code; a code c stands for c * |c| * _CODE_UNIT, so that small values, the most frequent ones, are finest.
_CODE_MAX = 127
_CODE_UNIT = _LENGTH_MAX / _CODE_MAX**2
# Where between a ball's middle (0) and its bound (1) the best vector below is likely to be. Among 30,000 clustered
# bookmarks (benchmarks/bench_finders.py) in segments of 16, a search that looks at 1,500 finds this share of the true
# 16 best blocks with 0, 0.1, 0.2, 0.3 and 1: 0.62, 0.85, 0.87, 0.78 and 0.04.
_OPTIMISM = 0.2
# Rounding unit of float32.
_ROUNDING = 2.0**-24


class Reach(NamedTuple):
    """How similar to a query what lies below each of n nodes may be, as lattice dot products, float32 [n].

    Args:
        most: No vector below has more; infinite where nothing is known.
        likely: The order in which nodes are worth opening.
    """

    most: Float32Array
    likely: Float32Array


class Bounds(Protocol):
    """Summaries of nodes, which are numbered from 0. Setting a node again replaces what was there."""

    @property
    def node_bytes(self) -> int:
        """Bytes kept for one node."""
        ...

    def set_rows(self, node: int, rows: Int16Array) -> None:
        """Make `node` the summary of lattice vectors, [n, dims], n at least 1."""
        ...

    def set_nodes(self, node: int, below: Int64Array) -> None:
        """Make `node` the summary of other nodes, [n], n at least 1."""
        ...

    def prepare(self, query: Int16Array) -> Float32Array:
        """What `reach` takes for a query, [dims]."""
        ...

    def reach(self, prepared: Float32Array, nodes: Int64Array) -> Reach:
        """How similar the best vector below each node may be, [n]."""
        ...


class NodeRows(Generic[Scalar]):
    """A matrix whose rows are set by number, and which grows to hold them."""

    def __init__(self, dtype: type[Scalar], width: int) -> None:
        self._rows: npt.NDArray[Scalar] = np.empty((64, width), dtype=dtype)

    def __getitem__(self, nodes: Int64Array) -> npt.NDArray[Scalar]:
        return self._rows[nodes]

    def put(self, node: int, row: npt.NDArray[Scalar]) -> None:
        """Set one row, [width]."""
        if node >= len(self._rows):
            grown = np.empty((max(node + 1, 2 * len(self._rows)), self._rows.shape[1]), dtype=self._rows.dtype)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._rows[node] = row

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._rows.strides[0]


class BoxBounds:
    """Axis-aligned boxes over all dimensions, 8 bits a side."""

    def __init__(self, dims: int) -> None:
        self._tops = NodeRows(np.int8, 2 * dims)
        self._grid = _values(np.arange(-_CODE_MAX, _CODE_MAX + 1).astype(np.float64)) * _CODE_UNIT
        self._margin = (2 * dims + 2) * _ROUNDING * _LENGTH_MAX

    @property
    def node_bytes(self) -> int:
        """Bytes kept for one node."""
        return self._tops.row_bytes

    def set_rows(self, node: int, rows: Int16Array) -> None:
        """Make `node` the summary of lattice vectors, [n, dims]."""
        tops = np.concatenate([rows.max(axis=0), -rows.min(axis=0)])
        # The least code whose value is no smaller; the grid ends at the largest value there can be.
        codes = np.searchsorted(self._grid, tops) - _CODE_MAX
        self._tops.put(node, codes.astype(np.int8))

    def set_nodes(self, node: int, below: Int64Array) -> None:
        """Make `node` the summary of other nodes, [n]."""
        self._tops.put(node, self._tops[below].max(axis=0))

    def prepare(self, query: Int16Array) -> Float32Array:
        """Weights of the sides, [2 dims], then what rounding may take away."""
        sides = _sides(query.astype(np.float64)) * _CODE_UNIT
        return np.append(sides, self._margin * np.abs(query.astype(np.float64)).sum() + 1).astype(np.float32)

    def reach(self, prepared: Float32Array, nodes: Int64Array) -> Reach:
        """The best corner of each box, [n]."""
        most: Float32Array = _values(self._tops[nodes].astype(np.float32)) @ prepared[:-1] + prepared[-1]
        return Reach(most, most)


class ProjectedBounds:
    """Axis-aligned boxes over sketches.

    Args:
        sketch: Directions; any give valid bounds, those of a fair sample give tight ones.
    """

    def __init__(self, sketch: Sketch) -> None:
        self._sketch = sketch
        self._tops = NodeRows(np.float32, 2 * Sketch.dims)

    @property
    def node_bytes(self) -> int:
        """Bytes kept for one node."""
        return self._tops.row_bytes

    def set_rows(self, node: int, rows: Int16Array) -> None:
        """Make `node` the summary of lattice vectors, [n, dims]."""
        sketches = self._sketch.of(rows.astype(np.float32))
        self._tops.put(node, np.concatenate([sketches.max(axis=0), -sketches.min(axis=0)]))

    def set_nodes(self, node: int, below: Int64Array) -> None:
        """Make `node` the summary of other nodes, [n]."""
        self._tops.put(node, self._tops[below].max(axis=0))

    def prepare(self, query: Int16Array) -> Float32Array:
        """Weights of the sides, [128], then what rounding may take away."""
        sides = _sides(self._sketch.of(query[None].astype(np.float32))[0].astype(np.float64)) * SCALE**2
        # Of sketches as `Sketch.of` rounds them (64 more roundings), and of a product with sides of at most 1.001.
        return np.append(sides, (4 * Sketch.dims + 8) * _ROUNDING * sides.sum() * 1.01 + 1).astype(np.float32)

    def reach(self, prepared: Float32Array, nodes: Int64Array) -> Reach:
        """The best corner of each box, [n]."""
        most: Float32Array = self._tops[nodes] @ prepared[:-1] + prepared[-1]
        return Reach(most, most)


class CentroidEstimate:
    """The mean of what lies below: says where it lies, not how far it spreads."""

    def __init__(self, dims: int) -> None:
        self._means = NodeRows(np.float32, dims)
        self._counts = NodeRows(np.int64, 1)

    @property
    def node_bytes(self) -> int:
        """Bytes kept for one node."""
        return self._means.row_bytes

    def set_rows(self, node: int, rows: Int16Array) -> None:
        """Make `node` the summary of lattice vectors, [n, dims]."""
        self._put(node, rows.mean(axis=0, dtype=np.float64), len(rows))

    def set_nodes(self, node: int, below: Int64Array) -> None:
        """Make `node` the summary of other nodes, [n]."""
        counts = self._counts[below]
        total = int(counts.sum())
        self._put(node, (self._means[below].astype(np.float64) * counts).sum(axis=0) / total, total)

    def means(self, nodes: Int64Array) -> Float32Array:
        """Means, [n, dims]."""
        return self._means[nodes]

    def prepare(self, query: Int16Array) -> Float32Array:
        """The query as float32, [dims]."""
        return query.astype(np.float32)

    def reach(self, prepared: Float32Array, nodes: Int64Array) -> Reach:
        """Dot products with the means, [n]; no bound."""
        likely: Float32Array = self._means[nodes] @ prepared
        return Reach(np.full(len(nodes), np.inf, dtype=np.float32), likely)

    def _put(self, node: int, mean: npt.NDArray[np.float64], count: int) -> None:
        self._means.put(node, mean.astype(np.float32))
        self._counts.put(node, np.array([count]))


class BallBounds:
    """Balls about the means, just wide enough. By Cauchy-Schwarz <q, x> <= <q, mean> + |q| radius."""

    def __init__(self, dims: int) -> None:
        self._centres = CentroidEstimate(dims)
        self._radii = NodeRows(np.float32, 1)
        # Partial sums of <q, mean> are at most DOT_MAX, those with the radius three times that.
        self._margin = (dims + 8) * _ROUNDING * DOT_MAX + 8

    @property
    def node_bytes(self) -> int:
        """Bytes kept for one node."""
        return self._centres.node_bytes + self._radii.row_bytes

    def set_rows(self, node: int, rows: Int16Array) -> None:
        """Make `node` the summary of lattice vectors, [n, dims]."""
        self._centres.set_rows(node, rows)
        self._put(node, rows.astype(np.float64), np.zeros((len(rows), 1)))

    def set_nodes(self, node: int, below: Int64Array) -> None:
        """Make `node` the summary of other nodes, [n]."""
        self._centres.set_nodes(node, below)
        self._put(node, self._centres.means(below).astype(np.float64), self._radii[below].astype(np.float64))

    def prepare(self, query: Int16Array) -> Float32Array:
        """The query, [dims], then its length."""
        exact = query.astype(np.float64)
        return np.append(exact, np.sqrt(exact @ exact)).astype(np.float32)

    def reach(self, prepared: Float32Array, nodes: Int64Array) -> Reach:
        """The best point of each ball, and for the order one between that and its middle, [n]."""
        middle = self._centres.reach(prepared[:-1], nodes).likely
        reach = self._radii[nodes][:, 0] * prepared[-1] + np.float32(self._margin)
        return Reach(middle + reach, middle + np.float32(_OPTIMISM) * reach)

    def _put(self, node: int, points: npt.NDArray[np.float64], reaches: npt.NDArray[np.float64]) -> None:
        """Sets the radius about the mean as it was rounded."""
        centre = self._centres.means(np.array([node])).astype(np.float64)
        distances = np.sqrt(np.square(points - centre).sum(axis=1, keepdims=True))
        # Upwards, past every rounding of the line above and of float32.
        self._radii.put(node, ((distances + reaches).max(axis=0) * (1 + 4 * _ROUNDING)).astype(np.float32))


def make_bounds(kind: BoundKind, dims: int, sketch: Sketch | None = None) -> Bounds:
    """Empty bounds of one kind; "projected" takes a sketch."""
    if kind == "projected":
        assert sketch is not None, "expected a sketch with projected bounds"
        return ProjectedBounds(sketch)
    kinds: Mapping[str, Callable[[int], Bounds]] = {"box": BoxBounds, "ball": BallBounds, "centroid": CentroidEstimate}
    return kinds[kind](dims)


def _sides(query: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sides: npt.NDArray[np.float64] = np.maximum(np.concatenate([query, -query]), 0.0)
    return sides


def _values(codes: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """What codes stand for, in _CODE_UNIT."""
    values: npt.NDArray[Scalar] = codes * np.abs(codes)
    return values
