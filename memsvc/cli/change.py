"""`memsvc fork`, `rename`, `snapshot`, `restore` and `delete`: what a command changes about a session as a whole."""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc

from memsvc.cli import shape
from memsvc.cli.dial import add_dialling
from protos.memsvc.v1 import session_pb2, session_pb2_grpc

# A fork reads its parent's log and, where shards were not saved, builds a graph.
TIMEOUT_S = 600.0

Record = dict[str, Any]
# One call or a few, and how the answer is shown to a person.
Command = tuple[Callable[[grpc.Channel, argparse.Namespace], Record], Callable[[Record], str]]


def add_changes(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds these commands to the command line."""
    fork = _added(commands, "fork", "make a session of what another one has so far, sharing its blocks")
    fork.add_argument("--snapshot", default="", metavar="NAME", help="begin at this snapshot; else at the newest tail")
    fork.add_argument("--to", required=True, metavar="NAME", help="name of the new session")
    rename = _added(commands, "rename", "give a session another name")
    rename.add_argument("--to", required=True, metavar="NAME", help="its name from now on")
    snapshot = _added(commands, "snapshot", "name the newest tail, list such names, or drop one")
    which = snapshot.add_mutually_exclusive_group()
    which.add_argument("--name", metavar="NAME", help="name to give; without it, those that there are are listed")
    which.add_argument("--drop", metavar="NAME", help="name to drop; views and forks that began there stay")
    restore = _added(commands, "restore", "make a session of what another one had at a snapshot")
    restore.add_argument("--snapshot", required=True, metavar="NAME", help="where it begins")
    restore.add_argument("--to", required=True, metavar="NAME", help="name of the new session")
    _added(commands, "delete", "delete a session that has no writer, forks or snapshots")


def _added(commands: "argparse._SubParsersAction[Any]", name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    add_dialling(command)
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.add_argument("--session", required=True, metavar="NAME")
    return command


def _fork(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    request = session_pb2.ForkSessionRequest(parent=options.session, snapshot=options.snapshot, name=options.to)
    answer = session_pb2_grpc.SessionServiceStub(channel).ForkSession(request, timeout=TIMEOUT_S)
    return {"session": shape.session(answer.session), "created": answer.created}


def _forked(record: Record) -> str:
    own = record["session"]
    done = "began" if record["created"] else "was there already, and began"
    return f"session {own['name']} {done} at position {own['fork_position']} with {own['blocks']} blocks"


def _rename(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    request = session_pb2.RenameSessionRequest(name=options.session, new_name=options.to)
    answer = session_pb2_grpc.SessionServiceStub(channel).RenameSession(request, timeout=TIMEOUT_S)
    return {"session": shape.session(answer.session)}


def _snapshot(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    stub, record = session_pb2_grpc.SessionServiceStub(channel), {"session": options.session}
    if options.name is not None:
        create = session_pb2.CreateSnapshotRequest(session=options.session, name=options.name)
        answer = stub.CreateSnapshot(create, timeout=TIMEOUT_S)
        return {**record, "snapshots": [shape.snapshot(answer.snapshot)], "created": answer.created}
    if options.drop is not None:
        drop = session_pb2.DeleteSnapshotRequest(session=options.session, name=options.drop)
        stub.DeleteSnapshot(drop, timeout=TIMEOUT_S)
        return {**record, "dropped": options.drop}
    listed = stub.ListSnapshots(session_pb2.ListSnapshotsRequest(session=options.session), timeout=TIMEOUT_S)
    return {**record, "snapshots": [shape.snapshot(one) for one in listed.snapshots]}


def _snapshots(record: Record) -> str:
    return f"dropped {record['dropped']}" if "dropped" in record else shape.snapshots_table(record)


def _delete(channel: grpc.Channel, options: argparse.Namespace) -> Record:
    request = session_pb2.DeleteSessionRequest(name=options.session)
    session_pb2_grpc.SessionServiceStub(channel).DeleteSession(request, timeout=TIMEOUT_S)
    return {"deleted": options.session}


CHANGES: Mapping[str, Command] = MappingProxyType(
    {
        "fork": (_fork, _forked),
        "rename": (_rename, lambda record: f"the session is called {record['session']['name']} now"),
        "snapshot": (_snapshot, _snapshots),
        "restore": (_fork, _forked),
        "delete": (_delete, lambda record: f"deleted {record['deleted']}"),
    }
)
