"""How a full checkpoint of the dictionary by topic is divided: into halves that resemble themselves.

Invariants:
    Halves and directions are a function of the vectors in order, bit for bit: every comparison is of exact integers.
    Each part is smaller than the whole, equal vectors included.
Must not know: nodes, levels, searches.
"""

import numpy as np

from memsvc.lattice import similarities, to_lattice
from memsvc.shards.base import Float32Array, Int16Array, Int64Array

# Rounds of two means; a third one moves fewer than one vector in a hundred of SmolLM2's.
_ROUNDS = 3
# A half with less than this share of the vectors is no half: they are cut in the middle instead.
_LEAST_SHARE = 8


def direction_of(rows: Int16Array) -> Int16Array:
    """Where the mean of lattice vectors points, as a lattice vector, [n, dims] to [dims]."""
    total = rows.sum(axis=0, dtype=np.int64).astype(np.float32)
    direction: Int16Array = to_lattice(total[None], np.zeros(rows.shape[1]))[0]
    return direction


def divided(rows: Int16Array, most: int) -> list[Int64Array]:
    """Parts of at most `most` vectors each, as places in `rows`, [n, dims]; n above `most`, which is at least 8."""
    parts: list[Int64Array] = []
    waiting = [np.arange(len(rows))]
    while waiting:
        part = waiting.pop()
        if len(part) <= most:
            parts.append(part)
            continue
        second = _second_half(rows[part])
        waiting += [part[second], part[~second]]
    return parts


def _second_half(rows: Int16Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which vectors are in the second of two halves, [n]."""
    wide = rows.astype(np.float32)
    # The two ends: what is least like the mean, and what is least like that.
    first = wide[similarities(direction_of(rows)[None], wide)[0].argmin()]
    second = wide[(wide @ first).argmin()]
    ends = np.stack([first, second]).astype(np.int16)
    lead = _lead(ends, wide)
    for _ in range(_ROUNDS):
        side = lead > 0
        if side.all() or not side.any():
            break
        ends = np.stack([direction_of(rows[~side]), direction_of(rows[side])])
        lead = _lead(ends, wide)
    side = lead > 0
    least = len(rows) // _LEAST_SHARE
    if least <= np.count_nonzero(side) <= len(rows) - least:
        return side
    side[:] = False
    side[np.argsort(lead, kind="stable")[len(rows) // 2 :]] = True
    return side


def _lead(ends: Int16Array, wide: Float32Array) -> Float32Array:
    """How far each vector is nearer to the second end, [n]."""
    dots = similarities(ends, wide)
    lead: Float32Array = dots[1] - dots[0]
    return lead
