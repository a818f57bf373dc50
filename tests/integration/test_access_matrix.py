"""Every method that is served, with every kind of credential: the code that it ends with, and nothing changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from memsvc.auth.caller import Scope
from memsvc.auth.rules import SCOPES
from protos.memsvc.v1 import admin_pb2, block_pb2, graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.credential_book import CredentialBook, authorization
from tests.integration.server_process import (
    BLOCK_BYTES,
    TIMEOUT_S,
    block_data,
    connected,
    put,
    reason_of,
    recall,
    spec,
    step,
)
from tests.integration.tenants import Owner, Stream, calling, guarded
from tests.unit.memsvc.auth.test_rules import services

OK, NOT_FOUND, DENIED, UNKNOWN_CALLER, NOT_NOW, LACKING = (
    grpc.StatusCode.OK,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
)
A, W, LEDGER, KEPT = Owner.ATTACHMENT, Owner.WORKER, Owner.SESSION, Owner.SNAPSHOT
TAIL = session_pb2.Tail(version=1, position=64 * Owner.BLOCKS, last_id=2)


@dataclass(frozen=True)
class Try:
    """A call that aims at the owner's things.

    Args:
        other: What another tenant's credential with every scope gets.
        reader: What the owner's own credential with the scope to read gets.
    """

    request: Message
    other: grpc.StatusCode
    reader: grpc.StatusCode


_OPEN = session_pb2.OpenSessionRequest(
    session=LEDGER, mode=session_pb2.OPEN_MODE_WRITER, fingerprint=spec().fingerprint, worker=W, attachment=A
)
TRIES = {
    "CreateSession": Try(session_pb2.CreateSessionRequest(name=LEDGER, spec=spec(64)), OK, DENIED),
    "GetSession": Try(session_pb2.GetSessionRequest(name=LEDGER), NOT_FOUND, OK),
    "ListSessions": Try(session_pb2.ListSessionsRequest(), OK, OK),
    "DeleteSession": Try(session_pb2.DeleteSessionRequest(name=LEDGER), NOT_FOUND, DENIED),
    "ForkSession": Try(session_pb2.ForkSessionRequest(parent=LEDGER, name="fork"), NOT_FOUND, DENIED),
    "RenameSession": Try(session_pb2.RenameSessionRequest(name=LEDGER, new_name="gone"), NOT_FOUND, DENIED),
    "CreateSnapshot": Try(session_pb2.CreateSnapshotRequest(session=LEDGER, name="new"), NOT_FOUND, DENIED),
    "ListSnapshots": Try(session_pb2.ListSnapshotsRequest(session=LEDGER), NOT_FOUND, OK),
    "DeleteSnapshot": Try(session_pb2.DeleteSnapshotRequest(session=LEDGER, name=KEPT), NOT_FOUND, DENIED),
    # The other tenant's worker of that name is not attached.
    "OpenSession": Try(_OPEN, NOT_NOW, DENIED),
    "SaveTail": Try(session_pb2.SaveTailRequest(attachment=A, epoch=1, tail=TAIL), NOT_FOUND, DENIED),
    # Closing what is not there is fine: it is not the owner's that is closed.
    "CloseAttachment": Try(session_pb2.CloseAttachmentRequest(attachment=A), OK, OK),
    # A stream of the caller's own, whatever its worker is called.
    "Attach": Try(
        memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker=W)),
        OK,
        OK,
    ),
    # Answered block by block: ATTACHMENT_NOT_FOUND.
    "PutBlocks": Try(put(A, 1, Owner.BLOCKS, bytes(BLOCK_BYTES)), OK, DENIED),
    "GetBlocks": Try(block_pb2.GetBlocksRequest(attachment=A, blocks=[0]), NOT_FOUND, NOT_FOUND),
    "ListBookmarks": Try(graph_pb2.ListBookmarksRequest(session=LEDGER), NOT_FOUND, DENIED),
    "GetGraph": Try(graph_pb2.GetGraphRequest(session=LEDGER, seeds=[0]), NOT_FOUND, DENIED),
    "ReadTokens": Try(
        graph_pb2.ReadTokensRequest(session=LEDGER, positions=types_pb2.Range(first=0, count=64)), NOT_FOUND, DENIED
    ),
    "Explain": Try(graph_pb2.ExplainRequest(session=LEDGER), NOT_FOUND, DENIED),
    "VerifySession": Try(admin_pb2.VerifySessionRequest(session=LEDGER), NOT_FOUND, DENIED),
    "ForgetBlocks": Try(admin_pb2.ForgetBlocksRequest(session=LEDGER, before_position=192), NOT_FOUND, DENIED),
    "Check": Try(health_pb2.HealthCheckRequest(), OK, OK),
    # gRPC's own servicer lacks it.
    "List": Try(health_pb2.HealthListRequest(), LACKING, LACKING),
    "Watch": Try(health_pb2.HealthCheckRequest(), OK, OK),
    "ServerReflectionInfo": Try(reflection_pb2.ServerReflectionRequest(list_services=""), OK, DENIED),
}
METHODS = {method.name: method for service in services() for method in service.methods}
HEALTH = {"Check", "List", "Watch"}


@dataclass(frozen=True)
class Place:
    """A guarded server, its owner, and secrets of other kinds."""

    address: str
    owner: Owner
    channel: grpc.Channel
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all calls: whatever one of them changed, the next would see."""
    folder = tmp_path_factory.mktemp("matrix")
    book = CredentialBook(folder / "tokens.toml")
    owners = book.bearer("acme")
    secrets = {
        "expired": book.bearer("acme", expires_unix_s=1_000_000_000),
        "other": book.bearer("globex"),
        "reader": book.bearer("acme", Scope.READ),
    }
    secrets["bad"] = f"{owners[:-1]}{'A' if owners[-1] != 'A' else 'B'}"
    with guarded(folder, book) as server, calling(server.address, owners, folder) as stubs:
        owner = Owner(stubs)
        with connected(server.address) as bare:
            yield Place(server.address, owner, bare.channel, secrets)
        owner.write()
        owner.stream.end()


def _called(
    channel: grpc.Channel, method: MethodDescriptor, request: Message, metadata: Sequence[tuple[str, str]]
) -> tuple[grpc.StatusCode, str, list[Any]]:
    """Code, reason and answers of a call."""
    kind = "_".join("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    call = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    answers: list[Any] = []
    try:
        answer = call(iter([request]) if method.client_streaming else request, timeout=TIMEOUT_S, metadata=metadata)
        for one in answer if method.server_streaming else [answer]:
            answers.append(one)
            if method.name == "Watch":
                # It ends when its caller leaves.
                answer.cancel()
                break
    except grpc.RpcError as error:
        return error.code(), reason_of(error) if error.code() is not LACKING else "", answers
    return OK, "", answers


def test_the_tries_are_of_every_method() -> None:
    """Proves that a method cannot be added without saying here who may call it and what they get."""
    assert set(TRIES) == set(METHODS) == {method.rpartition("/")[2] for method in SCOPES}


@pytest.mark.parametrize("method", sorted(TRIES))
@pytest.mark.parametrize(
    ("credential", "reason"),
    [("none", "CREDENTIAL_MISSING"), ("bad", "CREDENTIAL_INVALID"), ("expired", "CREDENTIAL_EXPIRED")],
)
def test_without_a_credential_that_holds_only_health_answers(
    place: Place, method: str, credential: str, reason: str
) -> None:
    """Proves that no call, of one request or many, gets anywhere without a credential, and that the owner sees no
    difference afterwards."""
    before = place.owner.seen()
    metadata = authorization(place.secrets[credential]) if credential != "none" else ()
    code, came, answers = _called(place.channel, METHODS[method], TRIES[method].request, metadata)
    if method in HEALTH:
        # The same for everybody.
        assert (code, len(answers)) == (TRIES[method].reader, 0 if method == "List" else 1)
    else:
        assert (code, came, answers) == (UNKNOWN_CALLER, reason, [])
    assert place.owner.seen() == before


@pytest.mark.parametrize("method", sorted(TRIES))
def test_another_tenant_reaches_nothing_of_the_owners(place: Place, method: str) -> None:
    """Proves that with every scope, and the owner's own names, ids and epoch, another tenant finds nothing, changes
    nothing, and is told nothing that holds the owner's bytes."""
    before = place.owner.seen()
    metadata = authorization(place.secrets["other"])
    code, _, answers = _called(place.channel, METHODS[method], TRIES[method].request, metadata)
    assert code is TRIES[method].other
    if method == "CreateSession":
        # The name was free: it is another session, and goes again for the tries that follow.
        assert (answers[0].created, answers[0].session.tokens) == (True, 0)
        deleted = session_pb2.DeleteSessionRequest(name=LEDGER)
        assert _called(place.channel, METHODS["DeleteSession"], deleted, metadata)[0] is OK
    if method == "ListSessions":
        assert list(answers[0].sessions) == []
    if method == "PutBlocks":
        assert [answer.reason for answer in answers] == ["ATTACHMENT_NOT_FOUND"]
    assert place.owner.seen() == before


@pytest.mark.parametrize("method", sorted(TRIES))
def test_a_credential_to_read_changes_nothing(place: Place, method: str) -> None:
    """Proves what the scope to read lets through, and that with the writer's own worker and attachment ids it neither
    displaces the writer nor closes it."""
    before = place.owner.seen()
    metadata = authorization(place.secrets["reader"])
    code, reason, _ = _called(place.channel, METHODS[method], TRIES[method].request, metadata)
    assert code is TRIES[method].reader
    assert reason == {DENIED: "SCOPE_MISSING", NOT_FOUND: "ATTACHMENT_NOT_FOUND"}.get(code, "")
    assert place.owner.seen() == before


def test_a_credential_to_read_opens_views_beside_the_writer(place: Place, tmp_path: Path) -> None:
    """Proves that the scope to read is enough for a view with blocks and recalls, under the writer's very ids, that a
    step of the writer's attachment is not taken from it, and that the writer goes on."""
    with calling(place.address, place.secrets["reader"], tmp_path) as stubs:
        stream = Stream(stubs, W)
        opening = session_pb2.OpenSessionRequest()
        opening.CopyFrom(_OPEN)
        opening.mode = session_pb2.OPEN_MODE_VIEW
        assert stubs.sessions.OpenSession(opening, timeout=TIMEOUT_S).position == TAIL.position
        fetch = block_pb2.GetBlocksRequest(attachment=A, blocks=[1])
        assert [one.chunk for one in stubs.blocks.GetBlocks(fetch, timeout=TIMEOUT_S)] == [block_data(1)]
        # As the writer would send it: this attachment is a view, whose epoch is 0.
        stream.send(step(A, place.owner.epoch, 1, TAIL.position))
        assert stream.receive().fault.reason == "STALE_EPOCH"
        stream.send(step(A, 0, 1, TAIL.position, recall=recall(0)))
        assert [stream.receive().WhichOneof("message") for _ in range(2)] == ["ack", "recall"]
        before = place.owner.seen()
        stream.end()
        assert place.owner.seen() == before
    place.owner.write()
