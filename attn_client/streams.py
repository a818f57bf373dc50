"""Between torch and the memory session: embeddings out, tails in."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attn_client.memory import MemorySession
from attn_client.residents import Residents
from attn_client.settings import BLOCK_TOKENS
from protos import codec
from protos.memsvc.v1 import session_pb2

# The one stream of vectors that this client sends: the normalised input of the probe layer.
PROBE = "probe"


def embeddings_of(probe: Tensor) -> npt.NDArray[np.generic]:
    """Vectors [n, H] as numpy: float32, float16, or the raw bits of bfloat16 (uint16)."""
    host = probe.cpu().contiguous()
    return host.view(torch.uint16).numpy() if host.dtype is torch.bfloat16 else host.numpy()


def logits_of_tail(tail: session_pb2.Tail, device: torch.device) -> Tensor | None:
    """Next-token logits [vocabulary] that a tail carries, if any."""
    if not tail.HasField("logits"):
        return None
    return torch.from_numpy(codec.as_float32(tail.logits).copy()).to(device)


def restore_tail(residents: Residents, memory: MemorySession, timeout_s: float) -> list[int]:
    """Fetch sinks, window and partial block of the session's tail into empty residents.

    Returns:
        Whole blocks among them that are recorded gaps, ascending: nobody attends to their tokens any more.

    Raises:
        AttnClientError: A block is missing, damaged or did not come in time; the residents are then of no use.
    """
    assert memory.tail is not None
    assert residents.tokens == 0
    geometry, tokens = residents.geometry, memory.tail.position
    ends = -(-tokens // BLOCK_TOKENS)
    sinks = range(min(geometry.sink_blocks, ends))
    window = range(geometry.window_start(tokens) // BLOCK_TOKENS, ends)
    lost = {block for gap in memory.info.block_gaps for block in range(gap.first, gap.first + gap.count)}
    # The partial block of this tail is there, even where the whole one was dropped later.
    missing = [block for block in (*sinks, *window) if block in lost and block < tokens // BLOCK_TOKENS]
    wanted = [block for block in (*sinks, *window) if block not in missing]
    for block, data in memory.fetch_blocks(wanted, timeout_s).items():
        residents.load_block(block, data)
    residents.leave_out(missing)
    residents.commit(tokens)
    return missing
