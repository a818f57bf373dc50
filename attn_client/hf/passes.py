"""A model's forward pass with its attention replaced for as long as a `with` block lasts.

How it works: the rotary module is made the identity by a hook, so that queries and keys reach attention before
rotation, exactly; attention and mask are registered under one name (without the second, masks would be dropped
silently) and the model is set to it; a hook on the probe layer's input norm takes the embedding. Leaving restores all
three: a detached model is bit-identical to one never attached.
"""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from attn_client.attention import RowPass, RowsPass
from attn_client.hf.support import Decoder


@dataclass(frozen=True)
class PassOutput:
    """What one pass gives: last hidden vectors (after the final norm) and probe vectors, both [rows, count, H], and of
    each row the attention mass of its tokens, float32 [count], where it asked for that.
    """

    hidden: Tensor
    probe: Tensor
    mass: tuple[npt.NDArray[np.float32] | None, ...]


class ModelPasses:
    """Runs an attached model over rows of residents. Made by `attached`; use it only inside that block."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._rows: RowsPass | None = None
        self._probe: Tensor | None = None

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a sequence, from the model's generation configuration."""
        ends = self.decoder.model.generation_config.eos_token_id
        return frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))

    def run(self, rows: Sequence[RowPass], ids: Tensor) -> PassOutput:
        """One pass over ids [rows, count]; each row's plan is for exactly these tokens."""
        self._rows = RowsPass(rows)
        try:
            with torch.inference_mode():
                hidden = self.decoder.body(input_ids=ids, use_cache=False).last_hidden_state
        finally:
            self._rows = None
        for row in rows:
            row.residents.finish(row.plan)
        probe, self._probe = self._probe, None
        assert probe is not None, "the probe layer ran without its hook"
        return PassOutput(hidden, probe, tuple(row.mass for row in rows))

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, float32 [..., vocabulary], of last hidden vectors [..., H]."""
        with torch.inference_mode():
            return torch.nn.functional.linear(hidden, self.decoder.head).float()

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: object, **options: object
    ) -> tuple[Tensor, None]:
        """The registered attention: query [rows, heads, count, D] before rotation; out [rows, count, heads, D]."""
        if self._rows is None:
            raise RuntimeError(
                "expected a pass of an attached model, got a plain call: use the attached cache or detach"
            )
        scale = options["scaling"]
        assert isinstance(scale, float)
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        return self._rows.attend(layer, query, key, value, scale).transpose(1, 2), None

    def take_probe(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        """Forward hook of the probe layer's input norm."""
        self._probe = output


def _no_mask(*_args: object, **_options: object) -> None:
    """Mask for the registered name: every row's plan says what may be seen, so none is needed."""


def _no_rotation(_module: nn.Module, _inputs: object, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Forward hook of the rotary module: cos 1 and sin 0 leave x * cos + turned(x) * sin exactly x."""
    cos, sin = output
    return torch.ones_like(cos), torch.zeros_like(sin)


@contextlib.contextmanager
def attached(decoder: Decoder, probe_layer: int) -> Iterator[ModelPasses]:
    """Attach the model for the length of the block."""
    passes = ModelPasses(decoder)
    name = f"bookmark_memory_{uuid.uuid4().hex}"
    before = decoder.model.config._attn_implementation
    with contextlib.ExitStack() as undo:
        for registry, function in ((AttentionInterface, passes.attend), (AttentionMaskInterface, _no_mask)):
            registry.register(name, function)
            undo.callback(registry._global_mapping.pop, name, None)
        undo.callback(decoder.model.set_attn_implementation, before)
        decoder.model.set_attn_implementation(name)
        undo.callback(decoder.rotary.register_forward_hook(_no_rotation).remove)
        norm = decoder.layers[probe_layer].input_layernorm
        undo.callback(norm.register_forward_hook(passes.take_probe).remove)  # type: ignore[union-attr]
        yield passes
