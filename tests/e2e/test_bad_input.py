"""Bad input: one line that says what was expected and what came, a non-zero exit, no traceback, nothing left behind."""

import dataclasses
import uuid
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest

from attn_client.cli import main
from attn_client.embedded import EmbeddedServer
from attn_client.errors import AttnClientError, MemoryProtocol, MemoryRefused, MemoryUnavailable
from attn_client.memory import MemoryClient, MemorySession, StepRecord
from attn_client.settings import BookmarkSettings
from protos.memsvc.v1 import memory_pb2, memory_pb2_grpc
from tests.e2e.models import save_model
from tests.e2e.streams import DIMS, Stream, stream_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and texts that command lines name."""
    made = tmp_path_factory.mktemp("input")
    save_model("llama", made / "llama")
    save_model("llama", made / "other", seed=1)
    save_model("gpt2", made / "gpt2")
    (made / "empty-model").mkdir()
    (made / "text.txt").write_text("A text of some length. " * 40)
    (made / "empty.txt").write_text(" \n")
    (made / "binary.bin").write_bytes(bytes(range(256)) * 4)
    (made / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    return made


LLAMA = ["--model", "{f}/llama"]
TEXT = ["--file", "{f}/text.txt"]
SMALL = ["--probe", "1", "--window", "128", "--chunk", "64", "--top", "2", "--budget", "4"]
ASK = ["ask", "--question", "What?", "--max-tokens", "2", "--json", *SMALL]

# Name, flags ({f} is the folder, {a} the server), and what the one line says of expectation and of what came.
COMMANDS: list[tuple[str, list[str], list[str]]] = [
    ("missing file", [*ASK, *LLAMA, "--file", "{f}/no.txt"], ["readable text file", "no.txt"]),
    ("folder as file", [*ASK, *LLAMA, "--file", "{f}"], ["readable text file", "directory"]),
    ("empty text", [*ASK, *LLAMA, "--file", "{f}/empty.txt"], ["expected some text", "empty.txt"]),
    ("binary file", [*ASK, *LLAMA, "--file", "{f}/binary.bin"], ["expected text", "zero byte"]),
    ("not UTF-8", [*ASK, *LLAMA, "--file", "{f}/latin.txt"], ["UTF-8", "0xe9"]),
    ("unknown model", [*ASK, "--model", "{f}/none", *TEXT], ["config.json", "none"]),
    ("no model in folder", [*ASK, "--model", "{f}/empty-model", *TEXT], ["config.json", "empty-model"]),
    ("unsupported kind", [*ASK, "--model", "{f}/gpt2", *TEXT], ["llama", "gpt2"]),
    ("past trained length", [*ASK, *LLAMA, *TEXT, "--budget", "64"], ["2048", "got"]),
    ("odd window", [*ASK, *LLAMA, *TEXT, "--window", "100"], ["multiple of 64", "100"]),
    ("unknown policy", [*ASK, *LLAMA, *TEXT, "--policy", "best"], ["surprisal", "best"]),
    ("unknown finder", [*ASK, *LLAMA, *TEXT, "--finder", "oracle"], ["faiss_gpu", "oracle"]),
    ("unknown metric", [*ASK, *LLAMA, *TEXT, "--metric", "euclid"], ["cosine", "euclid"]),
    ("17 hops", [*ASK, *LLAMA, *TEXT, "--hops", "17"], ["recall.hops", "0 to 16", "17"]),
    ("more hop blocks than top", [*ASK, *LLAMA, *TEXT, "--hops", "1", "--hop-blocks", "3"], ["1 to 2", "3"]),
    ("negative half-life", [*ASK, *LLAMA, *TEXT, "--link-half-life", "-1"], ["link_half_life_tokens", "-1"]),
    ("unknown link search", [*ASK, *LLAMA, *TEXT, "--link-search", "guess"], ["finder, walk", "guess"]),
    ("index every -1", [*ASK, *LLAMA, *TEXT, "--index-every", "-1"], ["index_every_tokens", "65536", "-1"]),
    ("index every 65537", [*ASK, *LLAMA, *TEXT, "--index-every", "65537"], ["index_every_tokens", "65537"]),
    ("unknown dtype", [*ASK, *LLAMA, *TEXT, "--dtype", "float16"], ["bfloat16, float32", "float16"]),
    ("coverage of 2", [*ASK, *LLAMA, *TEXT, "--coverage", "2"], ["0.02 to 1", "got 2"]),
    ("fused without a GPU", [*ASK, *LLAMA, *TEXT, "--attention", "fused"], ["GPU", "cpu"]),
    ("unknown attention", [*ASK, *LLAMA, *TEXT, "--attention", "quick"], ["sdpa", "quick"]),
    ("no chat template", [*ASK, *LLAMA, *TEXT, "--chat"], ["chat template", "none"]),
    ("nothing to read", [*ASK, *LLAMA], ["--file", "--session"]),
    ("unknown session", [*ASK, *LLAMA, "--memory", "{a}", "--session", "no-such"], ["no-such"]),
    ("bad session name", [*ASK, *LLAMA, "--memory", "{a}", "--session", "a/b", *TEXT], ["a/b"]),
    ("no server", [*ASK, *LLAMA, "--memory", "unix:///no/such.sock", *TEXT], ["no/such.sock"]),
    ("bad address", [*ASK, *LLAMA, "--memory", "nonsense", *TEXT], ["nonsense"]),
]


@pytest.mark.parametrize(("flags", "says"), [row[1:] for row in COMMANDS], ids=[row[0] for row in COMMANDS])
def test_a_bad_command_is_one_line_and_leaves_nothing(
    flags: list[str], says: list[str], folder: Path, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves the message, the exit code and that no session was made."""
    with MemoryClient(server.address) as client:
        before = client.list_sessions()
    code = main([flag.format(f=folder, a=server.address) for flag in flags])
    out, err = capsys.readouterr()
    assert code == 1
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert "expected" in lines[0]
    assert all(part in lines[0] for part in says), lines[0]
    with MemoryClient(server.address) as client:
        assert client.list_sessions() == before


WRONG = [
    ["ask", "--no-such-flag"],
    ["ask"],
    ["read"],
    [],
    *(["ask", "--question", "x", flag, "y"] for flag in ("--window", "--hops", "--hop-blocks", "--index-every")),
]


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_flag_is_one_line_with_exit_code_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that usage errors are told apart from failures."""
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_session_of_another_model_is_refused(
    folder: Path, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that the fingerprint stands before any reading or answering, for writers and views."""
    name = f"foreign-{uuid.uuid4().hex}"
    ingest = ["ingest", "--file", f"{folder}/text.txt", "--memory", server.address, "--session", name, *SMALL]
    assert main([*ingest, "--model", f"{folder}/llama"]) == 0
    capsys.readouterr()
    other = ["--model", f"{folder}/other"]
    for flags in ([*ingest, *other], [*ASK, *other, "--memory", server.address, "--session", name]):
        assert main(flags) == 1
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert "model" in err


def test_a_session_of_another_dtype_is_refused(
    folder: Path, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that --dtype reaches the model, that a session keeps to what it was read in, and that it is named."""
    name = f"dtype-{uuid.uuid4().hex}"
    session = ["--memory", server.address, "--session", name, *LLAMA, *SMALL]
    ingest = [flag.format(f=folder) for flag in ["ingest", *TEXT, *session]]
    assert main([*ingest, "--dtype", "float32"]) == 0
    ask = [flag.format(f=folder) for flag in [*ASK, *session]]
    assert main([*ask, "--dtype", "float32"]) == 0
    capsys.readouterr()
    assert main(ask) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    # The model's hash covers its weights' type and comes first.
    assert "model" in err


def test_reading_into_a_session_that_holds_tokens_needs_append(
    folder: Path, server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that a second ingest does not silently double a text."""
    name = f"twice-{uuid.uuid4().hex}"
    ingest = ["ingest", "--file", f"{folder}/text.txt", "--memory", server.address, "--session", name, *SMALL]
    ingest += ["--model", f"{folder}/llama"]
    assert main(ingest) == 0
    assert main(ingest) == 1
    assert "--append" in capsys.readouterr().err
    assert main([*ingest, "--append"]) == 0


def _nan(record: StepRecord) -> StepRecord:
    record.embeddings["probe"][3, 5] = np.nan
    return record


def _changed(record: StepRecord, **fields: object) -> StepRecord:
    return dataclasses.replace(record, **fields)  # type: ignore[arg-type]


STEPS: list[tuple[str, Callable[[StepRecord], StepRecord], str]] = [
    ("NaN", _nan, "finite"),
    ("infinite", lambda r: _changed(r, embeddings={"probe": np.full((64, DIMS), np.inf, np.float32)}), "finite"),
    ("dimension", lambda r: _changed(r, embeddings={"probe": np.zeros((64, DIMS + 1), np.float32)}), str(DIMS)),
    ("dtype", lambda r: _changed(r, embeddings={"probe": np.zeros((64, DIMS), np.uint32)}), "float"),
    ("no stream", lambda r: _changed(r, embeddings={}), "probe"),
    ("no signal", lambda r: _changed(r, signals={}), "surprisal"),
    ("NaN signal", lambda r: _changed(r, signals={"surprisal": np.full(64, np.nan, np.float32)}), "finite"),
    ("position", lambda r: _changed(r, first_position=128), "position"),
]


@pytest.fixture
def stream() -> Stream:
    """A stream of 256 tokens."""
    return stream_of(256, seed=1)


@pytest.mark.parametrize(("spoil", "says"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS])
def test_a_bad_step_is_refused_whole(
    spoil: Callable[[StepRecord], StepRecord], says: str, stream: Stream, client: MemoryClient
) -> None:
    """Proves that the server refuses the step in words, keeps nothing of it, and that the writer hears of it."""
    name = f"bad-{uuid.uuid4().hex}"
    spec = stream.spec(BookmarkSettings(coverage=0.2))
    client.create_session(name, spec)
    session = client.open_writer(name, spec.fingerprint)

    def send() -> None:
        session.append(spoil(stream.record(0, 64, None)), wait=True)
        session.save_tail(64, None, 0, None)

    with pytest.raises(AttnClientError, match=f"(?i){says}"):
        send()
    session.close()
    assert client.get_session(name).tokens == 0
    client.delete_session(name)


def test_two_writers_of_one_session_are_one_too_many(
    stream: Stream, client: MemoryClient, server: EmbeddedServer
) -> None:
    """Proves that the second writer is refused while the first is there, and let in afterwards."""
    name = f"writers-{uuid.uuid4().hex}"
    spec = stream.spec(BookmarkSettings())
    client.create_session(name, spec)
    first = client.open_writer(name, spec.fingerprint)
    with MemoryClient(server.address) as other:
        with pytest.raises(MemoryRefused, match="writer") as refused:
            other.open_writer(name, spec.fingerprint)
        assert refused.value.reason == "SESSION_HAS_WRITER"
        first.close()
        other.open_writer(name, spec.fingerprint).close()


def test_a_message_over_the_limit_is_refused(server: EmbeddedServer) -> None:
    """Proves that 8 MiB and a little is refused with a typed error and the server lives on."""
    limit = 8 << 20
    address = server.address.replace("unix://", "unix:")
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        request = memory_pb2.AttachRequest(hello=memory_pb2.Hello(protocol_version=1, worker="x" * (limit + 1)))
        stub = memory_pb2_grpc.MemoryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Attach(iter([request]), timeout=10))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with MemoryClient(server.address) as client:
        client.list_sessions()


class _NewerServer(memory_pb2_grpc.MemoryServiceServicer):
    def Attach(self, request_iterator: object, context: object) -> object:
        """Welcomes everybody, in another version."""
        yield memory_pb2.AttachResponse(welcome=memory_pb2.Welcome(protocol_version=2, server_version="9.9.9"))


def test_a_server_of_another_version_is_refused(tmp_path: Path) -> None:
    """Proves that versions are compared before anything is sent."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(_NewerServer(), server)
    address = f"unix://{tmp_path}/newer.sock"
    server.add_insecure_port(address)
    server.start()
    try:
        with pytest.raises(MemoryProtocol, match="version"):
            MemoryClient(address)
    finally:
        server.stop(None)


def test_no_server_is_told_in_one_line() -> None:
    """Proves the error of the library as well as of the command line."""
    with pytest.raises(MemoryUnavailable, match=r"^[^\n]*nobody\.sock[^\n]*$"):
        MemoryClient("unix:///nobody.sock")


def test_sessions_are_what_a_closed_writer_left(stream: Stream, client: MemoryClient) -> None:
    """Proves that a writer that closes without a tail leaves a session that holds nothing a view could open on."""
    name = f"untailed-{uuid.uuid4().hex}"
    spec = stream.spec(BookmarkSettings(coverage=0.2))
    client.create_session(name, spec)
    session: MemorySession = client.open_writer(name, spec.fingerprint)
    session.append(stream.record(0, 64, None), wait=True)
    session.close()
    view = client.open_view(name, spec.fingerprint)
    assert view.position == 0
    view.close()
    client.delete_session(name)
