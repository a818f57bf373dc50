"""`memsvc health`: one question to a server that runs, for whatever starts and watches it.

Exit codes: 0 it serves, 1 it does not or gives no answer, 2 the command line is wrong.
"""

import argparse
import json

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memsvc.cli.dial import add_dialling, dial
from memsvc.cli.read import ReadFailed, explained
from memsvc.rpc.health import READY

TIMEOUT_S = 5.0


def add_health(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc health`."""
    add_dialling(command)
    command.add_argument("--service", default=READY, metavar="NAME", help="live, ready, or a service by its full name")
    command.add_argument("--json", action="store_true", help="one JSON object instead of a word")


def run_health(options: argparse.Namespace) -> int:
    """Print the state of a service; the exit code. Raises ReadFailed, InvalidRequest."""
    request = health_pb2.HealthCheckRequest(service=options.service)
    with dial(options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                expected = "live, ready or a service of the node"
                raise ReadFailed(f"--service: expected {expected}, got {options.service!r}") from error
            raise ReadFailed(explained(error, options.memory)) from error
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).lower()
    print(json.dumps({"service": options.service, "state": state}) if options.json else state)
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)
