"""Attention mass of a pass: what is summed, and what it is divided by."""

import numpy as np
import torch

from attn_client.mass import own_weights, received

COUNT = 96
# Sums of at most COUNT float32 terms, their quotient, and the rounding to float32.
ERROR = (COUNT + 4) * 2.0**-23


def _weights(count: int, by_distance: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Weights [n queries, n keys] of a text in which a key's weight is its distance's times its own."""
    at = torch.arange(count)
    distance = (at[:, None] - at).clamp_min(0)
    return (by_distance[distance] * drawn[None, :]).tril()


def test_tokens_alike_have_mass_one_wherever_they_stand() -> None:
    """Proves that neither the place in a pass nor the fall of attention with distance shows."""
    by_distance = 0.3 * 0.9 ** torch.arange(COUNT)
    for count in (1, 2, 7, COUNT):
        mass = received(_weights(count, by_distance, torch.ones(count)))
        assert mass.dtype == np.float32
        assert np.allclose(mass, 1.0, rtol=ERROR, atol=0)


def test_a_token_that_draws_more_attention_has_more_mass_by_that_factor() -> None:
    """Proves that mass says how many times as much a token receives as others of the pass, early or late in it."""
    for place in (3, COUNT // 2, COUNT - 1):
        drawn = torch.ones(COUNT)
        drawn[place] = 8.0
        mass = received(_weights(COUNT, torch.full((COUNT,), 0.01), drawn))
        others = np.delete(mass, place)
        # It is itself part of what it is compared with, by a share that its place decides.
        assert (mass[place] / others > 4.0).all()
        assert mass.argmax() == place


def test_mass_is_no_more_of_a_pass_without_attention_to_itself() -> None:
    """Proves that weights which vanish, all attention being drawn by sinks, give 1 and no division by zero."""
    assert (received(torch.zeros(5, 5)) == 1.0).all()


def test_own_weights_are_one_softmax_with_what_the_pass_does_not_hold() -> None:
    """Proves the sum over heads, grouped heads included, against a softmax written out over other keys as well."""
    generator = torch.Generator().manual_seed(1)
    heads, kv_heads, count, others, dim = 6, 2, 9, 13, 8
    query, keys, before = (
        torch.randn(shape, generator=generator)
        for shape in ((heads, count, dim), (kv_heads, count, dim), (kv_heads, others, dim))
    )
    everything = torch.cat((before, keys), dim=1).repeat_interleave(heads // kv_heads, dim=0)
    scores = query.double() @ everything.double().transpose(1, 2) * 0.5
    hidden = torch.ones(count, count, dtype=torch.bool).triu(1)
    scores[:, :, others:].masked_fill_(hidden, -torch.inf)
    expected = scores.softmax(dim=-1)[:, :, others:].sum(dim=0)
    weights = own_weights(query, keys, scores.logsumexp(dim=-1).float(), 0.5)
    # Scores of about 10 at most err by (dim + 2) units in the last place, weights by that times themselves.
    assert torch.allclose(weights.double(), expected, rtol=10 * (dim + 2) * 2.0**-23, atol=0)
    assert not weights.triu(1).any()
