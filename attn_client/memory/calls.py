"""The channels to a server and the calls with one answer, each with a deadline.

Steps have a channel of their own, so that blocks never delay them.
"""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import grpc

from attn_client.errors import InvalidSettings, MemoryUnavailable
from attn_client.memory.access import channel_to
from attn_client.memory.attachment import Opening
from attn_client.memory.faults import under
from attn_client.memory.settings import ClientSettings
from attn_client.memory.statuses import failure_of
from protos.faults import Faults
from protos.memsvc.v1 import block_pb2_grpc, graph_pb2_grpc, memory_pb2_grpc, session_pb2, session_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")

# Above what a server may agree to in Welcome, 64 MiB, and its envelope.
RECEIVE_BYTES_MAX = 65 << 20

# A server tolerates pings every 30 s; these only find out about a peer that vanished without a word.
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000


class Calls:
    """Two channels to one address, their stubs, and what a failed call raises.

    Args:
        address: `unix:///path` or `host:port`.
        settings: Of them, the deadline of a call that names none, and how to be let in.
        faults: What is to go wrong on purpose.

    Raises:
        InvalidSettings: The address, or a file of the settings.
    """

    def __init__(self, address: str, settings: ClientSettings, faults: Faults | None = None) -> None:
        if not address or any(character.isspace() for character in address):
            raise InvalidSettings(f"address: expected unix:///path or host:port, got {address!r}")
        self.address = address
        self.timeout_s = settings.call_timeout_s
        self._closed = False
        self._parting: set[object] = set()
        options = _options(settings.reconnect_max_s)
        self._channels = [under(channel_to(address, settings, options), faults) for _ in range(2)]
        self.memory = memory_pb2_grpc.MemoryServiceStub(self._channels[0])
        self.sessions = session_pb2_grpc.SessionServiceStub(self._channels[0])
        self.graph = graph_pb2_grpc.GraphServiceStub(self._channels[0])
        self.blocks = block_pb2_grpc.BlockServiceStub(self._channels[1])

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        doing: str,
        timeout_s: float | None = None,
    ) -> Response:
        """One call.

        Args:
            doing: What it attempts, for messages.

        Raises:
            MemoryFailure: By the status.
        """
        with self.failing(doing):
            return method(request, timeout=timeout_s if timeout_s is not None else self.timeout_s)

    @contextlib.contextmanager
    def failing(self, doing: str) -> Iterator[None]:
        """Around a call: what gRPC raises becomes a MemoryFailure."""
        try:
            yield
        except grpc.RpcError as error:
            raise failure_of(error, doing, self.address) from None
        except ValueError as error:
            if not self._closed:
                raise
            raise MemoryUnavailable(f"expected an open client to {doing}, got one that is closed: {error}") from None

    def open(self, opening: Opening, worker: str, resume_epoch: int) -> session_pb2.OpenSessionResponse:
        """Open an attachment, or the same one again."""
        request = session_pb2.OpenSessionRequest(
            session=opening.session,
            mode=opening.mode,
            fingerprint=opening.fingerprint,
            worker=worker,
            attachment=opening.attachment,
            resume_epoch=resume_epoch,
            snapshot=opening.snapshot,
        )
        return self.call(self.sessions.OpenSession, request, f"open session {opening.session!r}")

    def close_attachment(self, attachment: str, timeout_s: float) -> bool:
        """Tell the server that an attachment is over; it is told even if that takes it longer, while we are connected.

        Returns:
            Whether it said so within `timeout_s`. One that is gone ended the attachment with its worker's stream.

        Raises:
            MemoryFailure: It answered something else.
        """
        request = session_pb2.CloseAttachmentRequest(attachment=attachment)
        try:
            with self.failing("close a session"):
                call = self.sessions.CloseAttachment.future(request)
                # A call that nobody holds is cancelled.
                self._parting.add(call)
                call.add_done_callback(self._parting.discard)
                call.result(timeout_s)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError, MemoryUnavailable):
            return False
        return True

    def close(self) -> None:
        """Close both channels; calls that are open end with CANCELLED. Twice is fine."""
        self._closed = True
        for channel in self._channels:
            channel.close()


def _options(reconnect_max_s: float) -> list[tuple[str, int]]:
    return [
        # Otherwise both channels share one connection.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", int(reconnect_max_s * 1000)),
        # Memory servers are near; a proxy for the web is not the way to them.
        ("grpc.enable_http_proxy", 0),
    ]
