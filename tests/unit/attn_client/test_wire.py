"""Links in what is asked of the server and in what it answers."""

import numpy as np
import pytest

from attn_client.errors import MemoryProtocol
from attn_client.memory import HopAsk, RecallAsk, StepRecord
from attn_client.memory.wire import answer_of, steps_of
from protos.memsvc.v1 import memory_pb2

WELCOME = memory_pb2.Welcome(message_bytes_max=1 << 20, step_tokens_max=4, credit_tokens=16)


def _asked(ask: RecallAsk) -> list[memory_pb2.Step]:
    record = StepRecord(64, np.arange(6, dtype=np.uint32), {}, {}, (64, 6), ask)
    return [pending.request.steps.steps[0] for pending in steps_of(record, WELCOME, sink_tokens=64)]


def test_hops_travel_with_the_last_step_of_a_record() -> None:
    """Proves that what is asked about links arrives, once, where a record takes several messages."""
    first, last = _asked(RecallAsk(8, 1, 24, 100, HopAsk(3, 4, 4096)))
    assert not first.HasField("recall")
    assert last.recall.hops == memory_pb2.HopRequest(hops=3, blocks=4, half_life_tokens=4096)


def test_without_hops_the_field_is_absent() -> None:
    """Proves that a server which knows no hops is asked as before."""
    assert not _asked(RecallAsk(8, 1, 24, 100))[-1].recall.HasField("hops")


def test_a_block_along_links_comes_with_its_path() -> None:
    """Proves that the hit and the bookmarks on the way are told."""
    recalled = memory_pb2.RecalledBlock(block=7, reached=memory_pb2.REACHED_HOP, via_block=3, path=[40, 22, 91])
    (block,) = answer_of(memory_pb2.Recall(blocks=[recalled])).blocks
    assert (block.reached, block.via, block.path) == ("hop", 3, (40, 22, 91))


def test_a_way_of_reaching_that_is_unknown_is_refused() -> None:
    """Proves that a newer server's answer is not taken for something else."""
    recalled = memory_pb2.RecalledBlock(block=7, reached=99)  # type: ignore[arg-type]
    with pytest.raises(MemoryProtocol, match="got 99"):
        answer_of(memory_pb2.Recall(blocks=[recalled]))
