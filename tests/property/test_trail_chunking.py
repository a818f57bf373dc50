"""Recalls do not depend on how tokens were split into steps, and equal the formula worked out slowly."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsvc.geometry import BLOCK_TOKENS
from memsvc.lattice import SCALE, centre_of, to_lattice
from protos.memsvc.v1 import memory_pb2, types_pb2
from tests.session_driver import POLICIES, Node, Reader, Text, memory_of, session_spec

TOKENS = 700
TEXT = Text(TOKENS)
# Tokens dropped before this position, and how many.
GAP_AT, GAP = 300, 20
# Recalls are asked as of these ends; the first comes before the centre is due.
ASKS = (90, 400, 401, 640, TOKENS)
ASK = memory_pb2.RecallRequest(top_blocks=3, neighbours=1, budget_blocks=6)
SPLITS = st.sets(st.integers(1, TOKENS), max_size=25)


def _read_in_steps(node: Node, ends: list[int], policy: str, centring_tokens: int) -> tuple[Reader, list[bytes]]:
    """Reads the text in steps that end there; returns the writer, and each recall as bytes, its seq set to 0."""
    node.create(session_spec(policy, centring_tokens))
    writer, recalls = node.open(), []
    for end in ends:
        if GAP_AT - GAP < end < GAP_AT:
            continue
        gap = GAP if writer.position == GAP_AT - GAP else 0
        pending = writer.send(TEXT, end, ASK if end in ASKS else None, gap)
        writer.put(range(len(writer.session.core.state.blocks), end // BLOCK_TOKENS))
        if pending is not None:
            recall = writer.session.recall(pending)
            recall.seq = 0
            recalls.append(recall.SerializeToString())
    return writer, recalls


def _ends(cuts: set[int]) -> list[int]:
    return sorted({*cuts, *ASKS, GAP_AT - GAP})


@pytest.mark.parametrize("policy", [*POLICIES])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=SPLITS, centring_tokens=st.sampled_from([10, 100, 500]))
def test_any_split_into_steps_gives_the_same_memory_and_recalls(
    policy: str, cuts: set[int], centring_tokens: int
) -> None:
    """Proves that bookmarks, links, trail and recalls are the same bit for bit for any split, across a gap too."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Node(Path(folder) / name) for name in ("whole", "split")]
        whole, split = (
            _read_in_steps(node, ends, policy, centring_tokens)
            for node, ends in zip(nodes, [_ends(set()), _ends(cuts)], strict=True)
        )
        assert memory_of(split[0].session) == memory_of(whole[0].session)
        assert split[1] == whole[1]
        for node in nodes:
            node.close()


def _slow_votes(
    spec: types_pb2.SessionSpec, positions: list[int], seen: list[int], asked_at: int, centring: int
) -> dict:
    """Sum of the contributions of each block, in order of token, stream and rank, by the formula of `memsvc.trail`."""
    search, mark = spec.search, spec.fingerprint
    rows = {}
    for name, bits in TEXT.rows.items():
        values = (bits.astype(np.uint32) << 16).view(np.float32)
        centre = centre_of(values[seen[:centring]])
        rows[name] = to_lattice(values, centre).astype(np.int64)
    scores: dict[int, float] = {}
    for token in [p for p in seen if asked_at - search.trail_tokens < p <= asked_at]:
        window = BLOCK_TOKENS * ((token + 1 - mark.window_tokens) // BLOCK_TOKENS)
        visible = [p for p in positions if mark.sink_tokens <= p < window]
        for stream in mark.streams:
            hits = {}
            for p in visible:
                dot = int(rows[stream.name][p] @ rows[stream.name][token])
                hits[p // BLOCK_TOKENS] = max(hits.get(p // BLOCK_TOKENS, (-(2**30), 0)), (dot, p))
            best = sorted(((*hit, block) for block, hit in hits.items()), reverse=True)[: search.trail_blocks]
            for dot, _, block in best:
                fading = search.trail_decay ** (asked_at - token) * (stream.weight or 1.0)
                vote = fading * (dot * (1.0 / SCALE**2) - best[-1][0] * (1.0 / SCALE**2))
                scores[block] = scores.get(block, 0.0) + vote
    return scores


@pytest.mark.parametrize("policy", [*POLICIES])
def test_a_recall_is_the_sum_that_the_formula_says(policy: str, tmp_path: Path) -> None:
    """Proves that the scores of recalls equal a direct, slow evaluation of the formula bit for bit."""
    node, spec = Node(tmp_path / "data"), session_spec(policy)
    writer, recalls = _read_in_steps(node, _ends({250}), policy, 100)
    positions = [bookmark.position for bookmark in writer.session.list_bookmarks(0, 10_000).bookmarks]
    seen = [p for p in range(TOKENS) if not GAP_AT - GAP <= p < GAP_AT]
    for packed in recalls:
        recall = memory_pb2.Recall.FromString(packed)
        end = recall.asked_at_position + 1
        scores = _slow_votes(spec, positions, seen, end - 1, min(100, ASKS[0]))
        candidates = range(1, max(1, (end - spec.fingerprint.window_tokens) // BLOCK_TOKENS))
        assert recall.candidates == len(candidates)
        expected = np.array([scores.get(block, 0.0) for block in candidates])
        assert {block.block: block.score for block in recall.blocks} == {
            block.block: scores.get(block.block, 0.0) for block in recall.blocks
        }
        if len(candidates):
            assert (recall.mean, recall.std) == (expected.mean(), expected.std())
            # Of equal scores the newer block is first.
            best = sorted(zip(expected.tolist(), candidates, strict=True), reverse=True)
            hits = [block.block for block in recall.blocks if block.reached != memory_pb2.REACHED_NEIGHBOUR]
            assert hits == [block for _, block in best[: ASK.top_blocks]]
    assert any(block.score > 0 for packed in recalls for block in memory_pb2.Recall.FromString(packed).blocks)
    assert len(recalls) == len(ASKS)
    node.close()
