"""The arithmetic of a timeline: parts of a range, checkpoints by height, which bookmarks to show.

    height 3   .               .            each height keeps every 8th of the one below
    height 2   .       .       .
    height 1   .   .   .   .   .   .        checkpoints: every 16th bookmark of its chain
    height 0   . . . . . . . . . . . .      bookmarks

Checkpoints stand where `memsvc.dictionary` sets them in chains by count, with its default settings.

Must not know: sessions, HTTP.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from memsvc.dictionary.settings import DictionarySettings
from memsvc.geometry import BLOCK_TOKENS
from memsvc.inspector.shapes import Bins
from memsvc.shards.base import Int64Array

# Heights that are told apart; a chain would need 16 * 8^7 bookmarks for one more.
HEIGHTS_MAX = 8


def checkpoints_every() -> list[int]:
    """Bookmarks of a chain from one checkpoint to the next, by height from 1 on."""
    settings = DictionarySettings()
    return [settings.every * settings.skip**level for level in range(HEIGHTS_MAX)]


def places_in_chains(chains: Int64Array) -> Int64Array:
    """Place of each bookmark in its chain, from 0, [n]."""
    order = np.argsort(chains, kind="stable")
    ordered = chains[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(begins, append=len(ordered))
    places = np.empty(len(chains), dtype=np.int64)
    places[order] = np.arange(len(ordered)) - np.repeat(begins, lengths)
    return places


def heights(chains: Int64Array) -> Int64Array:
    """Height of each bookmark, [n].

    A checkpoint's level counts only where its chain has a second one there: else every chain's first bookmark would
    stand above all.
    """
    places = places_in_chains(chains)
    lengths = np.bincount(chains) if len(chains) else np.empty(0, dtype=np.int64)
    found = np.zeros(len(chains), dtype=np.int64)
    for height, every in enumerate(checkpoints_every(), start=1):
        found[(places % every == 0) & (lengths[chains] > every)] = height
    return found


def children_counts(parents: Int64Array) -> Int64Array:
    """How many bookmarks link to each, [n], from parents, [n, links_max]; -1 is none."""
    return np.bincount(parents[parents >= 0], minlength=len(parents))


def shown(positions: Int64Array, height: Int64Array, first: int, end: int, most: int) -> tuple[Int64Array, int]:
    """Bookmarks of a range to show, and the least height among them: the lowest at which they are at most `most`.

    Where even the highest are too many, evenly spaced ones of them.
    """
    low, high = np.searchsorted(positions, [first, end]).tolist()
    own = height[low:high]
    counts = np.bincount(own, minlength=HEIGHTS_MAX + 1)[::-1].cumsum()[::-1]
    least = next((at for at, count in enumerate(counts.tolist()) if count <= most), HEIGHTS_MAX)
    # A level that is empty shows nothing: then the lowest that has any, thinned out.
    while least > 0 and counts[least] == 0:
        least -= 1
    chosen = low + np.flatnonzero(own >= least)
    if len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(np.int64)]
    return chosen, least


def binned(positions: Int64Array, first: int, end: int, most: int, recalls: Iterable[Sequence[int]]) -> Bins:
    """A range in at most `most` equal parts.

    Args:
        positions: Of all bookmarks, [n], ascending.
        recalls: Blocks of each.
    """
    size = max(1, -(-(end - first) // most))
    parts = max(1, -(-(end - first) // size))
    edges = first + size * np.arange(parts + 1)
    counts = np.diff(np.searchsorted(positions, edges))
    heat = np.zeros(parts + 1, dtype=np.int64)
    for blocks in recalls:
        begin = BLOCK_TOKENS * np.asarray(blocks, dtype=np.int64)
        for start, stop in zip(begin.tolist(), (begin + BLOCK_TOKENS).tolist(), strict=True):
            if stop > first and start < end:
                low, high = max(0, (start - first) // size), min(parts, -(-(stop - first) // size))
                heat[low] += 1
                heat[high] -= 1
    return Bins(first, size, counts.tolist(), heat.cumsum()[:-1].tolist())
