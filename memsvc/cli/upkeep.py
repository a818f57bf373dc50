"""`memsvc forget`, and `memsvc verify --memory`: looking after what a running server stores."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import grpc

from memsvc.cli.dial import dial
from memsvc.cli.read import ReadFailed, explained
from memsvc.verify.findings import Finding, Report, SessionReport, Severity
from protos.memsvc.v1 import admin_pb2, admin_pb2_grpc, session_pb2, session_pb2_grpc

TIMEOUT_S = 30.0
# All of a session's blocks may be read.
VERIFY_TIMEOUT_S = 3600.0
_PAGE_SIZE = 1000

Record = dict[str, Any]


def add_forget(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc forget`, but for those of dialling."""
    command.add_argument("--session", required=True, metavar="NAME")
    command.add_argument(
        "--before", required=True, type=int, metavar="POSITION", help="blocks that end here or before leave"
    )
    command.add_argument("--json", action="store_true", help="one JSON object instead of a line")


def run_forget(options: argparse.Namespace) -> None:
    """Let old blocks of a session go, and print what left. Raises ReadFailed, InvalidRequest."""
    request = admin_pb2.ForgetBlocksRequest(session=options.session, before_position=max(0, options.before))
    with dial(options) as channel:
        try:
            answer = admin_pb2_grpc.AdminServiceStub(channel).ForgetBlocks(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise ReadFailed(explained(error, options.memory)) from error
    record: Record = {
        "session": options.session,
        "blocks": [[own.first, own.count] for own in answer.blocks],
        "block_bytes": answer.block_bytes,
        "compacted": answer.compacted,
    }
    count = sum(own.count for own in answer.blocks)
    room = "the disk has the room back" if answer.compacted else "the disk has the room back once nobody is attached"
    line = f"{count} blocks, {answer.block_bytes} bytes: {room}" if count else "nothing to forget"
    print(json.dumps(record) if options.json else line)


def verify_server(options: argparse.Namespace) -> Report:
    """What a server says of one session, or of all of them. Raises ReadFailed, InvalidRequest."""
    with dial(options) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        try:
            names = [options.session] if options.session is not None else list(_names(channel))
            return Report(tuple(_verified(stub, name, options.memory) for name in names), ())
        except grpc.RpcError as error:
            raise ReadFailed(explained(error, options.memory)) from error


def _names(channel: grpc.Channel) -> Iterator[str]:
    stub, request = session_pb2_grpc.SessionServiceStub(channel), session_pb2.ListSessionsRequest(page_size=_PAGE_SIZE)
    while True:
        page = stub.ListSessions(request, timeout=TIMEOUT_S)
        yield from (info.name for info in page.sessions)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _verified(stub: admin_pb2_grpc.AdminServiceStub, name: str, address: str) -> SessionReport:
    try:
        answer = stub.VerifySession(admin_pb2.VerifySessionRequest(session=name), timeout=VERIFY_TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DATA_LOSS:
            raise
        # It does not even open: that is the finding.
        finding = Finding(Severity.DAMAGE, f"session {name}", "", explained(error, address))
        return SessionReport(name, "", 0, 0, 0, 0, 0, 0, (finding,))
    return SessionReport(
        name=name,
        id=answer.id,
        records=answer.records,
        bookmarks=answer.bookmarks,
        blocks=answer.blocks,
        block_bytes=answer.block_bytes,
        unused_bytes=answer.unused_bytes,
        shard_files=answer.shard_files,
        findings=tuple(_finding(own) for own in answer.findings),
    )


def _finding(own: admin_pb2.Finding) -> Finding:
    note = own.severity == admin_pb2.FINDING_SEVERITY_NOTE
    return Finding(Severity.NOTE if note else Severity.DAMAGE, own.path, own.place, own.message)
