"""Records, blocks and short ways for tests of the memory client against a scripted server."""

import numpy as np
import numpy.typing as npt

from attn_client.memory import ClientSettings, MemoryClient, MemorySession, RecallAsk, StepRecord
from protos.memsvc.v1 import types_pb2
from tests.integration.scripted_server import BLOCK_BYTES

ASK = RecallAsk(top_blocks=4, neighbours=1, budget_blocks=8, deadline_ms=1000)
DIMS = 16
# Long enough that no wait of a passing test comes near it on a busy machine.
LONG_S = 20.0
# Three steps of 256 tokens, at 256 x (4 + 64 + 4) bytes and a KiB of overhead, and a fourth does not fit.
THREE_STEPS_BYTES = 1 << 16
STEP_TOKENS = 256


def settings(**changes: object) -> ClientSettings:
    """Without shared memory, and quick to come back."""
    given: dict[str, object] = {"arena_bytes": 0, "reconnect_max_s": 0.1, **changes}
    return ClientSettings(**given)  # type: ignore[arg-type]


def record(first: int, tokens: int = 64, ask: RecallAsk | None = None) -> StepRecord:
    """Tokens from `first` on; their numbers depend on the position."""
    return StepRecord(
        first_position=first,
        ids=np.arange(first, first + tokens, dtype=np.uint32),
        embeddings={"probe": np.full((tokens, DIMS), first, np.float32)},
        signals={"surprisal": np.zeros(tokens, np.float32)},
        resident=(first // 64 * 64, tokens),
        recall=ask,
    )


def block_of(block: int) -> npt.NDArray[np.uint8]:
    """Bytes of a block; they depend on its number."""
    return np.random.default_rng(block).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)


def writer(client: MemoryClient) -> MemorySession:
    """The scripted server's one session, for writing."""
    return client.open_writer("s", types_pb2.Fingerprint(block_bytes=BLOCK_BYTES))


def settle(session: MemorySession, position: int) -> None:
    """Everything acknowledged: what a tail waits for."""
    session.save_tail(position, None, None, None)


def until_lost(session: MemorySession) -> None:
    """Raise what a session is lost to, once the client has found out."""
    changed = session._link.changed
    with changed:
        assert changed.wait_for(lambda: session._attachment.lost is not None, LONG_S)
    session.fetch_blocks([0], LONG_S)


def until_empty(session: MemorySession) -> None:
    """Everything that was handed over is acknowledged."""
    changed = session._link.changed
    with changed:
        assert changed.wait_for(lambda: not session.stats.outbox_bytes, LONG_S)
