"""Which blocks are too old or too many: positions before which they may leave. Pure."""

from collections.abc import Mapping, Sequence

from memsvc.blocks import BlockRef
from memsvc.geometry import BLOCK_TOKENS, window_start
from protos.memsvc.v1 import types_pb2


def forgettable(
    refs: Sequence[BlockRef], cuts: Sequence[int], mark: types_pb2.Fingerprint, position: int
) -> list[BlockRef]:
    """The blocks that may leave, of those that end at `position` or before.

    Args:
        refs: Of the session, in order of block.
        cuts: Positions of the newest tail and of the snapshots: their windows stay, and so does what comes after.
    """
    kept = min(window_start(cut, mark.sink_tokens, mark.window_tokens) for cut in cuts)
    first, end = mark.sink_tokens // BLOCK_TOKENS, min(position, kept) // BLOCK_TOKENS
    return [ref for ref in refs if first <= ref.block < end]


def position_past_bytes(refs: Sequence[BlockRef], bytes_max: int) -> int:
    """Where the blocks end that are too many, if the newest are kept; 0 if none are."""
    kept = 0
    for ref in reversed(refs):
        kept += ref.size_bytes
        if kept > bytes_max:
            return BLOCK_TOKENS * (ref.block + 1)
    return 0


def position_put_before(refs: Sequence[BlockRef], stored_unix_ms: Mapping[int, int], unix_ms: int) -> int:
    """Where the blocks end that were put before a time, none after it among them; 0 if there are none.

    Args:
        stored_unix_ms: By block; one that is not there is as old as those after it.
    """
    end = 0
    for ref in refs:
        stored = stored_unix_ms.get(ref.block)
        if stored is None:
            continue
        if stored >= unix_ms:
            break
        end = BLOCK_TOKENS * (ref.block + 1)
    return end
