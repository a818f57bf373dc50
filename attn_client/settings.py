"""Settings of the model side: defaults, and the ranges that are checked when a record is made.

Invariants:
    A default of a field stands here and nowhere else. Settings of the connection are in `attn_client.memory.settings`.
    A value out of range is an InvalidSettings that names field, range and value. What depends on the model (its layers,
    its trained length, its device) is checked when it is attached.

The default window is short, 512 tokens, because that reads facts best (docs/LOG.md, feasibility study).
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from attn_client.errors import InvalidSettings

BLOCK_TOKENS = 64
FINDERS = ("flat", "hnsw", "faiss", "walk", "dictionary", "auto", "faiss_gpu")
LINK_SEARCHES = ("finder", "walk")
# Policies that `hybrid` can weigh.
WEIGHTED_POLICIES = ("surprisal", "relevance", "novelty", "distance", "topic_shift", "attention", "rarity")
POLICIES = ("every", "fixed", *WEIGHTED_POLICIES, "hybrid")
METRICS = ("cosine", "dot", "pearson")
# Least coverage: a block has one bookmark in any case.
COVERAGE_MIN = 0.02
# Largest values of whole numbers that a memory server takes; each is at least 1.
BOOKMARK_COUNTS_MAX = {
    "every_tokens": 2**31 - 1,
    "trail_blocks": 4096,
    "trail_tokens": 4096,
    "links_max": 64,
    "centring_tokens": 65536,
}
# Largest values of other whole numbers that a memory server takes; each is at least 0.
INDEX_EVERY_TOKENS_MAX = 65536
HOPS_MAX = 16
LINK_HALF_LIFE_TOKENS_MAX = 2**40


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise InvalidSettings(f"{name}: expected {expected}, got {came!r}")


class Implementation(StrEnum):
    """How attention is computed. Always chosen, never fallen back to."""

    SDPA = "sdpa"
    REFERENCE = "reference"
    FUSED = "fused"


@dataclass(frozen=True)
class WindowSettings:
    """What stays on the device whatever is recalled. All in tokens."""

    sink_tokens: int = 64
    window_tokens: int = 512
    chunk_tokens: int = 256

    def __post_init__(self) -> None:
        whole = self.sink_tokens > 0 and self.sink_tokens % BLOCK_TOKENS == 0
        _require(whole, "window.sink_tokens", f"a positive multiple of {BLOCK_TOKENS}", self.sink_tokens)
        whole = self.window_tokens > 0 and self.window_tokens % BLOCK_TOKENS == 0
        _require(whole, "window.window_tokens", f"a positive multiple of {BLOCK_TOKENS}", self.window_tokens)
        _require(1 <= self.chunk_tokens <= 4096, "window.chunk_tokens", "1 to 4096", self.chunk_tokens)


@dataclass(frozen=True)
class RecallSettings:
    """How much is recalled, how it weighs, and how long a step may wait for it.

    `hops` links at most are followed from a hit (0: none), to `hop_blocks` blocks at most in place of neighbours;
    a link's weight halves in `link_half_life_tokens` (0: never).
    """

    top_blocks: int = 8
    neighbours: int = 1
    budget_blocks: int = 24
    alpha: float = 1.0
    lift: float = 2.0
    lag_tokens: int = 2
    timeout_s: float = 2.0
    while_reading: bool = False
    positions: Literal["packed", "true"] = "packed"
    hops: int = 0
    hop_blocks: int = 4
    link_half_life_tokens: int = 0

    def __post_init__(self) -> None:
        _require(1 <= self.top_blocks <= 4096, "recall.top_blocks", "1 to 4096", self.top_blocks)
        _require(0 <= self.neighbours <= 8, "recall.neighbours", "0 to 8", self.neighbours)
        enough = self.top_blocks <= self.budget_blocks <= 4096
        _require(enough, "recall.budget_blocks", f"{self.top_blocks} (top_blocks) to 4096", self.budget_blocks)
        _require(0.0 <= self.alpha <= 100.0, "recall.alpha", "0 to 100", self.alpha)
        _require(0.0 <= self.lift <= 100.0, "recall.lift", "0 to 100", self.lift)
        _require(0 <= self.lag_tokens <= 64, "recall.lag_tokens", "0 to 64", self.lag_tokens)
        _require(0.0 < self.timeout_s <= 600.0, "recall.timeout_s", "above 0, at most 600", self.timeout_s)
        _require(self.positions in ("packed", "true"), "recall.positions", "'packed' or 'true'", self.positions)
        self._check_hops()

    def _check_hops(self) -> None:
        _require(0 <= self.hops <= HOPS_MAX, "recall.hops", f"0 to {HOPS_MAX}", self.hops)
        # Hops take the place of hits, so there are no more of them; without hops the field says nothing.
        most = self.top_blocks if self.hops else 4096
        _require(1 <= self.hop_blocks <= most, "recall.hop_blocks", f"1 to {most}", self.hop_blocks)
        half_life, longest = self.link_half_life_tokens, LINK_HALF_LIFE_TOKENS_MAX
        _require(0 <= half_life <= longest, "recall.link_half_life_tokens", f"0 to {longest}", half_life)


@dataclass(frozen=True)
class ProbeSettings:
    """Which vectors leave the model, which layers see what is recalled, and what makes a token salient.

    `salience_vocabulary` is the number of most frequent token ids that surprisal is normalised over (0: all of them).
    `mass_layer` is where attention mass is taken (None: at two fifths of the depth, `mass_layer_of`).
    """

    layer: int = 6
    memory_layers: tuple[int, ...] | None = None
    salience_vocabulary: int = 8192
    mass_layer: int | None = None

    def mass_layer_of(self, layers: int) -> int:
        """Layer of a model of so many layers in which attention mass is taken.

        At the demo model's probe layer, 6 of 30, mass marks function words; at 12 it marks facts best (docs/LOG.md).
        """
        return 2 * layers // 5 if self.mass_layer is None else self.mass_layer

    def __post_init__(self) -> None:
        _require(self.layer >= 0, "probe.layer", "0 or more", self.layer)
        layers = self.memory_layers
        ascending = layers is None or (len(layers) > 0 and list(layers) == sorted(set(layers)) and layers[0] >= 0)
        _require(ascending, "probe.memory_layers", "layer numbers, ascending, or None for all", layers)
        _require(self.salience_vocabulary >= 0, "probe.salience_vocabulary", "0 or more", self.salience_vocabulary)
        _require(self.mass_layer is None or self.mass_layer >= 0, "probe.mass_layer", "0 or more", self.mass_layer)


@dataclass(frozen=True)
class BookmarkSettings:
    """How the memory server makes, links and searches bookmarks, and whether it keeps text; fixed with a session."""

    policy: str = "surprisal"
    coverage: float = 0.19
    every_tokens: int = 10
    finder: Literal["flat", "hnsw", "faiss", "walk", "dictionary", "auto", "faiss_gpu"] = "auto"
    trail_blocks: int = 16
    trail_decay: float = 0.95
    trail_tokens: int = 128
    links_max: int = 16
    link_similarity_min: float = 0.4
    centring_tokens: int = 4096
    metric: Literal["cosine", "dot", "pearson"] = "cosine"
    hybrid_weights: tuple[tuple[str, float], ...] = (("surprisal", 2.0), ("rarity", 1.0))
    link_search: Literal["finder", "walk"] = "finder"
    index_every_tokens: int = 0
    keep_text: bool = False

    def __post_init__(self) -> None:
        _require(self.policy in POLICIES, "bookmarks.policy", f"one of {', '.join(POLICIES)}", self.policy)
        _require(self.metric in METRICS, "bookmarks.metric", f"one of {', '.join(METRICS)}", self.metric)
        found = self.finder in FINDERS
        _require(found, "bookmarks.finder", f"one of {', '.join(FINDERS)}", self.finder)
        within = COVERAGE_MIN <= self.coverage <= 1.0
        _require(within, "bookmarks.coverage", f"{COVERAGE_MIN} to 1", self.coverage)
        self._check_search()
        names = [name for name, _ in self.hybrid_weights]
        known = 0 < len(names) == len(set(names)) and set(names) <= set(WEIGHTED_POLICIES)
        positive = all(0.0 < weight < math.inf for _, weight in self.hybrid_weights)
        expected = f"weights above 0 of different ones of {', '.join(WEIGHTED_POLICIES)}"
        _require(known and positive, "bookmarks.hybrid_weights", expected, self.hybrid_weights)

    def _check_search(self) -> None:
        for name, most in BOOKMARK_COUNTS_MAX.items():
            value = getattr(self, name)
            _require(1 <= value <= most, f"bookmarks.{name}", f"1 to {most}", value)
        _require(0.0 < self.trail_decay < 1.0, "bookmarks.trail_decay", "above 0, below 1", self.trail_decay)
        least = self.link_similarity_min
        _require(-1.0 <= least <= 1.0, "bookmarks.link_similarity_min", "-1 to 1", least)
        known = self.link_search in LINK_SEARCHES
        _require(known, "bookmarks.link_search", f"one of {', '.join(LINK_SEARCHES)}", self.link_search)
        every, most = self.index_every_tokens, INDEX_EVERY_TOKENS_MAX
        _require(0 <= every <= most, "bookmarks.index_every_tokens", f"0 (server's default) to {most}", every)


@dataclass(frozen=True)
class Settings:
    """All of the above. `implementation` is how attention is computed."""

    window: WindowSettings = field(default_factory=WindowSettings)
    recall: RecallSettings = field(default_factory=RecallSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    bookmarks: BookmarkSettings = field(default_factory=BookmarkSettings)
    implementation: Implementation = Implementation.SDPA

    @property
    def packed_tokens_max(self) -> int:
        """Longest packed context: sinks, all recalled blocks, a full window and a chunk."""
        window = self.window.window_tokens + BLOCK_TOKENS - 1
        recalled = self.recall.budget_blocks * BLOCK_TOKENS
        return self.window.sink_tokens + recalled + window + self.window.chunk_tokens
