"""Names on the wire and in the node: whatever a caller names lies in its tenant's own space.

    a caller says         the node knows            of
    notes                 acme/notes                a session
    worker-1              acme/worker-1             a worker or attachment whose credential may write
    worker-1              acme/ro/worker-1          a worker or attachment whose credential may not: views only

Invariants:
    No name of a caller can reach into another space: it has no "/", and the space is put before it here.
    No name of another space leaves: a message that bears one is not sent.
    Every text field of the protocol is in one of the two tables.

On a server without credentials names are as they come, and a session of a tenant is TENANT/NAME.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from memsvc.auth.caller import Caller, Scope
from memsvc.errors import InvalidRequest

# Between a tenant and a name; no name of a caller has it.
SEPARATOR = "/"
_READ_ONLY = "ro"
PACKAGE = "protos.memsvc.v1."


class Named(enum.Enum):
    """What a text field names."""

    # A session that is to be made.
    MADE = enum.auto()
    # A session as it is to be called.
    NEW = enum.auto()
    SESSION = enum.auto()
    # A session to list on from, or none.
    CURSOR = enum.auto()
    # A worker or an attachment.
    ID = enum.auto()


NAMES: Mapping[str, Named] = MappingProxyType(
    {
        "CreateSessionRequest.name": Named.MADE,
        "ForkSessionRequest.name": Named.MADE,
        "RenameSessionRequest.new_name": Named.NEW,
        "GetSessionRequest.name": Named.SESSION,
        "DeleteSessionRequest.name": Named.SESSION,
        "RenameSessionRequest.name": Named.SESSION,
        "ForkSessionRequest.parent": Named.SESSION,
        "CreateSnapshotRequest.session": Named.SESSION,
        "ListSnapshotsRequest.session": Named.SESSION,
        "DeleteSnapshotRequest.session": Named.SESSION,
        "OpenSessionRequest.session": Named.SESSION,
        "ListBookmarksRequest.session": Named.SESSION,
        "GetGraphRequest.session": Named.SESSION,
        "ReadTokensRequest.session": Named.SESSION,
        "ExplainRequest.session": Named.SESSION,
        "VerifySessionRequest.session": Named.SESSION,
        "ForgetBlocksRequest.session": Named.SESSION,
        "SessionInfo.name": Named.SESSION,
        "ListSessionsRequest.page_token": Named.CURSOR,
        "ListSessionsResponse.next_page_token": Named.CURSOR,
        "OpenSessionRequest.worker": Named.ID,
        "OpenSessionRequest.attachment": Named.ID,
        "SaveTailRequest.attachment": Named.ID,
        "CloseAttachmentRequest.attachment": Named.ID,
        "PutBlocksRequest.attachment": Named.ID,
        "PutBlocksResponse.attachment": Named.ID,
        "GetBlocksRequest.attachment": Named.ID,
        "Hello.worker": Named.ID,
        "Step.attachment": Named.ID,
        "Ack.attachment": Named.ID,
        "Recall.attachment": Named.ID,
        "Fault.attachment": Named.ID,
        "SessionInfo.writer": Named.ID,
    }
)

# Text that names nothing of a tenant, or something inside one session.
PLAIN = frozenset(
    {
        "Arena.name",
        "CreateSnapshotRequest.name",
        "DeleteSnapshotRequest.name",
        "ExplainResponse.finder_status",
        "ExplainedSearch.last_stage",
        "Fault.message",
        "Fault.reason",
        "Finding.message",
        "Finding.path",
        "Finding.place",
        "Fingerprint.model",
        "Fingerprint.rope",
        "Fingerprint.tokenizer",
        "ForkSessionRequest.snapshot",
        "OpenSessionRequest.snapshot",
        "PutBlocksResponse.message",
        "PutBlocksResponse.reason",
        "SessionInfo.finder_status",
        "SessionInfo.id",
        "SessionInfo.parent_id",
        "Snapshot.name",
        "StreamSpec.name",
        "VerifySessionResponse.id",
        "Vote.stream",
        "Welcome.server_version",
    }
)


class Namespace:
    """One caller's names."""

    def __init__(self, caller: Caller) -> None:
        self._sessions = f"{caller.tenant}{SEPARATOR}" if caller.tenant else ""
        read_only = self._sessions and Scope.WRITE not in caller.scopes
        self._ids = f"{self._sessions}{_READ_ONLY}{SEPARATOR}" if read_only else self._sessions

    def inward(self, request: Message) -> None:
        """Names in a request, changed in place to what the node knows them by. Raises InvalidRequest."""
        _change(request, self._inward)

    def outward(self, response: Message) -> None:
        """Names in a response, changed in place to what the caller knows them by.

        Raises:
            RuntimeError: One is of another space.
        """
        if self._sessions:
            _change(response, self._outward)

    def _inward(self, kind: Named, name: str) -> str:
        strict = kind in (Named.MADE, Named.NEW, Named.ID) or self._sessions
        if strict and SEPARATOR in name:
            raise InvalidRequest(f"expected a name without {SEPARATOR!r}, got {name[:160]!r}")
        if kind is Named.CURSOR:
            # Of this tenant only, whatever comes after its last one.
            return f"{self._sessions}{SEPARATOR}{name}" if self._sessions else name
        # What is empty names nothing, and is refused where a name is needed.
        return f"{self._ids if kind is Named.ID else self._sessions}{name}" if name else ""

    def _outward(self, kind: Named, name: str) -> str:
        own = self._ids if kind is Named.ID and name.startswith(self._ids) else self._sessions
        if name and not name.startswith(own):
            raise RuntimeError("expected a response with names of its caller's tenant, got one of another")
        return name.removeprefix(own)


def tenant_of(name: str) -> str:
    """The tenant of a session, worker or attachment, by the name that the node knows; empty if it has none."""
    tenant, separator, _ = name.partition(SEPARATOR)
    return tenant if separator else ""


def new_session(request: Message) -> str:
    """The session that a request would make; empty if it would make none."""
    made = [field.name for field, kind in _fields(request.DESCRIPTOR) if kind is Named.MADE]
    return str(getattr(request, made[0])) if made else ""


def _change(message: Message, changed: Callable[[Named, str], str]) -> None:
    for field, kind in _fields(message.DESCRIPTOR):
        if kind is None:
            for inner in _inner(message, field):
                _change(inner, changed)
        else:
            setattr(message, field.name, changed(kind, getattr(message, field.name)))


def _inner(message: Message, field: FieldDescriptor) -> Iterator[Message]:
    if field.is_repeated:
        yield from getattr(message, field.name)
    elif message.HasField(field.name):
        yield getattr(message, field.name)


@cache
def _fields(descriptor: Descriptor) -> tuple[tuple[FieldDescriptor, Named | None], ...]:
    """Fields that name something, and, with None, messages in which one does."""
    found: list[tuple[FieldDescriptor, Named | None]] = []
    for field in descriptor.fields:
        kind = NAMES.get(field.full_name.removeprefix(PACKAGE))
        if kind is not None:
            found.append((field, kind))
        elif field.message_type is not None and _leads_to_names(field.message_type):
            found.append((field, None))
    return tuple(found)


def _leads_to_names(descriptor: Descriptor) -> bool:
    # The entries of a map are no messages of their own; no map holds names.
    return not descriptor.GetOptions().map_entry and bool(_fields(descriptor))
