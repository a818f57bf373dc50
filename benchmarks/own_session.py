"""A session of the server inside the benchmark's own process: what it is made with, and its writer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attn_client.settings import RecallSettings, WindowSettings
from memsvc.manifest import SqliteManifest
from memsvc.session import Attachment, SessionLimits, Sessions
from protos.memsvc.v1 import session_pb2, types_pb2

# Of the session, its attachment and its worker; there is one of each.
NAME = "bench"
STREAM = "probe"


def fingerprint(
    dims: int, chunk_tokens: int, block_bytes: int, memory_layers: Sequence[int] = ()
) -> types_pb2.Fingerprint:
    """Of no model: one stream of vectors, and the client's own window."""
    window = WindowSettings()
    return types_pb2.Fingerprint(
        model="a" * 64,
        tokenizer="b" * 64,
        rope="c" * 64,
        dtype=types_pb2.ELEMENT_TYPE_BFLOAT16,
        memory_layers=memory_layers,
        sink_tokens=window.sink_tokens,
        window_tokens=window.window_tokens,
        chunk_tokens=chunk_tokens,
        budget_blocks=RecallSettings().budget_blocks,
        streams=[types_pb2.StreamSpec(name=STREAM, dims=dims)],
        block_bytes=block_bytes,
    )


def limits() -> SessionLimits:
    """Wide enough for any benchmark."""
    return SessionLimits(
        sessions_max=8, step_tokens_max=4096, recalls_remembered=16, block_bytes_max=64 << 20, stream_dims_max=4096
    )


@contextmanager
def served(data: Path) -> Iterator[Sessions]:
    """The sessions of a folder, which exists."""
    manifest = SqliteManifest(data / "manifest.sqlite")
    sessions = Sessions(data, manifest, limits())
    try:
        yield sessions
    finally:
        sessions.close()
        manifest.close()


def new_writer(sessions: Sessions, spec: types_pb2.SessionSpec) -> Attachment:
    """Makes the session and opens its first writer, whose epoch is 1."""
    sessions.create(NAME, spec)
    return open_writer(sessions, spec.fingerprint)


def open_writer(sessions: Sessions, mark: types_pb2.Fingerprint, resume_epoch: int = 0) -> Attachment:
    """Opens a writer; with an epoch, the one that had it goes on."""
    request = session_pb2.OpenSessionRequest(
        session=NAME,
        mode=session_pb2.OPEN_MODE_WRITER,
        fingerprint=mark,
        worker=NAME,
        attachment=NAME,
        resume_epoch=resume_epoch,
    )
    sessions.open(request)
    return sessions.attachment(NAME)
