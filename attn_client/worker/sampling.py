"""How the next token is chosen from its logits."""

import torch
from torch import Tensor

from attn_client.worker.asks import Sampling


class Sampler:
    """Chooses tokens. With a seed its choices depend on the logits alone."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """A token by its logits, float32 [vocabulary]."""
        if self._sampling.temperature == 0.0:
            return int(logits.argmax())
        shares = torch.softmax(logits.double().cpu() / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1.0:
            ordered, index = shares.sort(descending=True)
            # The likeliest tokens that together reach top_p; the first always stays.
            ordered[ordered.cumsum(0) - ordered >= self._sampling.top_p] = 0.0
            shares = torch.zeros_like(shares).scatter_(0, index, ordered)
        return int(torch.multinomial(shares, 1, generator=self._generator))
