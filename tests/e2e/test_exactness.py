"""With everything recalled at true positions, attention is full attention; and leaving restores the model."""

import copy
import uuid

import pytest
import torch
from transformers import PreTrainedModel

from attn_client.hf.attach import NO_MEMORY, attach
from attn_client.memory import MemoryClient
from attn_client.reader import decode
from attn_client.settings import (
    BookmarkSettings,
    Implementation,
    ProbeSettings,
    RecallSettings,
    Settings,
    WindowSettings,
)
from tests.e2e.models import KINDS, random_ids, tiny_model

TOKENS = 700


def everything(implementation: Implementation, policy: str = "every") -> Settings:
    """Settings under which nothing is ever out of sight: every block is recalled, unbiased, where it truly stood."""
    return Settings(
        window=WindowSettings(sink_tokens=64, window_tokens=128, chunk_tokens=96),
        recall=RecallSettings(
            top_blocks=16,
            budget_blocks=16,
            neighbours=0,
            alpha=0.0,
            lag_tokens=0,
            while_reading=True,
            positions="true",
            timeout_s=20.0,
        ),
        probe=ProbeSettings(layer=1),
        bookmarks=BookmarkSettings(policy=policy),
        implementation=implementation,
    )


def rounding_bound(model: PreTrainedModel, ids: list[int], logits: torch.Tensor) -> float:
    """Largest difference that fp32 rounding explains: the model's own distance from fp64, times the factor below.

    Two fp32 evaluations of one function that add up in different orders lie, each, about as far from the exact value as
    this one does; their distance from each other is at most the sum. A factor of 8 covers that the two are different
    draws of that error; a wrong key, position or mask shows as 1e-1 and more.
    """
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(torch.tensor([ids])).logits[0]
    return 8 * float((logits.double() - exact).abs().max())


@pytest.mark.parametrize("implementation", [Implementation.SDPA, Implementation.REFERENCE])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_full_attention_when_the_budget_covers_everything(
    kind: str, implementation: Implementation, client: MemoryClient
) -> None:
    """Proves that sinks, recalled blocks and window together are exactly the keys of full attention, in every layer."""
    model, ids = tiny_model(kind), random_ids(TOKENS + 3, seed=7)
    with torch.inference_mode():
        full = model(torch.tensor([ids])).logits[0]
    bound = rounding_bound(model, ids, full)
    session = f"exact-{uuid.uuid4().hex}"
    with attach(model, client, everything(implementation)) as attached, attached.writer(session) as reader:
        got = [reader.prompt(ids[:TOKENS])]
        got += [decode(attached.passes, [reader], [token])[0] for token in ids[TOKENS:]]
        assert reader.degraded == ()
        assert reader.residents.recalled_blocks
    difference = float((torch.stack(got) - full[TOKENS - 1 :]).abs().max())
    assert difference <= bound, f"{difference:.2e} is above {bound:.2e}"


@pytest.mark.parametrize("kind", KINDS)
def test_without_memory_the_far_past_is_out_of_sight(kind: str) -> None:
    """Proves that the bound above tells: the same settings without memory miss it by orders of magnitude."""
    model, ids = tiny_model(kind), random_ids(TOKENS, seed=7)
    with torch.inference_mode():
        full = model(torch.tensor([ids])).logits[0]
    with attach(model, NO_MEMORY, everything(Implementation.SDPA)) as attached:
        logits = attached.without_memory().prompt(ids)
    assert float((logits - full[-1]).abs().max()) > 100 * rounding_bound(model, ids, full)


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_model_is_bit_identical_to_one_never_attached(kind: str, client: MemoryClient) -> None:
    """Proves that attaching and using a memory leaves no trace in the model, also when the block ends in an error."""
    model, ids = tiny_model(kind), torch.tensor([random_ids(200, seed=3)])
    with torch.inference_mode():
        before = model(ids).logits
    hooks = [len(module._forward_hooks) for module in model.modules()]
    session = f"detached-{uuid.uuid4().hex}"

    def use_and_fail() -> None:
        with attach(model, client, everything(Implementation.SDPA)) as attached, attached.writer(session) as reader:
            reader.prompt(random_ids(300, seed=4))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    with torch.inference_mode():
        after = model(ids).logits
    assert torch.equal(before, after)
    assert hooks == [len(module._forward_hooks) for module in model.modules()]
    assert "forward" not in vars(model)
