"""Attention mass: what each token of a pass receives from the pass's own tokens, itself included.

A step carries the signals of its tokens, so a token's mass is what is known of it when its pass ends: the attention
that the tokens from it to the end of the pass give it, summed over heads, out of their whole softmax over sinks,
recalled blocks, window and pass. Of itself that says little. Near tokens receive more than far ones, and the pass's
first token is seen by all of them where its last is seen by itself alone. So the sum is divided by what a token seen
from the same distances receives on average in this pass:

    mass[t] = sum over q >= t of p[q, t] / sum over q >= t of average over s of p[s + q - t, s]

1 is a token like others, whatever its place in the pass and however long the pass is; sinks draw from all tokens alike.
A token that is read alone has nothing to be compared with: 1. A function of the pass's weights only: what is sent
depends on ids and on where passes are cut, as everything that is stored does.

Must not know: sessions, policies, residents.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def own_weights(query: Tensor, keys: Tensor, lse: Tensor, scale: float) -> Tensor:
    """Attention that the tokens of a pass give each other.

    Args:
        query: Rotated, [heads, n, D].
        keys: Rotated, of the same tokens, [kv heads, n, D].
        lse: Log-sum-exp of each query's scores over all keys that it sees, float32 [heads, n].

    Returns:
        Summed over heads, float32 [n queries, n keys]; 0 for keys after the query.
    """
    kv_heads, count, dim = keys.shape
    groups = query.shape[0] // kv_heads
    folded = query.float().reshape(kv_heads, groups * count, dim)
    scores = torch.bmm(folded, keys.float().transpose(1, 2)).view(-1, count, count) * scale
    return torch.exp(scores - lse[..., None]).sum(dim=0).tril_()


def received(weights: Tensor) -> npt.NDArray[np.float32]:
    """Mass, float32 [n], of the tokens of a pass from the weights [n queries, n keys] of `own_weights`."""
    count = weights.shape[0]
    at = torch.arange(count, device=weights.device)
    # Column d of row q is what q gives the token d before it.
    by_distance = weights.gather(1, (at[:, None] - at).clamp_min_(0)).tril_()
    sums, distances = (tensor.sum(dim=0).cpu().numpy().astype(np.float64) for tensor in (weights, by_distance))
    average = distances / np.arange(count, 0, -1)
    expected = np.cumsum(average)[::-1]
    return np.divide(sums, expected, out=np.ones(count), where=expected > 0).astype(np.float32)
