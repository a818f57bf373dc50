"""The Attach stream: steps out, acknowledgements and recalls in, and a new connection whenever one breaks.

    connect --Hello--> Welcome --> resume every attachment --> up: send and receive --> broken or drained
       ^                                                                                       |
       `---------------------------------------- pause ---------------------------------------'

One thread receives and reconnects; gRPC's own thread draws requests from `_requests` and so is the sender.

Invariants: steps go out only on a connection whose attachments are resumed; a refusal ends its attachment and no
other; only another protocol version, or credentials that never were let in, end the client.
"""

import threading
from collections.abc import Iterator

import grpc

from attn_client.errors import MemoryFailure, MemoryProtocol, MemoryRefused, MemoryUnavailable
from attn_client.memory.attachment import Attachment
from attn_client.memory.calls import Calls
from attn_client.memory.connection import Connection
from attn_client.memory.link import Link
from attn_client.memory.settings import ClientSettings
from attn_client.memory.statuses import failure_of
from attn_client.memory.wire import answer_of
from protos.memsvc.v1 import memory_pb2

PROTOCOL_VERSION = 1

# Refusals to resume that say nothing about the session: the stream that the server knows is not (yet) this one, or too
# many calls came at once.
_NOT_YET = frozenset({"WORKER_NOT_ATTACHED", "WORKER_REPLACED", "RATE_EXCEEDED"})

# Credentials that never let us in will not by trying again; those that did may be replaced while we try.
_NO_ENTRY = frozenset({"CREDENTIAL_MISSING", "CREDENTIAL_INVALID", "CREDENTIAL_EXPIRED", "SCOPE_MISSING"})


class AttachStream:
    """Keeps a client attached until it is closed.

    Args:
        worker: Id that every connection repeats.
        opening: Held while an attachment is being opened, so that a reconnect resumes it too or comes after it.
    """

    def __init__(
        self, link: Link, calls: Calls, settings: ClientSettings, worker: str, opening: threading.Lock
    ) -> None:
        self._link, self._calls, self._settings = link, calls, settings
        self._worker = worker
        self._opening = opening
        self._connection = Connection()
        self.last_error: MemoryFailure | None = None
        self._thread = threading.Thread(target=self._run, name="attn-attach", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the stream and its threads.

        Raises:
            MemoryUnavailable: A thread is still there after `timeout_s`.
        """
        with self._link.changed:
            self._link.close()
            self._connection.end()
        self._connection.join(self._thread, timeout_s)

    def _run(self) -> None:
        try:
            self._keep_attached()
        finally:
            with self._link.changed:
                if not self._link.closing and self._link.failure is None:
                    self._link.fail(MemoryUnavailable("expected a thread that receives, got one that ended"))

    def _keep_attached(self) -> None:
        pause_s = self._settings.reconnect_first_s
        while not self._link.closing:
            generation = self._link.generation
            failure: MemoryFailure | None = None
            try:
                self._connect()
            except grpc.RpcError as error:
                failure = failure_of(error, "attach", self._calls.address)
            except MemoryFailure as error:
                failure = error
            self.last_error = failure or self.last_error
            came_up = self._link.generation > generation
            pause_s = self._settings.reconnect_first_s if came_up else min(2 * pause_s, self._settings.reconnect_max_s)
            with self._link.changed:
                self._connection.ended = True
                self._link.went_down()
                if failure is not None and self._is_final(failure):
                    self._link.fail(failure)
                    return
                least_s = failure.retry_s if isinstance(failure, MemoryRefused) else 0.0
                self._link.changed.wait_for(lambda: self._link.closing, max(pause_s, least_s))

    def _is_final(self, failure: MemoryFailure) -> bool:
        """Whether trying again is of no use."""
        kept_out = isinstance(failure, MemoryRefused) and failure.reason in _NO_ENTRY
        return isinstance(failure, MemoryProtocol) or (kept_out and not self._link.generation)

    def _connect(self) -> None:
        connection = Connection()
        with self._link.changed:
            if self._link.closing:
                return
            self._connection = connection
            connection.call = call = self._calls.memory.Attach(self._requests(connection), wait_for_ready=True)
        responses = iter(call)
        welcome = self._welcomed(next(responses, None))
        with self._opening:
            with self._link.changed:
                self._link.begin(welcome)
                attachments = list(self._link.attachments.values())
            for attachment in attachments:
                self._resume(attachment)
            with self._link.changed:
                self._link.came_up(welcome)
        for response in responses:
            with self._link.changed:
                self._receive(response)

    def _welcomed(self, first: memory_pb2.AttachResponse | None) -> memory_pb2.Welcome:
        if first is None:
            raise MemoryUnavailable(f"expected a Welcome from {self._calls.address}, got the end of the stream")
        version = first.welcome.protocol_version
        if version != PROTOCOL_VERSION:
            raise MemoryProtocol(
                f"expected protocol version {PROTOCOL_VERSION} at {self._calls.address}, got {version}"
            )
        limits = (first.welcome.credit_tokens, first.welcome.step_tokens_max, first.welcome.message_bytes_max)
        if not all(limits):
            raise MemoryUnavailable(f"expected a Welcome with credit and limits above 0, got {limits}")
        return first.welcome

    def _resume(self, attachment: Attachment) -> None:
        if attachment.lost is not None:
            return
        try:
            opened = self._calls.open(attachment.opening, self._worker, attachment.epoch)
        except MemoryRefused as error:
            if error.reason in _NOT_YET:
                raise
            with self._link.changed:
                self._link.lose(attachment, error)
            return
        with self._link.changed:
            closed = attachment.opening.attachment not in self._link.attachments
            applied, why = attachment.resume(opened)
            self._link.free_steps(applied)
            if why is not None:
                self._link.lose(attachment, MemoryUnavailable(why))
        if closed:
            # Meanwhile; the server may have heard of that before it opened it again.
            self._calls.close_attachment(attachment.opening.attachment, 0.0)

    def _requests(self, connection: Connection) -> Iterator[memory_pb2.AttachRequest]:
        try:
            yield self._hello()
            while (request := self._next_request(connection)) is not None:
                yield request
        finally:
            connection.sender_left.set()

    def _hello(self) -> memory_pb2.AttachRequest:
        hello = memory_pb2.Hello(protocol_version=PROTOCOL_VERSION, worker=self._worker)
        arena = self._link.arena
        if arena is not None:
            hello.arena.name, hello.arena.size_bytes, hello.arena.nonce = arena.name, arena.size_bytes, arena.nonce
        return memory_pb2.AttachRequest(hello=hello)

    def _next_request(self, connection: Connection) -> memory_pb2.AttachRequest | None:
        """The next step, awaited; None when the connection has ended or is to end."""
        link = self._link
        with link.changed:
            while not connection.ended:
                step = link.take_step() if link.up else None
                if step is not None:
                    return step.request
                remaining_s = link.seconds_to_drain()
                if remaining_s is not None and remaining_s <= 0:
                    return None
                link.changed.wait(remaining_s)
        return None

    def _receive(self, response: memory_pb2.AttachResponse) -> None:
        link, kind = self._link, response.WhichOneof("message")
        link.heard()
        if kind == "drain":
            link.drain(response.drain.grace_ms / 1000)
            return
        message = response.ack if kind == "ack" else response.recall if kind == "recall" else response.fault
        attachment = link.attachments.get(message.attachment)
        if attachment is None:
            # Closed meanwhile.
            return
        seq = attachment.steps.ours(message.seq)
        if isinstance(message, memory_pb2.Ack):
            attachment.bookmarks = max(attachment.bookmarks, message.bookmarks)
            link.free_steps(attachment.steps.ack(message.seq))
        elif isinstance(message, memory_pb2.Recall):
            try:
                attachment.recalls.answer(seq, answer_of(message))
            except MemoryProtocol as error:
                attachment.recalls.refuse(seq, str(error))
        elif attachment.steps.is_acked(seq):
            attachment.recalls.refuse(seq, f"{message.reason}: {message.message}")
        else:
            link.lose(attachment, MemoryRefused(message.reason, f"step {seq} was refused: {message.message}"))
        link.changed.notify_all()
