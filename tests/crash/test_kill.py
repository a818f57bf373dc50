"""kill -9 of a real server under 8 writers, again and again: nothing acknowledged is lost, nothing else appears.

Does not show: power loss. The page cache outlives a process, synced or not (see test_power_loss.py).
"""

import random
import threading
from collections.abc import Iterable
from pathlib import Path

import grpc
import numpy as np
import pytest

from memsvc.geometry import BLOCK_TOKENS
from protos.memsvc.v1 import block_pb2, graph_pb2, types_pb2
from tests.crash.volume import volume
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    served,
    step,
)

WRITERS = 8
# Cycles of one session; then each writer begins another one, so that recovery stays short.
CYCLES_A_SESSION = 20
# Acknowledgements of a cycle: the server is killed at one of these.
ACKS_MIN, ACKS_MAX = 8, 160
BATCH_STEPS = 3
STEP_TOKENS = 32


class Writer:
    """One writer over many lives of the server: what it sent and what was acknowledged."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.epoch = 0
        self.sent_steps = self.acked_steps = 0
        self.sent_blocks: set[int] = set()
        self.acked_blocks: set[int] = set()
        self._generator = random.Random(seed)

    def live(self, stubs: Stubs, acknowledged: threading.Semaphore) -> None:
        """Checks what the server recovered, and writes until the server is gone."""
        try:
            worker = Worker(stubs, self.name)
            worker.receive()
            if not self.epoch:
                created(stubs, self.name)
            opened = worker.open(self.name, self.name, resume_epoch=self.epoch)
            self._check(stubs, opened.applied_seq, opened.position, opened.stored_blocks)
            self.epoch = opened.epoch
            while True:
                self._step(worker, acknowledged)
                self._put(stubs, acknowledged)
        except (grpc.RpcError, StopIteration) as error:
            if isinstance(error, grpc.RpcError) and error.code() not in GONE:
                raise

    def _check(self, stubs: Stubs, applied: int, position: int, stored: Iterable[types_pb2.Range]) -> None:
        assert self.acked_steps <= applied <= self.sent_steps
        assert position == STEP_TOKENS * applied
        blocks = {block for own in stored for block in range(own.first, own.first + own.count)}
        assert self.acked_blocks <= blocks <= self.sent_blocks
        request = graph_pb2.ReadTokensRequest(session=self.name, positions=types_pb2.Range(first=0, count=position))
        if position:
            read = np.frombuffer(stubs.graph.ReadTokens(request, timeout=TIMEOUT_S).ids, dtype="<u4")
            np.testing.assert_array_equal(read, np.arange(position))
        if blocks:
            found: dict[int, bytes] = {}
            wanted = block_pb2.GetBlocksRequest(attachment=self.name, blocks=sorted(blocks))
            for piece in stubs.blocks.GetBlocks(wanted, timeout=TIMEOUT_S):
                found[piece.block] = found.get(piece.block, b"") + piece.chunk
            assert all(found[block] == block_data(block) for block in blocks)
        self.sent_steps = self.acked_steps = applied
        self.acked_blocks = blocks
        self.sent_blocks |= blocks

    def _step(self, worker: Worker, acknowledged: threading.Semaphore) -> None:
        count = self._generator.randint(1, BATCH_STEPS)
        steps = [
            step(self.name, self.epoch, seq, STEP_TOKENS * (seq - 1), STEP_TOKENS, durability=self._durability())
            for seq in range(self.acked_steps + 1, self.acked_steps + 1 + count)
        ]
        self.sent_steps = steps[-1].seq
        worker.steps(*steps)
        for own in steps:
            response = worker.receive()
            assert response.ack.seq == own.seq, response
            assert response.ack.durability == own.durability
            self.acked_steps = own.seq
            acknowledged.release()

    def _put(self, stubs: Stubs, acknowledged: threading.Semaphore) -> None:
        end = STEP_TOKENS * self.acked_steps // BLOCK_TOKENS
        blocks = [block for block in range(end) if block not in self.acked_blocks]
        self.sent_blocks |= set(blocks)
        requests = [
            put(self.name, self.epoch, block, block_data(block), durability=self._durability()) for block in blocks
        ]
        for response in stubs.blocks.PutBlocks(iter(requests), timeout=TIMEOUT_S):
            assert response.reason == "", response
            self.acked_blocks.add(response.block)
            acknowledged.release()

    def _durability(self) -> "types_pb2.Durability.ValueType":
        return self._generator.choice((types_pb2.DURABILITY_BUFFERED,) * 3 + (types_pb2.DURABILITY_SYNC,))


# What a call ends in when the server dies under it.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.timeout(14_400)
def test_a_killed_server_has_kept_what_it_acknowledged(tmp_path: Path) -> None:
    """Proves, over cycles of kill -9 at a random acknowledgement under 8 writers, that each resumes with all of its
    steps and blocks that were acknowledged, byte for byte, and with none that it did not send."""
    cycles = volume(10, 1000)
    generator = random.Random(6)
    steps = blocks = 0
    writers: list[Writer] = []
    for cycle in range(cycles):
        if cycle % CYCLES_A_SESSION == 0:
            steps += sum(writer.acked_steps for writer in writers)
            blocks += sum(len(writer.acked_blocks) for writer in writers)
            writers = [Writer(f"w{at}-{cycle}", 100 * cycle + at) for at in range(WRITERS)]
        with served(tmp_path) as server, connected(server.address) as stubs:
            _killed_under(server, stubs, writers, generator.randint(ACKS_MIN, ACKS_MAX))
    steps += sum(writer.acked_steps for writer in writers)
    blocks += sum(len(writer.acked_blocks) for writer in writers)
    # Without this much work the result says nothing.
    assert steps + blocks >= cycles * ACKS_MIN
    assert blocks >= cycles


def _killed_under(server: ServerProcess, stubs: Stubs, writers: list[Writer], acks: int) -> None:
    """Lets all write until so many acknowledgements came, and kills the server in the midst of it."""
    assert server.announced
    acknowledged, failures = threading.Semaphore(0), list[BaseException]()

    def live(writer: Writer) -> None:
        try:
            writer.live(stubs, acknowledged)
        except BaseException as error:
            failures.append(error)
            # Whoever counts must not wait for one that is out.
            acknowledged.release(acks)

    threads = [threading.Thread(target=live, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for _ in range(acks):
        assert acknowledged.acquire(timeout=TIMEOUT_S), failures
    server.process.kill()
    server.process.wait(TIMEOUT_S)
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert failures == []
