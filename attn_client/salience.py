"""Signals that tell the server's policy which tokens stand out. Computed here, because only the model side has logits
and attention weights.

Surprisal is -log p(token | before), in nats. Its output head would cost a quarter of a small model's time, so by
default it is normalised over the most frequent token ids (byte-pair merges are numbered in order of frequency) and the
token itself; docs/LOG.md has the measured agreement with the full vocabulary. Attention mass is what
`attn_client.mass` says.
"""

import torch
from torch import Tensor

from protos.memsvc.v1 import types_pb2

SURPRISAL = "surprisal"
MASS = "attention_mass"


def wanted_signals(policy: types_pb2.PolicySpec) -> frozenset[str]:
    """Signals that a session's policy looks at; others are not worth their time."""
    kinds = (policy.kind, *(part.kind for part in policy.weights))
    of_kind = {types_pb2.POLICY_KIND_SURPRISAL: SURPRISAL, types_pb2.POLICY_KIND_ATTENTION: MASS}
    return frozenset(of_kind[kind] for kind in kinds if kind in of_kind)


class Surprisal:
    """Surprisal of a model's tokens from its last hidden vectors.

    Args:
        head: Output matrix [vocabulary, hidden].
        vocabulary: Ids below this normalise; 0 or more than there are: all.
    """

    def __init__(self, head: Tensor, vocabulary: int) -> None:
        size = head.shape[0]
        self._head = head
        self._frequent = min(vocabulary, size) if vocabulary > 0 else size

    def from_hidden(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Surprisal, float32 [n], of ids [n] where hidden [n, H] is the vector that predicts each."""
        frequent = (hidden @ self._head[: self._frequent].T).float()
        own = (hidden.float() * self._head[ids].float()).sum(-1)
        return self._nats(frequent, own, ids)

    def from_logits(self, logits: Tensor, ids: Tensor) -> Tensor:
        """The same from full logits [n, vocabulary]."""
        own = logits.float().gather(-1, ids[:, None])[:, 0]
        return self._nats(logits[:, : self._frequent].float(), own, ids)

    def _nats(self, frequent: Tensor, own: Tensor, ids: Tensor) -> Tensor:
        total = torch.logsumexp(frequent, dim=-1)
        outside = ids >= self._frequent
        total = torch.where(outside, torch.logaddexp(total, own), total)
        # The token's own logit is summed in another order than the matrix product's, so rounding can dip below zero.
        return (total - own).clamp_min(0.0)
