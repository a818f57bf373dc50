"""What the reading commands of `memsvc` take from a server."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from memsvc.cli import main
from memsvc.settings import MIB
from protos.memsvc.v1 import session_pb2, session_pb2_grpc, types_pb2

# More than the server's default of 8 MiB a message, less than the most that it may be set to.
STATUS = "x" * (9 * MIB)


class LongAnswers(session_pb2_grpc.SessionServiceServicer):
    """Answers that are longer than a server with default settings sends."""

    def ListSessions(self, request: session_pb2.ListSessionsRequest, context: Any) -> session_pb2.ListSessionsResponse:
        """One session that has much to say."""
        return session_pb2.ListSessionsResponse(sessions=[types_pb2.SessionInfo(name="s", finder_status=STATUS)])


def test_answers_of_a_server_with_a_raised_message_limit_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that a reader takes what any server may be set to send, not what the default sends."""
    address = f"unix://{tmp_path}/server.sock"
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_send_message_length", -1)])
    session_pb2_grpc.add_SessionServiceServicer_to_server(LongAnswers(), server)
    server.add_insecure_port(address)
    server.start()
    try:
        assert main(["sessions", "--memory", address, "--json"]) == 0
    finally:
        server.stop(None).wait()
    assert json.loads(capsys.readouterr().out)["sessions"][0]["name"] == "s"
