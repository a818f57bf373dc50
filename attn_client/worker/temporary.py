"""Temporary sessions: what a long prompt without a session is read in, made for one request and deleted with it.

Invariant: none is made that the worker's credential could not delete. One is left behind, named `request-...`, only
where the worker is killed, or the memory server is away or fails when the request ends; nothing deletes it by itself.
"""

import contextlib
import logging
import uuid
from collections.abc import Iterator

from attn_client.errors import MemoryFailure, MemoryRefused
from attn_client.memory import MemoryClient, MemorySession
from attn_client.worker.failures import Failure, Refused
from protos.memsvc.v1 import types_pb2

TEMPORARY_PREFIX = "request-"

_LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def temporary(client: MemoryClient, spec: types_pb2.SessionSpec) -> Iterator[MemorySession]:
    """A new temporary session, opened by its writer; deleted only if the block fails. Else `discard` ends it.

    Raises:
        Refused: The credential may not delete sessions (403).
        MemoryFailure: It could not be made or opened.
    """
    name = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    _require_deletable(client, name)
    with contextlib.ExitStack() as undo:
        # Before it is made: a server can make one and fail to say so.
        undo.callback(_delete, client, name)
        client.create_session(name, spec)
        memory = client.open_writer(name, spec.fingerprint)
        undo.callback(memory.close)
        yield memory
        undo.pop_all()


def discard(client: MemoryClient, memory: MemorySession) -> None:
    """Close a temporary session and delete it, even if it does not close.

    Raises:
        MemoryFailure: It did not close; what the deletion meets is logged.
    """
    try:
        memory.close()
    finally:
        _delete(client, memory.info.name)


def _require_deletable(client: MemoryClient, name: str) -> None:
    """Ask to delete what is not there: who may not is refused for that, who may is told that it is not there."""
    try:
        client.delete_session(name)
    except MemoryRefused as error:
        if error.reason == "SESSION_NOT_FOUND":
            return
        if error.reason != "SCOPE_MISSING":
            raise
        message = (
            "session: expected a name, or a worker whose credential has the scope admin, which deletes the temporary "
            "session of a prompt this long, got none beside a credential without it"
        )
        raise Refused(Failure(403, "scope_missing", message, "session")) from None


def _delete(client: MemoryClient, name: str) -> None:
    try:
        client.delete_session(name)
    except MemoryFailure as error:
        # The answer stands without it.
        if not isinstance(error, MemoryRefused) or error.reason != "SESSION_NOT_FOUND":
            _LOGGER.warning("expected to delete temporary session %r, which stays behind, got: %s", name, error)
