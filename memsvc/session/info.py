"""A session in figures."""

from memsvc.session.core import SessionCore
from memsvc.session.ranges import to_wire
from protos.memsvc.v1 import types_pb2


def describe(core: SessionCore) -> types_pb2.SessionInfo:
    """The session as it is now. Called under its lock."""
    state, writer = core.state, core.writer
    status, fork = state.links.status(), core.lineage.fork
    if core.files.damage:
        status = f"{status}; damaged: {core.files.damage}"
    return types_pb2.SessionInfo(
        name=core.entry.name,
        spec=core.spec,
        tokens=state.tokens.received,
        tail_position=state.cut.position,
        bookmarks=len(state.graph),
        chains=state.graph.chains.count(),
        links=state.graph.link_count(),
        blocks=len(state.blocks),
        stored_bytes=core.files.stored_bytes,
        epoch=core.epoch,
        writer=writer.worker if writer is not None and not writer.lost else "",
        token_gaps=to_wire(state.tokens.gaps),
        block_gaps=to_wire(state.blocks.gaps),
        created_unix_ms=core.entry.created_unix_ms,
        finder_status=f"{status}; takes no writes: {core.failure}" if core.failure else status,
        id=core.entry.id,
        parent_id=fork.parent if fork else "",
        fork_position=fork.position if fork else 0,
        snapshots=len(core.lineage),
    )
