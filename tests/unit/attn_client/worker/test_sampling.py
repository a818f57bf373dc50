"""How tokens are chosen."""

import pytest
import torch

from attn_client.worker.asks import Sampling
from attn_client.worker.sampling import Sampler


def test_the_likeliest_token_is_chosen_at_temperature_0() -> None:
    """Proves that the default is greedy."""
    assert Sampler(Sampling()).choose(torch.tensor([0.0, 3.0, 2.0])) == 1


def test_choices_follow_seed_and_shares() -> None:
    """Proves that a seed repeats its choices, and that shares are those of the softmax within their standard error."""
    logits, count = torch.log(torch.tensor([0.5, 0.3, 0.2])), 4000

    def chosen(seed: int) -> list[int]:
        sampler = Sampler(Sampling(1.0, 1.0, seed))
        return [sampler.choose(logits) for _ in range(count)]

    first = chosen(7)
    assert first == chosen(7)
    for token, share in enumerate((0.5, 0.3, 0.2)):
        # Five standard errors: missed once in two million seeds, and the seed is fixed.
        assert abs(first.count(token) / count - share) <= 5 * (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize(("top_p", "expected"), [(0.01, {0}), (0.5, {0}), (0.51, {0, 1}), (1.0, {0, 1, 2})])
def test_top_p_leaves_the_likeliest_tokens_that_reach_it(top_p: float, expected: set[int]) -> None:
    """Proves that only the smallest set of tokens that together has top_p is drawn from."""
    sampler = Sampler(Sampling(1.0, top_p, 1))
    assert {sampler.choose(torch.log(torch.tensor([0.5, 0.3, 0.2]))) for _ in range(200)} == expected
