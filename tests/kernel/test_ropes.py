"""Rotary tables by recipe, against transformers' own and against their definitions."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from attn_kernels import Rope, UnsupportedShape
from attn_kernels.ropes import Rotary, interpolated, ntk, plain, unrotated, yarn

DIM, BASE, TRAINED, FACTOR = 64, 10000.0, 512, 4.0
ROTARY = Rotary(TRAINED * 4, DIM, BASE)
RECIPES = {
    "default": lambda: plain(ROTARY),
    "linear": lambda: interpolated(ROTARY, FACTOR),
    "yarn": lambda: yarn(ROTARY, FACTOR, TRAINED),
}


def _of_transformers(kind: str) -> Rope:
    parameters = {"rope_type": kind, "rope_theta": BASE, "factor": FACTOR, "original_max_position_embeddings": TRAINED}
    config = LlamaConfig(
        hidden_size=4 * DIM,
        num_attention_heads=4,
        max_position_embeddings=TRAINED * 4 if kind == "yarn" else TRAINED,
        rope_parameters={k: v for k, v in parameters.items() if kind == "yarn" or not k.startswith("original")},
    )
    positions = torch.arange(ROTARY.positions)[None]
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1, dtype=torch.float32), positions)
    return Rope(cos[0].float(), sin[0].float())


@pytest.mark.parametrize("kind", RECIPES)
def test_tables_are_those_of_transformers(kind: str) -> None:
    """Proves plain, interpolated and YaRN tables, scale of the softmax included."""
    got, want = RECIPES[kind](), _of_transformers(kind)
    # transformers rounds frequencies and angles to float32: each 2^-24 of an angle of at most the position, and its
    # formulas take a handful of operations more.
    bound = (4 * ROTARY.positions + 4) * 2.0**-24
    assert (got.cos - want.cos).abs().max().item() < bound
    assert (got.sin - want.sin).abs().max().item() < bound


def test_ntk_interpolates_the_lowest_frequency_and_keeps_the_highest() -> None:
    """Proves NTK scaling at both ends of the channels."""
    near, far = plain(ROTARY), ntk(ROTARY, FACTOR)
    assert torch.equal(far.cos[:, 0], near.cos[:, 0])
    slow = DIM // 2 - 1
    position = torch.arange(0, ROTARY.positions, int(FACTOR))
    # Rounded to float32 once, from float64.
    assert (far.sin[position, slow] - near.sin[: len(position), slow]).abs().max().item() <= 2.0**-24


def test_unrotated_tables_are_the_identity() -> None:
    """Proves that NoPE leaves every vector as it is, wherever it stands."""
    tables = unrotated(10, DIM)
    assert bool((tables.cos == 1).all())
    assert not bool(tables.sin.any())


def test_recipes_refuse_what_gives_no_table() -> None:
    """Proves typed errors of one line for sizes and factors without meaning."""
    for rotary in ((0, 64, 1e4), (8, 63, 1e4), (8, 64, 1.0), (8, 64, float("nan"))):
        with pytest.raises(UnsupportedShape, match="rotary: expected"):
            Rotary(*rotary)
    for recipe in (interpolated, ntk):
        with pytest.raises(UnsupportedShape, match="factor: expected at least 1"):
            recipe(ROTARY, 0.5)
    with pytest.raises(UnsupportedShape, match="factor"):
        yarn(ROTARY, float("nan"), TRAINED)
    with pytest.raises(UnsupportedShape, match="at least 4"):
        ntk(Rotary(8, 2, 1e4), 2.0)
