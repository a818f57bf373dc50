"""Metrics: what a session means by similarity. A scorer turns embeddings into lattice vectors whose dot product is it.

    cosine     centred, normalised
    pearson    centred, then each vector's own mean taken off, normalised
    dot        centred, over the largest length among the tokens that made the centre; a longer one counts as that long

Everything after this, finders included, takes dot products of lattice vectors and knows no metric.

Invariants:
    A lattice vector depends on its own row and on what was frozen, bit for bit.
    Its length is at most that of `memsvc.lattice`, so similarities stay exact integers, within [-1, 1].
"""

from typing import Protocol

import numpy as np

from memsvc.errors import InvalidRequest
from memsvc.lattice import (
    Float32Array,
    Float64Array,
    Int16Array,
    centre_of,
    lengths_of,
    normalised,
    row_sums,
    to_lattice,
)
from protos.memsvc.v1 import types_pb2 as wire


class Scorer(Protocol):
    """One metric."""

    def frozen_size(self, dims: int) -> int:
        """Numbers that `freeze` gives for a stream of so many dimensions."""

    def freeze(self, rows: Float32Array) -> Float64Array:
        """What is fixed by the first tokens of a stream, [n, dims] to [frozen_size]; n is at least 1."""

    def to_lattice(self, rows: Float32Array, frozen: Float64Array) -> Int16Array:
        """Lattice vectors, [n, dims] to [n, dims]."""


class CosineScorer:
    """Cosine about the centre."""

    def frozen_size(self, dims: int) -> int:
        """The centre."""
        return dims

    def freeze(self, rows: Float32Array) -> Float64Array:
        """The mean."""
        return centre_of(rows)

    def to_lattice(self, rows: Float32Array, frozen: Float64Array) -> Int16Array:
        """Centred and normalised."""
        return to_lattice(rows, frozen)


class PearsonScorer(CosineScorer):
    """Pearson correlation of what differs from the centre."""

    def to_lattice(self, rows: Float32Array, frozen: Float64Array) -> Int16Array:
        """Centred twice, over tokens and over dimensions, and normalised."""
        return to_lattice(
            rows, frozen, lambda offsets: normalised(offsets - row_sums(offsets)[:, None] / rows.shape[1])
        )


class DotScorer:
    """Dot product about the centre, in units of the square of the largest length at the time of centring."""

    def frozen_size(self, dims: int) -> int:
        """The centre and the length."""
        return dims + 1

    def freeze(self, rows: Float32Array) -> Float64Array:
        """The mean, then the largest distance from it."""
        centre = centre_of(rows)
        return np.append(centre, lengths_of(rows - centre).max())

    def to_lattice(self, rows: Float32Array, frozen: Float64Array) -> Int16Array:
        """Centred and scaled; what is longer than the frozen length is shortened to it."""
        longest = frozen[-1]

        def scaled(offsets: Float64Array) -> Float64Array:
            lengths = np.maximum(lengths_of(offsets), longest)
            shortened: Float64Array = offsets / np.where(lengths > 0, lengths, 1.0)[:, None]
            return shortened

        return to_lattice(rows, frozen[:-1], scaled)


def make_scorer(metric: wire.Metric.ValueType) -> Scorer:
    """The scorer of a spec's metric; cosine where none is named.

    Raises:
        InvalidRequest: The metric is unknown.
    """
    if metric in (wire.METRIC_UNSPECIFIED, wire.METRIC_COSINE):
        return CosineScorer()
    if metric == wire.METRIC_DOT:
        return DotScorer()
    if metric == wire.METRIC_PEARSON:
        return PearsonScorer()
    raise InvalidRequest(f"expected search.metric to be one of COSINE, DOT, PEARSON, got {metric}")
