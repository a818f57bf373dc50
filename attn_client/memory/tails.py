"""Cutting a tail: everything acknowledged first, gaps declared, then one durable call that outlives reconnects."""

import time

import numpy as np
import numpy.typing as npt

from attn_client.errors import MemoryRefused, MemoryUnavailable
from attn_client.memory.attachment import Attachment
from attn_client.memory.calls import Calls
from attn_client.memory.link import Link
from protos import codec
from protos.memsvc.v1 import session_pb2

TAIL_VERSION = 1

# Between two attempts at a call that is safe to repeat.
RETRY_PAUSE_S = 0.25


def cut_tail(
    link: Link,
    calls: Calls,
    attachment: Attachment,
    position: int,
    logits: npt.NDArray[np.float32] | None,
    last_id: int | None,
) -> None:
    """Wait until all of an attachment is acknowledged, then save its tail.

    Raises:
        MemoryUnavailable: Nothing was acknowledged for the stall timeout, or the server stayed away for as long.
        MemoryFailure: The attachment is lost, or the server refuses.
    """
    tail = session_pb2.Tail(version=TAIL_VERSION, position=position)
    if logits is not None:
        tail.logits.CopyFrom(codec.encode(logits.astype(np.float32, copy=False)))
    if last_id is not None:
        tail.last_id = last_id
    request = session_pb2.SaveTailRequest(attachment=attachment.opening.attachment, epoch=attachment.epoch, tail=tail)
    failed_at: float | None = None
    while True:
        generation = _await_all(link, attachment)
        try:
            calls.call(calls.sessions.SaveTail, request, f"save the tail of session {attachment.opening.session!r}")
        except MemoryRefused as error:
            # A server that was restarted knows an attachment once it is resumed.
            if error.reason != "ATTACHMENT_NOT_FOUND" or not _connection_broke(link, generation):
                raise
        except MemoryUnavailable:
            failed_at = time.monotonic() if failed_at is None else failed_at
            if time.monotonic() >= failed_at + link.outbox.stall_timeout_s:
                raise
            _await_return(link, attachment)
        else:
            return


def _await_all(link: Link, attachment: Attachment) -> int:
    """Everything acknowledged, every gap declared, and the attachment resumed on the newest connection: its number."""

    def settled() -> bool:
        if attachment.lost is None and attachment.has_undeclared and attachment.steps.idle and attachment.blocks.idle:
            attachment.declare_gaps()
            link.changed.notify_all()
        return attachment.lost is not None or (attachment.idle and link.up)

    with link.changed:
        link.outbox.wait_until(settled, f"session {attachment.opening.session!r} to be acknowledged")
        if attachment.lost is not None:
            raise attachment.lost
        return link.generation


def _connection_broke(link: Link, generation: int) -> bool:
    """Whether that connection is over, which may be noticed a moment after a call that met its successor."""
    with link.changed:
        return link.changed.wait_for(lambda: not link.up or link.generation != generation, RETRY_PAUSE_S)


def _await_return(link: Link, attachment: Attachment) -> None:
    """The call failed: its server has gone or is busy. Wait for the next connection, or a moment."""
    with link.changed:
        generation = link.generation
        link.changed.wait_for(
            lambda: (link.up and link.generation > generation) or attachment.lost is not None, RETRY_PAUSE_S
        )
