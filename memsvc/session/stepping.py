"""A step of an attachment, from the request to the bookmarks and the recall it asks for.

    the writer's    logged, then visible to everyone
    a view's        into its private trail, nothing else

Invariant: what is decoded and checked against the spec is done without the lock; what depends on the state, with it.
"""

import time

from memsvc.errors import InvalidRequest
from memsvc.session import writing
from memsvc.session.attachment import Attachment
from memsvc.session.core import SessionCore
from memsvc.session.recalls import PendingRecall, Seen, count_votes
from memsvc.session.steps import TokenStep, decode_step
from memsvc.shards.base import Int16Array
from memsvc.trail import Trail
from protos.memsvc.v1 import memory_pb2, types_pb2


def apply(core: SessionCore, attachment: Attachment, step: memory_pb2.Step) -> tuple[int, PendingRecall | None]:
    """Takes a step once. Returns the bookmarks there are then, and the recall if one was asked for."""
    with core.lock:
        core.require_attached(attachment, step.epoch)
        repeated = 1 <= step.seq <= attachment.applied_seq
    tokens = None if repeated else _decode(core, step)
    with core.lock:
        core.require_attached(attachment, step.epoch)
        if tokens is None:
            pending = core.remembered.pending(attachment.id, step.seq)
        else:
            pending = _apply(core, attachment, step, tokens)
        return attachment.view.cut.bookmarks if attachment.view else len(core.state.graph), pending


def _decode(core: SessionCore, step: memory_pb2.Step) -> TokenStep:
    decider = core.state.decider
    return decode_step(step, core.spec, decider.policy.signals, core.limits, needs_ids=decider.needs.ids)


def _apply(core: SessionCore, attachment: Attachment, step: memory_pb2.Step, tokens: TokenStep) -> PendingRecall | None:
    view = attachment.view
    if view is None:
        core.require_writable()
        core.require_held(step.epoch)
        state = core.state
        writing.check_order(step, attachment.applied_seq, state.tokens.position)
        writing.write_step(step, tokens, state, core.files, core.failing())
        trail, bookmarks, end = state.trail, len(state.graph), tokens.end
    else:
        state = view.state
        writing.check_order(step, attachment.applied_seq, view.position)
        if tokens.block_gaps:
            raise InvalidRequest(f"expected no block_gaps of view {attachment.id}, got {len(tokens.block_gaps)}")
        view.read(tokens)
        trail, bookmarks, end = view.trail, view.cut.bookmarks, view.cut.position
    attachment.applied_seq = step.seq
    if not step.HasField("recall"):
        return None
    deadline_s = time.monotonic() + _deadline_ms(step.recall, core) / 1000
    least = core.spec.search.link_similarity_min
    seen = Seen(state.blocks, state.graph, bookmarks, end, least, _rows_to_explain(core, trail))
    pending = count_votes(step, trail, state.search(bookmarks), seen, deadline_s)
    core.remembered.keep(pending)
    return pending


def _rows_to_explain(core: SessionCore, trail: Trail) -> dict[int, Int16Array]:
    if core.spec.search.link_search != types_pb2.LINK_SEARCH_WALK:
        return {}
    # Copies: a row keeps all of its step's in memory.
    return {position: row.copy() for position, row in trail.rows(core.spec.fingerprint.streams[0].name).items()}


def _deadline_ms(ask: memory_pb2.RecallRequest, core: SessionCore) -> int:
    longest = core.limits.recall_deadline_ms_max
    return min(ask.deadline_ms or longest, longest)
