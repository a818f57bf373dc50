"""What makes two models the same to a session."""

import torch

from attn_client.hf.fingerprint import fingerprint_of
from attn_client.hf.support import decoder_of
from attn_client.settings import Settings
from protos.memsvc.v1 import types_pb2
from tests.e2e.models import tiny_model
from tests.e2e.settings import SMALL


def _fingerprint(model: torch.nn.Module, settings: Settings = SMALL) -> types_pb2.Fingerprint:
    return fingerprint_of(decoder_of(model, settings), None, settings)  # type: ignore[arg-type]


def test_a_rotary_embedding_that_is_off_by_rounding_is_the_same() -> None:
    """Proves that a session written on one processor is read on another, whose cosines differ in their last bits."""
    model = tiny_model("llama")
    before = _fingerprint(model)
    rotary = model.model.rotary_emb
    rotary.inv_freq = torch.nextafter(rotary.inv_freq, torch.full_like(rotary.inv_freq, 2.0))
    assert _fingerprint(model) == before


def test_another_rotary_embedding_is_another_model() -> None:
    """Proves that blocks are not read by a model that would rotate them otherwise."""
    model = tiny_model("llama")
    before = _fingerprint(model)
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 777.0}
    assert _fingerprint(model).rope != before.rope
