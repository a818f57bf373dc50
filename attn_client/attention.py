"""Attention of one row over its residents: one softmax over sinks, recalled blocks (with bias) and window.

Three implementations of the same sum, chosen by the settings: `sdpa` (torch's own kernel over the row's slots, fast on
a CPU), `reference` (attn_kernels, eager) and `fused` (attn_kernels, Triton). Score of a key at packed position k for a
query at q >= k: scale * rope(q) . rope(k) + alpha[head] * bias[slot].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attn_client import mass
from attn_client.residents import UNUSED, Plan, Residents
from attn_client.settings import BLOCK_TOKENS, Implementation
from attn_kernels import Impl, Pages, PageTable, Rope, paged_attention


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [heads, n, D] with tables [n, D], halves rotated as transformers does."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


@dataclass(frozen=True)
class AttentionParts:
    """What every row shares: rotary tables [L, D] in fp32 and in the model's dtype, alpha [heads], and the way."""

    rope: Rope
    cos: Tensor
    sin: Tensor
    alpha: Tensor
    implementation: Implementation


@dataclass(frozen=True)
class LayerRoles:
    """What single layers do beside attending: those of `memory` see recalled blocks; in `mass` (None: nowhere) the
    attention mass of the pass's tokens is taken.
    """

    memory: frozenset[int]
    mass: int | None


@dataclass(frozen=True)
class OwnTokens:
    """A row's own tokens in one layer: query [heads, count, D], keys and values [kv heads, count, D], before rotation;
    query and keys after it as well, where the row `turns` them.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    turned_query: Tensor
    turned_keys: Tensor


class RowPass:
    """One row in one pass over the model: `attend` is called once a layer, in any order of layers.

    Attributes:
        mass: Attention mass of the pass's tokens, float32 [count], once its layer ran; None if none is wanted.
    """

    def __init__(self, residents: Residents, plan: Plan, parts: AttentionParts, layers: LayerRoles) -> None:
        self.residents = residents
        self.plan = plan
        self.mass: npt.NDArray[np.float32] | None = None
        self._parts = parts
        self._layers = layers
        self.cos = parts.cos[plan.query_position]
        self.sin = parts.sin[plan.query_position]
        self._stale_are_turned = False
        # Recalled slots come last, so a layer without memory reads a shorter prefix.
        self._read = {
            True: residents.geometry.recalled_slot + (plan.recalled.stop - plan.recalled.start),
            False: residents.geometry.recalled_slot,
        }
        self._masks: dict[bool, Tensor] = {}

    def turns(self, layer: int) -> bool:
        """Whether its attention in a layer takes queries and keys after rotation."""
        return self._parts.implementation is Implementation.SDPA or layer == self._layers.mass

    def attend(self, layer: int, own: OwnTokens, scale: float) -> Tensor:
        """Write the pass's keys and values, then attend; [heads, count, D] in the query's dtype."""
        self.residents.write(layer, self.plan, own.keys, own.values)
        if self._parts.implementation is Implementation.SDPA:
            return self._sdpa(layer, own, scale)
        return self._paged(layer, own, scale)

    def _sdpa(self, layer: int, own: OwnTokens, scale: float) -> Tensor:
        residents, plan = self.residents, self.plan
        self._rotate_stale()
        residents.write_rotated(layer, plan, own.turned_keys)
        recall = layer in self._layers.memory
        slots = self._read[recall]
        heads, count, dim = own.turned_query.shape
        groups = heads // residents.shape.kv_heads
        # Heads of one group share their keys: they are folded into the query axis, which torch's CPU kernel takes.
        folded = own.turned_query.reshape(1, -1, groups * count, dim)
        rotated = residents.rotated[layer, :, :slots].reshape(1, -1, slots * BLOCK_TOKENS, dim)
        if layer == self._layers.mass:
            lse = self._lse(folded[0], rotated[0], self._mask(recall, groups)[0], scale)
            self._take_mass(own, lse.view(heads, count), scale)
        out = torch.nn.functional.scaled_dot_product_attention(
            folded,
            rotated,
            residents.values[layer, :, :slots].reshape(1, -1, slots * BLOCK_TOKENS, dim),
            attn_mask=self._mask(recall, groups),
            scale=scale,
        )
        return out.reshape(heads, count, dim)

    @staticmethod
    def _lse(folded: Tensor, keys: Tensor, mask: Tensor, scale: float) -> Tensor:
        """Log-sum-exp, float32 [kv heads, rows], of explicit scores; torch's kernel keeps its own to itself."""
        # One KV head at a time: the scores of all of them would not stay in a CPU's cache.
        heads = zip(folded.float(), keys.float(), mask.expand(len(keys), -1, -1), strict=True)
        return torch.stack([torch.logsumexp((q * scale) @ k.T + hidden, dim=-1) for q, k, hidden in heads])

    def _take_mass(self, own: OwnTokens, lse: Tensor, scale: float) -> None:
        """Attention mass from own queries and keys, and the log-sum-exp of each query [heads, count]."""
        self.mass = mass.received(mass.own_weights(own.turned_query, own.turned_keys, lse, scale))

    def _rotate_stale(self) -> None:
        """Rotate again what stands elsewhere now, in every layer at once: a call a layer would cost more than it does.

        Slots that new tokens are written to may be among them; those are rotated as they are written.
        """
        stale = self.plan.stale
        if self._stale_are_turned or not len(stale):
            return
        self._stale_are_turned = True
        residents, parts = self.residents, self._parts
        slots = torch.from_numpy(stale).to(residents.shape.device)
        position = self.plan.slot_position[stale][:, None] + np.arange(BLOCK_TOKENS)
        at = torch.from_numpy(position.reshape(-1)).to(residents.shape.device)
        keys = residents.keys.index_select(2, slots)
        turned = rotate(keys.flatten(2, 3), parts.cos[at], parts.sin[at])
        residents.rotated.index_copy_(2, slots, turned.view_as(keys))

    def _mask(self, recall: bool, groups: int) -> Tensor:
        """Additive mask [1, kv heads or 1, groups * count, keys]: bias where a key may be seen, -inf elsewhere."""
        if recall not in self._masks:
            self._masks[recall] = self._make_mask(recall, groups)
        return self._masks[recall]

    def _make_mask(self, recall: bool, groups: int) -> Tensor:
        plan, shape = self.plan, self.residents.shape
        slots = self._read[recall]
        in_slot = np.arange(BLOCK_TOKENS)
        filled = (plan.slot_position[:slots, None] != UNUSED) & (in_slot < plan.slot_tokens[:slots, None])
        position = np.where(filled, plan.slot_position[:slots, None] + in_slot, np.iinfo(np.int64).max)
        keys = torch.from_numpy(position.reshape(-1)).to(shape.device)
        seen = keys[None, :] <= plan.query_position[:, None]
        hidden = torch.zeros(seen.shape, dtype=shape.dtype, device=shape.device).masked_fill_(~seen, -torch.inf)
        bias = torch.from_numpy(np.repeat(plan.slot_bias[:slots], BLOCK_TOKENS)).to(shape.device)
        if not recall or not plan.slot_bias.any():
            return hidden.repeat(groups, 1)[None, None]
        per_head = (self._parts.alpha[:, None, None] * bias).to(shape.dtype) + hidden
        return per_head.reshape(1, -1, groups * plan.count, keys.shape[0])

    def _paged(self, layer: int, own: OwnTokens, scale: float) -> Tensor:
        residents, plan, device = self.residents, self.plan, self.residents.shape.device
        slots = self._read[layer in self._layers.memory]
        # Entries in order of position, so that tiles past the causal edge can be skipped.
        order = np.argsort(plan.slot_position[:slots], kind="stable")
        order = order[plan.slot_position[order] != UNUSED]
        table = PageTable(
            page=torch.from_numpy(order.astype(np.int32))[None].to(device),
            tokens=torch.from_numpy(plan.slot_tokens[order].astype(np.int32))[None].to(device),
            position=torch.from_numpy(plan.slot_position[order].astype(np.int32))[None].to(device),
            bias=torch.from_numpy(plan.slot_bias[order])[None].to(device),
        )
        pages = Pages(residents.keys[layer].transpose(0, 1), residents.values[layer].transpose(0, 1))
        impl = Impl.FUSED if self._parts.implementation is Implementation.FUSED else Impl.REFERENCE
        position = plan.query_position.to(torch.int32)[None]
        state = paged_attention(
            own.query[None], position, pages, table, self._parts.rope, self._parts.alpha, scale, impl
        )
        if layer == self._layers.mass:
            self._take_mass(own, state.lse[0], scale)
        return state.out[0]


class RowsPass:
    """All rows of one pass: what is the same work for each is done for all of them at once."""

    def __init__(self, rows: Sequence[RowPass]) -> None:
        self._rows = tuple(rows)
        # [rows, 1, count, D]: the same for every head.
        self._cos = torch.stack([row.cos for row in rows])[:, None]
        self._sin = torch.stack([row.sin for row in rows])[:, None]

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Write the pass's keys and values, then attend, each row to its own residents.

        Args:
            query: Before rotation, [rows, heads, count, D].
            keys, values: Before rotation, [rows, kv heads, count, D].

        Returns:
            [rows, heads, count, D] in the query's dtype.
        """
        turned = query, keys
        if any(row.turns(layer) for row in self._rows):
            turned = rotate(query, self._cos, self._sin), rotate(keys, self._cos, self._sin)
        own = zip(query, keys, values, *turned, strict=True)
        attended = [row.attend(layer, OwnTokens(*one), scale) for row, one in zip(self._rows, own, strict=True)]
        return torch.stack(attended)
