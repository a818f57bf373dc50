"""Names on the wire and in the node: no name of one tenant reaches another's."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from memsvc.auth.caller import Caller, Scope, anyone
from memsvc.auth.names import NAMES, PACKAGE, PLAIN, Named, Namespace, new_session, tenant_of
from memsvc.errors import InvalidRequest
from protos.memsvc import v1
from protos.memsvc.v1 import block_pb2, memory_pb2, session_pb2, types_pb2

WRITER = Namespace(Caller("acme", frozenset(Scope)))
READER = Namespace(Caller("acme", frozenset({Scope.READ})))
OTHER = Namespace(Caller("acme2", frozenset(Scope)))
OPEN = Namespace(anyone())
NAME = st.text("abcXYZ019._-", min_size=1, max_size=20)


def _messages(descriptors: list[Descriptor]) -> Iterator[Descriptor]:
    for descriptor in descriptors:
        if not descriptor.GetOptions().map_entry:
            yield descriptor
            yield from _messages(list(descriptor.nested_types))


def _text_fields() -> set[str]:
    found = set()
    for module in pkgutil.iter_modules(v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"protos.memsvc.v1.{module.name}").DESCRIPTOR
            for message in _messages(list(file.message_types_by_name.values())):
                found |= {f.full_name for f in message.fields if f.type == FieldDescriptor.TYPE_STRING}
    return {name.removeprefix(PACKAGE) for name in found}


def test_every_text_field_is_in_one_table() -> None:
    """Proves that a new text field fails here until somebody says whether it names something of a tenant."""
    assert set(NAMES) | PLAIN == _text_fields()
    assert set(NAMES) & PLAIN == set()


def _inward(namespace: Namespace, **fields: str) -> session_pb2.OpenSessionRequest:
    request = session_pb2.OpenSessionRequest(**fields)
    namespace.inward(request)
    return request


def test_names_are_put_into_the_callers_space() -> None:
    """Proves where a session, a worker and an attachment lie, for a credential that may write and one that may not."""
    fields = {"session": "notes", "worker": "w", "attachment": "a"}
    written, read = _inward(WRITER, **fields), _inward(READER, **fields)
    assert (written.session, written.worker, written.attachment) == ("acme/notes", "acme/w", "acme/a")
    assert (read.session, read.worker, read.attachment) == ("acme/notes", "acme/ro/w", "acme/ro/a")
    assert _inward(OPEN, **fields) == session_pb2.OpenSessionRequest(**fields)


def test_names_deep_in_a_message_are_found() -> None:
    """Proves that steps of a batch, and sessions of a list, are changed, and nothing else of them."""
    batch = memory_pb2.AttachRequest(steps=memory_pb2.StepBatch(steps=[memory_pb2.Step(attachment=a) for a in "ab"]))
    WRITER.inward(batch)
    assert [step.attachment for step in batch.steps.steps] == ["acme/a", "acme/b"]
    info = types_pb2.SessionInfo(name="acme/x", writer="acme/w", finder_status="acme/x")
    listed = session_pb2.ListSessionsResponse(sessions=[info], next_page_token="acme/x")
    READER.outward(listed)
    assert listed.sessions[0] == types_pb2.SessionInfo(name="x", writer="w", finder_status="acme/x")
    assert listed.next_page_token == "x"


def test_a_view_of_a_reader_comes_back_under_its_own_name() -> None:
    """Proves that an attachment of a credential that may not write goes out as it came in."""
    response = memory_pb2.AttachResponse(ack=memory_pb2.Ack(attachment="acme/ro/a", seq=3))
    READER.outward(response)
    assert response.ack == memory_pb2.Ack(attachment="a", seq=3)


@pytest.mark.parametrize("name", ["acme2/notes", "/notes", "notes/", "ro/a", "/", "../notes"])
def test_no_name_reaches_out_of_its_space(name: str) -> None:
    """Proves that a name with a slash is refused in every field that names something, whoever says it."""
    for namespace in (WRITER, READER):
        for field in ("session", "worker", "attachment"):
            with pytest.raises(InvalidRequest, match="expected a name without '/'"):
                _inward(namespace, **{field: name})
        with pytest.raises(InvalidRequest):
            namespace.inward(session_pb2.ListSessionsRequest(page_token=name))
    for request in (
        session_pb2.CreateSessionRequest(name=name),
        session_pb2.ForkSessionRequest(name=name),
        session_pb2.RenameSessionRequest(new_name=name),
        session_pb2.OpenSessionRequest(attachment=name),
    ):
        with pytest.raises(InvalidRequest):
            OPEN.inward(request)


def test_an_open_server_reaches_the_sessions_of_tenants_by_their_full_names() -> None:
    """Proves that an operator without credentials can read, and list past, a session of a tenant."""
    request = session_pb2.GetSessionRequest(name="acme/notes")
    OPEN.inward(request)
    assert request.name == "acme/notes"
    page = session_pb2.ListSessionsRequest(page_token="acme/notes")
    OPEN.inward(page)
    assert page.page_token == "acme/notes"


@pytest.mark.parametrize("name", ["acme2/notes", "notes", "acm/notes", "acme"])
def test_no_name_of_another_space_leaves(name: str) -> None:
    """Proves that a response with such a name is not sent, and that the error does not tell it."""
    for response in (
        session_pb2.GetSessionResponse(session=types_pb2.SessionInfo(name=name)),
        session_pb2.GetSessionResponse(session=types_pb2.SessionInfo(name="acme/x", writer=name)),
        session_pb2.ListSessionsResponse(next_page_token=name),
        block_pb2.PutBlocksResponse(attachment=name),
    ):
        with pytest.raises(RuntimeError) as raised:
            WRITER.outward(response)
        assert name not in str(raised.value).split()


def test_what_is_empty_names_nothing() -> None:
    """Proves that an empty name stays empty, and that the first page of a tenant begins in its space."""
    assert _inward(WRITER) == session_pb2.OpenSessionRequest()
    page = session_pb2.ListSessionsRequest()
    WRITER.inward(page)
    assert page.page_token == "acme//"
    assert tenant_of("acme/notes") == "acme"
    assert tenant_of("notes") == ""


def test_the_session_that_a_call_would_make_is_known_by_its_full_name() -> None:
    """Proves which calls a quota of sessions looks at: a new one and a fork, not a rename."""
    for request in (session_pb2.CreateSessionRequest(name="n"), session_pb2.ForkSessionRequest(parent="p", name="n")):
        WRITER.inward(request)
        assert new_session(request) == "acme/n"
    assert new_session(session_pb2.RenameSessionRequest(name="n", new_name="m")) == ""
    assert set(NAMES.values()) == set(Named)


@given(NAME, NAME)
def test_two_tenants_never_mean_the_same_thing(mine: str, theirs: str) -> None:
    """Proves that whatever two callers of different spaces say, the node knows different names, and each is told its
    own back."""
    for one, other in ((WRITER, OTHER), (READER, WRITER), (WRITER, READER)):
        first, second = _inward(one, attachment=mine), _inward(other, attachment=theirs)
        assert first.attachment != second.attachment
        ack = memory_pb2.Ack(attachment=first.attachment)
        one.outward(ack)
        assert ack.attachment == mine
    assert _inward(WRITER, session=mine).session != _inward(OTHER, session=theirs).session
