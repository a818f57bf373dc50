"""Pages in 8 bits: the quantiser, and attention over what it makes."""

from dataclasses import replace

import pytest
import torch

from attn_kernels import Impl, Pages, QuantPages, UnsupportedDtype, UnsupportedShape
from attn_kernels.forward import launch
from attn_kernels.quantised import LARGEST, dequantise, quantise
from attn_kernels.records import Request
from tests.kernel.bounds import assert_within_bound
from tests.kernel.cases import Layout, request, run

KINDS = tuple(LARGEST)
pytestmark = pytest.mark.usefixtures("poisoned")


def _quantised(layout: Layout, dtype: torch.dtype, kind: torch.dtype) -> Request:
    """A case over quantised pages; what no entry fills is poison, its scales too."""
    made = request(layout, dtype)
    unfilled = made.pages.values[..., 0].isnan()
    held = quantise(Pages(made.pages.keys.nan_to_num(0), made.pages.values.nan_to_num(0)), kind)
    poison = torch.tensor(torch.nan if kind.is_floating_point else 127.0).to(kind)
    keys, values = (torch.where(unfilled[..., None], poison.to(pool.device), pool) for pool in (held.keys, held.values))
    value_scale = held.value_scale.masked_fill(unfilled, torch.nan)
    key_scale = held.key_scale.masked_fill(unfilled.all(dim=-1)[..., None], torch.nan)
    return replace(made, pages=QuantPages(keys, values, key_scale, value_scale))


def _pool(seed: int) -> torch.Tensor:
    """Keys as models have them: some channels of 100 times the others, one of nothing."""
    rng = torch.Generator().manual_seed(seed)
    pool = torch.randn(3, 2, 64, 64, generator=rng)
    pool[..., 5] *= 100
    pool[..., 9] = 0
    return pool


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_error_of_an_element_is_within_half_a_step(kind: torch.dtype) -> None:
    """Proves the quantiser's error, that the largest of a scale is kept, and that channels of nothing stay so."""
    pages = Pages(_pool(0), _pool(1))
    held = quantise(pages, kind)
    back = dequantise(held)
    for got, want, scale in (
        (back.keys, pages.keys, held.key_scale[:, :, None, :]),
        (back.values, pages.values, held.value_scale[..., None]),
    ):
        step = scale * 0.5 if kind == torch.int8 else torch.maximum(want.abs() * 2.0**-4, scale * 2.0**-10)
        # Quotient and product are rounded to float32.
        assert bool(((got - want).abs() <= step + 4 * 2.0**-24 * want.abs()).all())
    assert bool((back.keys[..., 9] == 0).all())


def test_scale_of_a_channel_keeps_small_channels_beside_large_ones() -> None:
    """Proves why keys are scaled by channel: one channel of 100 times the others costs these nothing."""
    keys = _pool(0)
    back = dequantise(quantise(Pages(keys, keys), torch.int8))
    small = [channel for channel in range(64) if channel != 5]
    by_channel, by_token = ((pool - keys)[..., small].abs().max().item() for pool in (back.keys, back.values))
    assert by_channel * 10 < by_token


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("queries", [1, 20])
def test_attention_over_quantised_pages_is_within_bound(
    dtype: torch.dtype, dim: int, kind: torch.dtype, queries: int
) -> None:
    """Proves each configuration against float64 on the dequantised numbers, decode and chunk, poison unread."""
    made = _quantised(Layout(heads=6, kv_heads=2, queries=queries, dim=dim, rows=((64, 64, 41), (30,))), dtype, kind)
    clean = replace(made, pages=_readable(made))
    assert_within_bound(run(made), clean)
    assert_within_bound(run(made, Impl.REFERENCE), clean)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_quantised_keys_rotated_ahead_are_within_bound(
    kind: torch.dtype, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves both ways of rotating dequantised keys."""
    monkeypatch.setattr(launch, "turns_ahead", lambda tiling, tiles: ahead)
    made = _quantised(Layout(queries=50, rows=((64, 64, 20), (33,))), torch.bfloat16, kind)
    assert_within_bound(run(made), replace(made, pages=_readable(made)))


def test_entry_that_leads_outside_quantised_pools_gives_not_a_number() -> None:
    """Proves that scales of a page outside the pools are not followed either."""
    made = _quantised(Layout(queries=2), torch.bfloat16, torch.int8)
    made.table.page[0, 1] = 1 << 30
    assert bool(run(made).out.isnan().all())


def test_quantised_pages_that_do_not_fit_are_refused() -> None:
    """Proves typed errors for another dtype, for scales of another shape, and for a dtype without quantiser."""
    made = _quantised(Layout(queries=2), torch.bfloat16, torch.int8)
    pages = made.pages
    assert isinstance(pages, QuantPages)
    for wrong, error, message in (
        (replace(pages, keys=pages.keys.to(torch.uint8)), UnsupportedDtype, "pages.keys: expected one of torch.int8"),
        (replace(pages, values=pages.values.float()), UnsupportedDtype, "pages.values: expected torch.int8"),
        (replace(pages, key_scale=pages.key_scale[1:]), UnsupportedShape, "pages.key_scale: expected"),
        (replace(pages, value_scale=pages.value_scale.half()), UnsupportedDtype, "pages.value_scale: expected"),
    ):
        with pytest.raises(error, match=message):
            run(replace(made, pages=wrong))
    with pytest.raises(UnsupportedDtype, match=r"dtype: expected one of torch\.int8"):
        quantise(Pages(_pool(0), _pool(1)), torch.uint8)


def _readable(made: Request) -> Pages:
    """What the pages stand for, NaN where nothing may be read."""
    assert isinstance(made.pages, QuantPages)
    return dequantise(made.pages)
