"""`model.generate` over readers: a cache that holds no keys, and the forward call that routes to the readers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from attn_client.errors import UnsupportedCall
from attn_client.hf.passes import ModelPasses
from attn_client.reader import Reader, decode


class _TokenCount(CacheLayerMixin):
    """The one layer that transformers asks for lengths: counts the tokens that went through the cache."""

    is_compileable = False
    is_croppable = False

    def __init__(self) -> None:
        # transformers leaves its constructor untyped.
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make: readers hold the keys."""

    def update(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Never called by a reader's pass."""
        raise UnsupportedCall("expected keys and values to go to a reader, got them in the cache")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of a mask over everything read."""
        return self.count + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens that went through this cache."""
        return self.count

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class MemoryCache(Cache):
    """Stands for one reader a row. Counts from 0 when made: pass only the new tokens, not what a session already holds.

    Rows may have their own lengths, padded on the left with an attention mask. A row that was fed an end-of-sequence id
    is finished: what `generate` pads it with afterwards is not read.
    """

    def __init__(self, passes: ModelPasses, readers: Sequence[Reader]) -> None:
        self._counter = _TokenCount()
        super().__init__(layers=[self._counter])
        self._passes = passes
        self.readers = tuple(readers)
        self._finished = [False] * len(self.readers)
        self._ends = passes.end_ids

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beams would need a fork of the session each."""
        raise UnsupportedCall("expected sampling or greedy search, got beam search: a session has one history")

    def crop(self, max_length: int) -> None:
        """What was read is in memory and cannot be unread."""
        raise UnsupportedCall("expected a stream that only grows, got a crop (assisted generation)")

    def forward(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Read ids [rows, n] and return next-token logits [rows, 1, vocabulary]."""
        rows, count = ids.shape
        if rows != len(self.readers):
            raise UnsupportedCall(f"expected {len(self.readers)} rows, one a reader, got {rows}")
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask[:, -count:]
        decoding = self._counter.count > 0 and count == 1
        self._counter.count += count
        if decoding:
            return self._decode(ids)
        logits = [reader.prompt(ids[row][mask[row].bool()].tolist()) for row, reader in enumerate(self.readers)]
        return torch.stack(logits)[:, None]

    def _decode(self, ids: Tensor) -> Tensor:
        tokens = ids[:, 0].tolist()
        going = [row for row in range(len(tokens)) if not self._finished[row]]
        if going:
            decode(self._passes, [self.readers[row] for row in going], [tokens[row] for row in going])
        for row in going:
            self._finished[row] = tokens[row] in self._ends
        return torch.stack([reader.next_logits() for reader in self.readers])[:, None]


def routed(
    original: Callable[..., object],
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Cache | None = None,
    **options: object,
) -> object:
    """Forward call of an attached model: through the readers if the cache is ours, else as before."""
    if not isinstance(past_key_values, MemoryCache) or input_ids is None:
        return original(input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values, **options)
    logits = past_key_values.forward(input_ids, attention_mask)
    return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
