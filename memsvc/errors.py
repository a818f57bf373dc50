"""What can go wrong in the memory server, as one tree.

    MemsvcError
    |-- InvalidRequest              the request can never succeed as it is
    |   |-- PositionOutOfOrder
    |   |-- EmbeddingInvalid        reason: EMBEDDING_ and NOT_FINITE, ZERO, WRONG_DIMENSION or WRONG_DTYPE
    |   `-- MessageTooLarge
    |-- NotFound
    |   |-- SessionNotFound
    |   |-- AttachmentNotFound
    |   |-- BlockNotFound
    |   |-- BookmarkNotFound
    |   |-- RecallNotFound
    |   `-- SnapshotNotFound
    |-- SessionExists
    |   `-- SnapshotExists
    |-- WrongState                  the request is fine, the session or worker is not ready for it
    |   |-- FingerprintMismatch
    |   |-- SessionHasWriter
    |   |-- SessionHasForks
    |   |-- SessionHasSnapshots
    |   |-- WorkerNotAttached
    |   |-- TailIncomplete
    |   |-- ArenaNotAccepted
    |   |-- FormatVersion
    |   `-- ProtocolVersion
    |-- StaleEpoch                  another writer took over: read again, then retry
    |-- Unauthenticated             no credential, or one that does not hold
    |-- PermissionDenied            the credential does not allow the call
    |-- LimitExceeded               one past a limit
    |   `-- QuotaExceeded           one past what its tenant may have: retry later
    |-- DeadlineExceeded
    |-- ManifestUnavailable         retry the call
    |-- DataLoss                    what was stored does not come back as it was written
    |   |-- CorruptBlock
    |   `-- CorruptLog
    `-- StorageFailed               the disk refused

Invariant: a message is one line that says what was expected, what came, and where.
A reason never changes, a message may.
Must not know: gRPC; the status of each class is a table in `memsvc.rpc`.
"""

from typing import ClassVar


class MemsvcError(Exception):
    """Root of the tree; `reason` is what a program reads, the message is what a person reads.

    Args:
        message: One line, "expected ..., got ...", with the place.
        reason: Replaces the class's own reason, for a class that has several.
        retry_s: After how many seconds it is worth trying again; None: nothing is known of that.
    """

    reason: str
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.retry_s = retry_s


class InvalidRequest(MemsvcError):
    """A field is missing, out of range or contradicts another; reason MESSAGE_MALFORMED: the bytes are no message."""

    default_reason = "INVALID_REQUEST"


class PositionOutOfOrder(InvalidRequest):
    """A step does not begin where the last one ended plus its declared gap."""

    default_reason = "POSITION_OUT_OF_ORDER"


class EmbeddingInvalid(InvalidRequest):
    """Embeddings or signals that are not finite, of the wrong shape or type, or zero vectors; `reason` says which."""

    default_reason = "EMBEDDING_NOT_FINITE"


class MessageTooLarge(InvalidRequest):
    """More tokens in one message or step than Welcome says. Messages of too many bytes are refused by gRPC itself."""

    default_reason = "MESSAGE_TOO_LARGE"


class NotFound(MemsvcError):
    """Something named in the request is not there."""

    default_reason = "NOT_FOUND"


class SessionNotFound(NotFound):
    """No session of that name."""

    default_reason = "SESSION_NOT_FOUND"


class AttachmentNotFound(NotFound):
    """No attachment of that id; it was closed, or the server restarted."""

    default_reason = "ATTACHMENT_NOT_FOUND"


class BlockNotFound(NotFound):
    """The block was never put, or is a recorded gap."""

    default_reason = "BLOCK_NOT_FOUND"


class BookmarkNotFound(NotFound):
    """No bookmark of that index (yet)."""

    default_reason = "BOOKMARK_NOT_FOUND"


class RecallNotFound(NotFound):
    """The recall is not among those remembered."""

    default_reason = "RECALL_NOT_FOUND"


class SnapshotNotFound(NotFound):
    """No snapshot of that name in the session."""

    default_reason = "SNAPSHOT_NOT_FOUND"


class SessionExists(MemsvcError):
    """The name is taken by a session with another spec; reason FINGERPRINT_MISMATCH where the fingerprints differ."""

    default_reason = "SESSION_EXISTS"


class SnapshotExists(SessionExists):
    """The session has a snapshot of that name, at another cut."""

    default_reason = "SNAPSHOT_EXISTS"


class WrongState(MemsvcError):
    """The request is valid, but not now or not from here."""

    default_reason = "WRONG_STATE"


class FingerprintMismatch(WrongState):
    """The session was made by another model or other settings; the message names the first field that differs."""

    default_reason = "FINGERPRINT_MISMATCH"


class SessionHasWriter(WrongState):
    """Another worker writes the session now."""

    default_reason = "SESSION_HAS_WRITER"


class SessionHasForks(WrongState):
    """Other sessions share what is to be deleted; the message names them."""

    default_reason = "SESSION_HAS_FORKS"


class SessionHasSnapshots(WrongState):
    """Somebody wanted to keep what is to be deleted; the message names the snapshots."""

    default_reason = "SESSION_HAS_SNAPSHOTS"


class WorkerNotAttached(WrongState):
    """The worker's Attach stream is not up."""

    default_reason = "WORKER_NOT_ATTACHED"


class TailIncomplete(WrongState):
    """Steps or blocks before the tail's position are missing and not declared as gaps."""

    default_reason = "TAIL_INCOMPLETE"


class ArenaNotAccepted(WrongState):
    """A slot was named, but the worker shares no memory with the server."""

    default_reason = "ARENA_NOT_ACCEPTED"


class FormatVersion(WrongState):
    """What is stored was written by another version of the server; it is left as it is."""

    default_reason = "FORMAT_VERSION"


class ProtocolVersion(WrongState):
    """The worker speaks another version of the protocol."""

    default_reason = "PROTOCOL_VERSION"


class StaleEpoch(MemsvcError):
    """The attachment's epoch is no longer the session's."""

    default_reason = "STALE_EPOCH"


class Unauthenticated(MemsvcError):
    """Whose call it is is not known; reason CREDENTIAL_MISSING, _INVALID or _EXPIRED, or _CHANGED during a stream."""

    default_reason = "CREDENTIAL_INVALID"


class PermissionDenied(MemsvcError):
    """The credential holds, but lacks the scope; reason METHOD_NOT_LISTED where no credential would do."""

    default_reason = "SCOPE_MISSING"


class LimitExceeded(MemsvcError):
    """One past a limit, a setting or a constant; the message says what was expected and, if it is known, what came."""

    default_reason = "LIMIT_EXCEEDED"


class QuotaExceeded(LimitExceeded):
    """One past what a tenant may have; reason RATE_EXCEEDED where it is too much a second."""

    default_reason = "QUOTA_EXCEEDED"


class DeadlineExceeded(MemsvcError):
    """The answer would come too late to be of use."""

    default_reason = "DEADLINE_EXCEEDED"


class ManifestUnavailable(MemsvcError):
    """The manifest cannot be read or written now."""

    default_reason = "MANIFEST_UNAVAILABLE"


class DataLoss(MemsvcError):
    """Stored bytes fail their checksum or their format."""

    default_reason = "DATA_LOSS"


class CorruptBlock(DataLoss):
    """A block's bytes differ from their checksum."""

    default_reason = "CORRUPT_BLOCK"


class CorruptLog(DataLoss):
    """Damage before the mark that says what is durable, records that contradict each other, or another session's log.

    Bad bytes past that mark are what a crash leaves: they are cut off.
    """

    default_reason = "CORRUPT_LOG"


class StorageFailed(MemsvcError):
    """A disk call failed; what it was to write is not acknowledged."""

    default_reason = "STORAGE_FAILED"
