"""A real memory server in a child process, and a bare worker that speaks to it through the generated stubs."""

import contextlib
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos import codec
from protos.memsvc.v1 import (
    block_pb2,
    block_pb2_grpc,
    graph_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    types_pb2,
)

# Longer than anything here takes: a test that meets it has failed.
TIMEOUT_S = 30
DIMS = 8
BLOCK_BYTES = 3000


class ServerProcess:
    """`memsvc serve` on a Unix socket."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.address = f"unix://{folder}/socket"
        command = [
            sys.executable,
            "-m",
            "memsvc.cli",
            "serve",
            "--data",
            str(folder / "data"),
            "--listen",
            self.address,
        ]
        self.process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.announced = self.process.stdout.readline().strip()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def served(folder: Path, *arguments: str) -> Iterator[ServerProcess]:
    """A server that is gone afterwards, whatever happened."""
    server = ServerProcess(folder, *arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        for pipe in (server.process.stdin, server.process.stdout, server.process.stderr):
            assert pipe is not None
            pipe.close()


class Stubs:
    """Every service, on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.sessions = session_pb2_grpc.SessionServiceStub(channel)
        self.memory = memory_pb2_grpc.MemoryServiceStub(channel)
        self.blocks = block_pb2_grpc.BlockServiceStub(channel)
        self.graph = graph_pb2_grpc.GraphServiceStub(channel)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Stubs]:
    """Stubs on a channel of their own."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Stubs(channel)


class Worker:
    """One Attach stream, its first message sent."""

    def __init__(self, stubs: Stubs, name: str, first: memory_pb2.AttachRequest | None = None) -> None:
        self._stubs = stubs
        self.name = name
        self._requests: queue.SimpleQueue[memory_pb2.AttachRequest | None] = queue.SimpleQueue()
        self.responses = stubs.memory.Attach(iter(self._requests.get, None), timeout=TIMEOUT_S)
        hello = memory_pb2.Hello(protocol_version=1, worker=name)
        self.send(memory_pb2.AttachRequest(hello=hello) if first is None else first)

    def send(self, request: memory_pb2.AttachRequest) -> None:
        """Send a request."""
        self._requests.put(request)

    def steps(self, *steps: memory_pb2.Step) -> None:
        """Send steps in one batch."""
        self.send(memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=steps)))

    def receive(self) -> memory_pb2.AttachResponse:
        """The next response."""
        return next(self.responses)

    def open(self, session: str, attachment: str, **changed: object) -> session_pb2.OpenSessionResponse:
        """Open a session as its writer, or as `changed` says."""
        fields = {
            "session": session,
            "mode": session_pb2.OPEN_MODE_WRITER,
            "fingerprint": spec().fingerprint,
            "worker": self.name,
            "attachment": attachment,
            **changed,
        }
        return self._stubs.sessions.OpenSession(session_pb2.OpenSessionRequest(**fields), timeout=TIMEOUT_S)

    def hang_up(self) -> None:
        """Say that nothing more comes."""
        self._requests.put(None)

    def leave(self) -> None:
        """Say that nothing more comes, and wait for the server to end the stream."""
        self.hang_up()
        for _ in self.responses:
            pass


def spec(block_bytes: int = BLOCK_BYTES) -> types_pb2.SessionSpec:
    """A small session: one stream, every token a bookmark."""
    return types_pb2.SessionSpec(
        fingerprint=types_pb2.Fingerprint(
            model="a" * 64,
            tokenizer="b" * 64,
            memory_layers=[0, 1],
            dtype=types_pb2.ELEMENT_TYPE_BFLOAT16,
            rope="c" * 64,
            sink_tokens=64,
            window_tokens=64,
            chunk_tokens=64,
            budget_blocks=4,
            streams=[types_pb2.StreamSpec(name="probe", dims=DIMS)],
            block_bytes=block_bytes,
        ),
        policy=types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_EVERY),
        search=types_pb2.SearchSpec(
            finder=types_pb2.FINDER_KIND_FLAT,
            trail_blocks=4,
            trail_decay=0.95,
            trail_tokens=32,
            links_max=2,
            link_similarity_min=0.2,
            centring_tokens=64,
        ),
    )


def created(stubs: Stubs, name: str, block_bytes: int = BLOCK_BYTES) -> None:
    """Make a session."""
    request = session_pb2.CreateSessionRequest(name=name, spec=spec(block_bytes))
    stubs.sessions.CreateSession(request, timeout=TIMEOUT_S)


def step(attachment: str, epoch: int, seq: int, first: int, count: int = 64, **changed: object) -> memory_pb2.Step:
    """A step of `count` tokens; its numbers depend on the position only."""
    rows = np.random.default_rng(first).standard_normal((count, DIMS)).astype(np.float32)
    fields = {
        "attachment": attachment,
        "epoch": epoch,
        "seq": seq,
        "first_position": first,
        "count": count,
        "ids": np.arange(first, first + count, dtype="<u4").tobytes(),
        "embeddings": {"probe": codec.encode(rows)},
        "durability": types_pb2.DURABILITY_BUFFERED,
        **changed,
    }
    return memory_pb2.Step(**fields)


def recall(blocks_through: int, deadline_ms: int = 20_000) -> memory_pb2.RecallRequest:
    """Asks for blocks once those before `blocks_through` are there."""
    return memory_pb2.RecallRequest(
        top_blocks=2, neighbours=1, budget_blocks=4, deadline_ms=deadline_ms, blocks_through=blocks_through
    )


def block_data(block: int, size_bytes: int = BLOCK_BYTES) -> bytes:
    """Bytes of a block; random, and the same for the same block."""
    return np.random.default_rng(block).bytes(size_bytes)


def put(attachment: str, epoch: int, block: int, data: bytes, **changed: object) -> block_pb2.PutBlocksRequest:
    """A block in one piece."""
    fields = {
        "attachment": attachment,
        "epoch": epoch,
        "block": block,
        "crc32c": google_crc32c.value(data),
        "chunk": data,
        "durability": types_pb2.DURABILITY_BUFFERED,
        **changed,
    }
    if "slot" in fields:
        del fields["chunk"]
    return block_pb2.PutBlocksRequest(**fields)


def reason_of(error: grpc.RpcError) -> str:
    """Reason in the one ErrorInfo of an error, which comes first."""
    status = rpc_status.from_call(error)
    assert status is not None
    # What else there is says when to try again.
    detail, *_ = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info.domain == "memsvc"
    return info.reason
