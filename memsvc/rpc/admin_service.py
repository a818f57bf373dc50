"""AdminService: looking after what the node stores, while it serves."""

from typing import Any

import grpc

from memsvc.retention.upkeep import Upkeep
from memsvc.rpc.threads import Threads
from memsvc.session.ranges import to_wire
from memsvc.verify.findings import Finding, Severity
from protos.memsvc.v1 import admin_pb2, admin_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_SEVERITIES = (
    (Severity.DAMAGE, admin_pb2.FINDING_SEVERITY_DAMAGE),
    (Severity.NOTE, admin_pb2.FINDING_SEVERITY_NOTE),
)


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Calls on the upkeep of the node's sessions, each on a thread."""

    def __init__(self, upkeep: Upkeep, threads: Threads) -> None:
        self._upkeep = upkeep
        self._run = threads.calls.run

    async def VerifySession(
        self, request: admin_pb2.VerifySessionRequest, context: Context
    ) -> admin_pb2.VerifySessionResponse:
        """Read all that a session stores."""
        report = await self._run(self._upkeep.verify, request.session)
        return admin_pb2.VerifySessionResponse(
            id=report.id,
            records=report.records,
            bookmarks=report.bookmarks,
            blocks=report.blocks,
            block_bytes=report.block_bytes,
            unused_bytes=report.unused_bytes,
            shard_files=report.shard_files,
            findings=[_finding(own) for own in report.findings],
        )

    async def ForgetBlocks(
        self, request: admin_pb2.ForgetBlocksRequest, context: Context
    ) -> admin_pb2.ForgetBlocksResponse:
        """Let old blocks go."""
        forgotten, compacted = await self._run(self._upkeep.forget, request.session, request.before_position)
        return admin_pb2.ForgetBlocksResponse(
            blocks=to_wire(forgotten.blocks), block_bytes=forgotten.block_bytes, compacted=compacted
        )


def _finding(own: Finding) -> admin_pb2.Finding:
    severity = dict(_SEVERITIES)[own.severity]
    return admin_pb2.Finding(severity=severity, path=own.path, place=own.place, message=own.message)
