"""Waiting for the server, never longer than told: for an answer, or for everything to be acknowledged.

After a wait that ran out the server counts as one that does not answer, until it says something again: later waits end
at once.
"""

from attn_client.errors import MemoryUnavailable
from attn_client.memory.attachment import Attachment
from attn_client.memory.link import Link
from attn_client.memory.records import RecallAnswer


def await_recall(
    link: Link, attachment: Attachment, seq: int, timeout_s: float, *, patient: bool
) -> RecallAnswer | None:
    """The answer to a step that asked. None: refused, not there in time, or nobody there to give it.

    Args:
        patient: Wait, too, while answers come later than the last wait for one was; else take what is there then.
    """
    recalls = attachment.recalls

    def over() -> bool:
        given_up = attachment.lost is not None or not link.answering or (recalls.late and not patient)
        return recalls.settled(seq) or given_up

    with link.changed:
        if not link.changed.wait_for(over, timeout_s):
            link.silent()
            recalls.ran_out(timeout_s)
        return recalls.take(seq)


def await_acknowledged(link: Link, attachment: Attachment, timeout_s: float) -> None:
    """Wait until all that was handed over is acknowledged; at most `timeout_s` without any acknowledgement."""

    def over() -> bool:
        acknowledged = attachment.steps.idle and attachment.blocks.idle
        return acknowledged or attachment.lost is not None or not link.answering

    with link.changed:
        try:
            link.outbox.wait_until(over, f"session {attachment.opening.session!r} to be acknowledged", timeout_s)
        except MemoryUnavailable:
            # The recall that is asked next says so.
            link.silent()
