"""From embeddings as they came to lattice vectors, and the newest of them.

    before centring     all tokens are held as they came
    at centring         the centre of each stream is the mean of the first `centring_tokens` held, or of all if fewer,
                        with what else the metric's scorer freezes; everything held is converted
    after               tokens are converted as they come

Invariant: a token's lattice vector depends on its embedding and the centre alone, so not on how tokens were split.
Must not know: bookmarks, logs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memsvc.lattice import Float64Array
from memsvc.policy import LOOKBACK_TOKENS
from memsvc.scoring import CosineScorer, Scorer
from memsvc.shards.base import Float32Array, Int16Array, Int64Array

# A decision may name a token this far back of the newest one fed, the newest one included.
RECENT_TOKENS = LOOKBACK_TOKENS + 1

Centre = Mapping[str, Float64Array]


@dataclass(frozen=True)
class TokenRows:
    """Lattice vectors of tokens.

    Args:
        positions: int64 [n], ascending.
        rows: By stream, int16 [n, dims].
    """

    positions: Int64Array
    rows: Mapping[str, Int16Array]

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, places: "Int64Array | slice") -> "TokenRows":
        """Those at these places, in their order."""
        return TokenRows(self.positions[places], {name: rows[places] for name, rows in self.rows.items()})

    def at(self, positions: Int64Array) -> "TokenRows":
        """Those of these positions, which are all there."""
        if len(positions) == len(self.positions) and np.array_equal(positions, self.positions):
            return self
        places = np.searchsorted(self.positions, positions)
        assert np.array_equal(self.positions[places], positions), "expected a vector of each position"
        return self.take(places)

    def newest(self, count: int) -> "TokenRows":
        """The last `count`, or all if fewer."""
        return self.take(slice(max(0, len(self) - count), None))

    def then(self, later: "TokenRows") -> "TokenRows":
        """These and later ones."""
        rows = {name: np.concatenate([own, later.rows[name]]) for name, own in self.rows.items()}
        return TokenRows(np.concatenate([self.positions, later.positions]), rows)


class Vectors:
    """The embeddings of one session on their way to lattice vectors.

    Args:
        dims: Of each stream, by name.
        centring_tokens: Tokens whose mean is the centre.
        scorer: Of the session's metric; cosine if None.

    Attributes:
        dims: As given.
        centre: By stream, what the scorer froze, float64; None before centring.
        recent: The newest RECENT_TOKENS tokens; none before centring.
    """

    def __init__(self, dims: Mapping[str, int], centring_tokens: int, scorer: Scorer | None = None) -> None:
        self.centre: Centre | None = None
        self.recent = _none_of(dims)
        self.dims = dict(dims)
        self._centring_tokens = centring_tokens
        self._scorer = scorer or CosineScorer()
        self._held: list[tuple[Int64Array, Mapping[str, Float32Array]]] = []

    @property
    def held(self) -> int:
        """Tokens that wait for the centre."""
        return sum(len(positions) for positions, _ in self._held)

    @property
    def due(self) -> bool:
        """Whether enough tokens are held for the centre."""
        return self.held >= self._centring_tokens

    def hold(self, first_position: int, embeddings: Mapping[str, Float32Array]) -> None:
        """Keeps tokens, [n, dims] by stream, as they came; before centring only."""
        assert self.centre is None
        count = len(next(iter(embeddings.values())))
        self._held.append((np.arange(first_position, first_position + count), embeddings))

    def centre_of_held(self) -> Centre:
        """The centre that what is held gives; at least one token is."""
        return {name: self._scorer.freeze(self._held_rows(name)[: self._centring_tokens]) for name in self.dims}

    def freeze(self, centre: Centre) -> TokenRows:
        """Fixes the centre; returns the vectors of everything that was held."""
        positions = np.concatenate([own for own, _ in self._held])
        rows = {name: self._scorer.to_lattice(self._held_rows(name), centre[name]) for name in self.dims}
        self.centre, self._held = centre, []
        return TokenRows(positions, rows)

    def convert(self, first_position: int, embeddings: Mapping[str, Float32Array]) -> TokenRows:
        """Vectors of tokens, [n, dims] by stream; after centring only."""
        assert self.centre is not None
        rows = {name: self._scorer.to_lattice(embeddings[name], own) for name, own in self.centre.items()}
        count = len(next(iter(rows.values())))
        return TokenRows(np.arange(first_position, first_position + count), rows)

    def remember(self, fresh: TokenRows) -> TokenRows:
        """Adds vectors of the newest tokens to `recent`; returns all there are: those before, then the fresh ones."""
        known = self.recent.then(fresh)
        self.recent = known.newest(RECENT_TOKENS)
        return known

    def _held_rows(self, name: str) -> Float32Array:
        return np.concatenate([rows[name] for _, rows in self._held])


def _none_of(dims: Mapping[str, int]) -> TokenRows:
    rows = {name: np.empty((0, width), dtype=np.int16) for name, width in dims.items()}
    return TokenRows(np.empty(0, dtype=np.int64), rows)
