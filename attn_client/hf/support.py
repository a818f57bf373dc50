"""Which models can be attached, and what is read off them. Refusals name the model and the reason in one line."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attn_client.errors import InvalidSettings, UnsupportedModel
from attn_client.residents import RowShape
from attn_client.settings import Implementation, Settings
from attn_kernels import Rope

# Models whose decoder layers call the registered attention and share one rotary module.
SUPPORTED_TYPES = ("llama", "mistral", "qwen2", "qwen3")
# Rotary kinds whose tables do not depend on how long the stream is.
FIXED_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Decoder:
    """The parts of a causal language model that the attachment touches."""

    model: PreTrainedModel
    body: nn.Module
    layers: nn.ModuleList
    rotary: nn.Module
    head: Tensor
    shape: RowShape
    heads: int
    trained_tokens: int

    @property
    def hidden_size(self) -> int:
        """Dimensions of an embedding."""
        return int(self.head.shape[1])


def decoder_of(model: PreTrainedModel, settings: Settings) -> Decoder:
    """Check that `model` can be attached with `settings` and name its parts.

    Raises:
        UnsupportedModel: Kind of model, sliding layers, or a rotary embedding that depends on length.
        InvalidSettings: Longer than trained, or layers that the model does not have.
    """
    config = model.config
    kind = getattr(config, "model_type", type(model).__name__)
    if kind not in SUPPORTED_TYPES:
        raise UnsupportedModel(f"expected a model of type {', '.join(SUPPORTED_TYPES)}, got {kind!r}")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        raise UnsupportedModel(f"expected full attention in every layer, got {sorted(kinds)} in a {kind} model")
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type not in FIXED_ROPE_TYPES:
        raise UnsupportedModel(f"expected a rotary embedding of type {', '.join(FIXED_ROPE_TYPES)}, got {rope_type!r}")
    _check_settings(settings, config.num_hidden_layers, config.max_position_embeddings)
    if settings.implementation is Implementation.FUSED and model.device.type != "cuda":
        where = model.device.type
        raise InvalidSettings(f"implementation: expected a model on a GPU for 'fused', got one on {where!r}")
    body = model.get_submodule("model")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weight = model.get_output_embeddings().weight
    return Decoder(
        model=model,
        body=body,
        layers=body.layers,  # type: ignore[arg-type]
        rotary=body.rotary_emb,  # type: ignore[arg-type]
        head=weight,
        shape=RowShape(config.num_hidden_layers, config.num_key_value_heads, head_dim, weight.dtype, weight.device),
        heads=config.num_attention_heads,
        trained_tokens=config.max_position_embeddings,
    )


def _check_settings(settings: Settings, layers: int, trained_tokens: int) -> None:
    longest = settings.packed_tokens_max
    if settings.recall.positions == "packed" and longest > trained_tokens:
        raise InvalidSettings(
            f"expected sinks + recalled + window + chunk within the trained {trained_tokens} tokens, got {longest}"
        )
    if settings.probe.layer >= layers:
        raise InvalidSettings(f"probe.layer: expected 0 to {layers - 1}, got {settings.probe.layer}")
    if settings.probe.mass_layer is not None and settings.probe.mass_layer >= layers:
        raise InvalidSettings(f"probe.mass_layer: expected 0 to {layers - 1}, got {settings.probe.mass_layer}")
    asked = settings.probe.memory_layers
    if asked is not None and asked[-1] >= layers:
        raise InvalidSettings(f"probe.memory_layers: expected layers 0 to {layers - 1}, got {asked[-1]}")


def rope_table(decoder: Decoder, tokens: int) -> Rope:
    """The model's own rotary tables in fp32 for positions 0 .. tokens - 1."""
    device = decoder.shape.device
    probe = torch.zeros(1, dtype=torch.float32, device=device)
    position = torch.arange(tokens, device=device)[None]
    # `forward` and not a call: hooks on the module replace its output while attached.
    cos, sin = decoder.rotary.forward(probe, position)
    return Rope(cos[0].contiguous(), sin[0].contiguous())
