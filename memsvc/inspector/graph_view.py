"""The graph around some bookmarks, and a first place for each node.

Chains lie like seeds of a sunflower, the largest in the middle; their bookmarks around each one's centre, oldest first.
Pages may move the nodes from there.

Must not know: HTTP, templates.
"""

import math

import numpy as np

from memsvc.inspector import rows, timeline
from memsvc.inspector.door import Reader
from memsvc.inspector.shapes import NODES_MAX, EdgeColumns, GraphView, NodeColumns
from memsvc.inspector.views import node_columns, session_of
from memsvc.session.overview import BookmarkColumns, columns_of
from memsvc.shards.base import Float32Array, Int64Array

# Angle from one seed of a sunflower to the next.
_GOLDEN = math.pi * (3 - math.sqrt(5))
# Chains that a graph begins with where no seeds are named.
SEED_CHAINS = 24
# Chains that are labelled, and tokens of a label.
LABELS = 12
LABEL_TOKENS = 4


async def graph_view(reader: Reader, name: str, seeds: list[int], hops: int, weight_min: float, most: int) -> GraphView:
    """Bookmarks within some hops of the seeds; of the largest chains' newest ones if there are none.

    Args:
        weight_min: Links below it are left out, but followed all the same.
        most: Nodes at most.
    """
    session = await session_of(reader, name)
    columns = await reader.on_session(name, columns_of)
    begin = seeds or await reader.door.run(lambda: largest_heads(columns.chains))
    around = await reader.around(name, begin, hops, min(most, NODES_MAX))
    chosen = np.array(sorted(own.index for own in around.bookmarks), dtype=np.int64)

    def draw() -> tuple[NodeColumns, EdgeColumns, Float32Array]:
        height = timeline.heights(columns.chains)
        nodes = node_columns(columns, height, chosen)
        return nodes, edges_between(columns, chosen, weight_min), places(columns.chains[chosen])

    nodes, edges, at = await reader.door.run(draw)
    return GraphView(
        session=session,
        seeds=seeds,
        hops=hops,
        weight_min=weight_min,
        nodes=nodes,
        x=at[:, 0].tolist(),
        y=at[:, 1].tolist(),
        edges=edges,
        label=await _labels(reader, name, columns, columns.chains[chosen]),
        full=len(chosen) >= min(most, NODES_MAX),
        most=most,
    )


def largest_heads(chains: Int64Array) -> list[int]:
    """The newest bookmark of each of the largest chains, by the chain of each bookmark, [n]."""
    _, newest, counts = np.unique(chains[::-1], return_index=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:SEED_CHAINS]
    heads: list[int] = (len(chains) - 1 - newest[largest]).tolist()
    return heads


def edges_between(columns: BookmarkColumns, chosen: Int64Array, weight_min: float) -> EdgeColumns:
    """Links of which both ends are among the chosen, [n] ascending."""
    parents, weights = columns.parents[chosen], columns.weights[chosen]
    known = np.searchsorted(chosen, parents)
    inside = (parents >= 0) & (weights >= weight_min)
    inside &= chosen[np.minimum(known, len(chosen) - 1)] == parents if len(chosen) else False
    child, slot = np.nonzero(inside)
    return EdgeColumns(
        source=chosen[child].tolist(),
        target=parents[child, slot].tolist(),
        weight=np.round(weights[child, slot].astype(np.float64), 4).tolist(),
    )


def places(chains: Int64Array) -> Float32Array:
    """A place for each of some bookmarks in order, by their chains, [n] to [n, 2]."""
    _, inverse, counts = np.unique(chains, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    # The area that the chains before it take, in nodes: each stands clear of the next.
    before = np.cumsum(np.concatenate([[0], counts[order]]))[:-1] + counts[order] / 2
    spread = 1.9 * np.sqrt(before + 2.0 * np.arange(len(order)))
    centres = np.stack(
        [spread * np.cos(_GOLDEN * np.arange(len(order))), spread * np.sin(_GOLDEN * np.arange(len(order)))], 1
    )
    own = timeline.places_in_chains(np.asarray(inverse, dtype=np.int64))
    radius = 0.85 * np.sqrt(own)
    offsets = np.stack([radius * np.cos(_GOLDEN * own), radius * np.sin(_GOLDEN * own)], 1)
    found: Float32Array = (centres[rank[inverse]] + offsets).astype(np.float32)
    return found


async def _labels(reader: Reader, name: str, columns: BookmarkColumns, chains: Int64Array) -> dict[str, str]:
    """How the largest of some chains begin."""
    known, counts = np.unique(chains, return_counts=True)
    largest = known[np.argsort(-counts, kind="stable")[:LABELS]]
    labels = {}
    for chain in largest.tolist():
        begin = int(columns.positions[np.argmax(columns.chains == chain)])
        tokens = rows.tokens_of(await reader.tokens(name, begin, LABEL_TOKENS))
        if tokens and all(own.text is not None for own in tokens):
            labels[str(chain)] = "".join(own.text or "" for own in tokens).strip()
    return labels
