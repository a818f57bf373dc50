"""What identifies a model to a session: hashes over configuration, weights, tokenizer and rotary embedding."""

import hashlib
import json

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attn_client.hf.support import Decoder
from attn_client.settings import Settings
from attn_client.streams import PROBE
from protos.memsvc.v1 import types_pb2

# Of each weight this many elements, evenly spread, are hashed: a fine-tune moves all of them, and a load stays fast.
SAMPLED_ELEMENTS = 4096

_ELEMENT = {
    torch.float32: types_pb2.ELEMENT_TYPE_FLOAT32,
    torch.float16: types_pb2.ELEMENT_TYPE_FLOAT16,
    torch.bfloat16: types_pb2.ELEMENT_TYPE_BFLOAT16,
}


def fingerprint_of(
    decoder: Decoder, tokenizer: PreTrainedTokenizerBase | None, settings: Settings
) -> types_pb2.Fingerprint:
    """Fingerprint of an attached model. Without a tokenizer its field is empty, and equals only another empty one."""
    layers = settings.probe.memory_layers
    shape = decoder.shape
    return types_pb2.Fingerprint(
        model=_model_hash(decoder.model),
        tokenizer=_tokenizer_hash(tokenizer) if tokenizer is not None else "",
        memory_layers=range(shape.layers) if layers is None else layers,
        dtype=_ELEMENT[shape.dtype],
        rope=_rope_hash(decoder),
        sink_tokens=settings.window.sink_tokens,
        window_tokens=settings.window.window_tokens,
        chunk_tokens=settings.window.chunk_tokens,
        budget_blocks=settings.recall.budget_blocks,
        probe_layer=settings.probe.layer,
        streams=[types_pb2.StreamSpec(name=PROBE, dims=decoder.hidden_size, weight=1.0)],
        block_bytes=shape.block_bytes,
        recall_while_reading=settings.recall.while_reading,
    )


def _model_hash(model: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    kept = {k: v for k, v in model.config.to_dict().items() if not k.startswith(("_", "transformers_version"))}
    kept.pop("dtype", None)
    digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLED_ELEMENTS)
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(flat[::step].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _rope_hash(decoder: Decoder) -> str:
    """Of what the rotary embedding is made from. Its cosines differ in their last bits from one processor to another,
    and a session that was written on one is to be read on the other.
    """
    kept = {key: value for key, value in decoder.model.config.to_dict().items() if key.startswith("rope")}
    made = {**kept, "kind": type(decoder.rotary).__name__, "dims": decoder.shape.head_dim}
    return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()
