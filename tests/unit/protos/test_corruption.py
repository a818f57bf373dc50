"""Messages with one value changed."""

import random

import numpy as np

from protos import codec
from protos.corruption import corrupted, fields_of
from protos.memsvc.v1 import block_pb2, memory_pb2, types_pb2

RECALL = memory_pb2.Recall(
    attachment="a",
    seq=7,
    asked_at_position=63,
    blocks=[memory_pb2.RecalledBlock(block=3, score=2.0, z=1.5, reached=memory_pb2.REACHED_TRAIL, path=[4, 5])],
    candidates=9,
)
BLOCK = block_pb2.GetBlocksResponse(block=5, crc32c=1234, chunk=b"\1\2\3\4")


def test_one_value_is_another_and_the_original_is_left_as_it_was() -> None:
    """Proves for many draws that what comes differs, and that what the sender keeps does not."""
    for message in (RECALL, BLOCK):
        before = message.SerializeToString(deterministic=True)
        for seed in range(200):
            changed = corrupted(message, random.Random(seed))
            assert changed.SerializeToString(deterministic=True) != before
        assert message.SerializeToString(deterministic=True) == before


def test_the_same_draw_changes_the_same() -> None:
    """Proves that a lie can be told again."""
    for seed in range(20):
        first, second = (corrupted(RECALL, random.Random(seed)) for _ in range(2))
        assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_named_field_is_the_one_that_changes() -> None:
    """Proves that a rule can say what is lied about, however deep it lies."""
    for seed in range(50):
        changed = corrupted(RECALL, random.Random(seed), "z")
        assert not -100 < changed.blocks[0].z < 100
        changed.blocks[0].z = RECALL.blocks[0].z
        assert changed == RECALL
    enumerated = corrupted(RECALL, random.Random(1), "reached")
    assert enumerated.blocks[0].reached not in memory_pb2.Reached.values()


def test_bytes_are_flipped_cut_and_grown() -> None:
    """Proves that wrong bytes and wrong sizes both come."""
    chunks = {corrupted(BLOCK, random.Random(seed), "chunk").chunk for seed in range(100)}
    assert BLOCK.chunk not in chunks
    assert {len(chunk) for chunk in chunks} == {0, 1, 2, 3, 4, 5}


def test_vectors_inside_a_map_are_reached() -> None:
    """Proves that embeddings, which lie in a map, can be damaged."""
    step = memory_pb2.Step(embeddings={"probe": codec.encode(np.ones((2, 4), np.float32))})
    batch = memory_pb2.StepBatch(steps=[step])
    changed = corrupted(batch, random.Random(3), "data")
    assert changed.steps[0].embeddings["probe"].data != step.embeddings["probe"].data


def test_a_message_without_such_a_value_comes_as_it_is() -> None:
    """Proves that nothing is made up where nothing is set."""
    assert corrupted(types_pb2.Range(), random.Random(1)) == types_pb2.Range()
    assert corrupted(BLOCK, random.Random(1), "partial_tokens") == BLOCK


def test_fields_of_messages_in_messages_are_known() -> None:
    """Proves what a rule may name."""
    assert fields_of(memory_pb2.Recall) >= {"attachment", "block", "z", "path", "candidates"}
    assert "blocks" not in fields_of(memory_pb2.Recall)
