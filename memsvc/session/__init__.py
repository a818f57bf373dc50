"""Sessions: one stream's memory each, its write order, its recovery, its recalls. The only part of the server that sees
bookmarks, finders, blocks, log and manifest together.

Must not know: gRPC, workers' streams, shared memory.
"""

from memsvc.session.attachment import Attachment
from memsvc.session.limits import SessionLimits
from memsvc.session.recalls import PendingRecall
from memsvc.session.registry import Sessions
from memsvc.session.session import Session

__all__ = ["Attachment", "PendingRecall", "Session", "SessionLimits", "Sessions"]
