"""`memsvc doctor`: whether a machine and a data folder, or a server that runs, are fit; one line a check.

Exit codes: 0 nothing failed, 1 something did, 2 the command line is wrong.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memsvc.cli.dial import add_credentials, dial
from memsvc.doctor import Check, State, folder_checks, machine_checks, worst
from memsvc.doctor.machine import shared_memory, versions
from memsvc.rpc.health import LIVE, READY
from memsvc.server import SERVICES
from memsvc.settings import ServerSettings
from protos.memsvc.v1 import session_pb2, session_pb2_grpc

TIMEOUT_S = 10.0
_ROUND_TRIPS = 9
_SLOW_S = 0.01


def add_doctor(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc doctor`."""
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="folder of sessions, with or without a server")
    what.add_argument("--memory", metavar="ADDRESS", help="a server that runs: unix:///PATH or HOST:PORT")
    command.add_argument(
        "--manifest", default=ServerSettings.manifest, metavar="KIND", help="as serve is given it, beside --data"
    )
    command.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    add_credentials(command)


def run_doctor(options: argparse.Namespace) -> int:
    """Print how each check came out, and what to do; the exit code. Raises InvalidRequest."""
    if options.data is not None:
        checks = [*machine_checks(), *folder_checks(options.data, options.manifest)]
    else:
        with dial(options) as channel:
            checks = [versions(), shared_memory(), *_server_checks(channel, options.memory)]
    state = worst(checks)
    if options.json:
        print(json.dumps({"state": state, "checks": [asdict(check) for check in checks]}))
    else:
        print("\n".join(_line(check) for check in checks))
    return int(state is State.FAILED)


def _line(check: Check) -> str:
    advice = f"; {check.advice}" if check.advice else ""
    return f"{check.state:<9}{check.name:<15}{check.found}{advice}"


def _server_checks(channel: grpc.Channel, address: str) -> Iterator[Check]:
    """What a server says of itself; only the first if it does not answer."""
    health = health_pb2_grpc.HealthStub(channel)
    try:
        seconds = [_timed(health) for _ in range(_ROUND_TRIPS)]
    except grpc.RpcError as error:
        found = f"{error.code().name}: {error.details()}, at {address}"
        yield Check("answers", State.FAILED, found, "start it, or check address and credentials")
        return
    median_s = statistics.median(seconds)
    slow = "calls wait: is the machine busy, or far away?" if median_s > _SLOW_S else ""
    found = f"median {1000 * median_s:.2f} ms there and back"
    yield Check("answers", State.WARNING if slow else State.OK, found, slow)
    yield _health(health)
    yield _sessions(channel)


def _timed(health: health_pb2_grpc.HealthStub) -> float:
    started_s = time.perf_counter()
    health.Check(health_pb2.HealthCheckRequest(service=LIVE), timeout=TIMEOUT_S, wait_for_ready=False)
    return time.perf_counter() - started_s


def _health(health: health_pb2_grpc.HealthStub) -> Check:
    wrong = []
    for service in (READY, *SERVICES):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            wrong.append(service.rpartition(".")[2])
    if wrong:
        advice = "/readyz (serve --http) and the log say why"
        return Check("health", State.FAILED, f"not serving: {', '.join(wrong)}", advice)
    return Check("health", State.OK, f"live, ready, {len(SERVICES)} services serving")


def _sessions(channel: grpc.Channel) -> Check:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    try:
        stub.ListSessions(session_pb2.ListSessionsRequest(page_size=1), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        advice = "doctor --data DIR on the server's machine says more"
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            advice = "name a token with scope read: --token-file"
        return Check("sessions", State.FAILED, f"{error.code().name}: {error.details()}", advice)
    return Check("sessions", State.OK, "the manifest answers")
