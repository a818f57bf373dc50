"""Top-K similarity over bookmarks on a device: against the oracle, and against itself where nothing may change."""

import pytest
import torch
from torch import Tensor

from attn_kernels import DeviceMismatch, Impl, UnsupportedDtype, UnsupportedShape
from attn_kernels.errors import NotFinite
from attn_kernels.similarity import (
    Nearest,
    ResidentBookmarks,
    allocate,
    append,
    launch,
    learn_projection,
    nearest,
    reference,
)
from attn_kernels.similarity.keys import NOTHING, index_of, packed, score_of
from attn_kernels.similarity.sketches import sketched
from tests.kernel.cases import DEVICE


def _whole(count: int, dims: int, seed: int, largest: int = 127) -> Tensor:
    """Rows of integers whose largest is 127, so that 8 bits hold them and every dot product in float32 is exact."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(-largest, largest + 1, (count, dims), generator=rng).float()
    rows[:, 0] = 127.0
    return rows.to(DEVICE)


def _held(rows: Tensor, **options: object) -> ResidentBookmarks:
    return append(allocate(len(rows) + 5, rows.shape[1], DEVICE, **options), rows)  # type: ignore[arg-type]


def _clustered(count: int, dims: int, seed: int) -> Tensor:
    """Rows of length 1 about topics that come one after the other, with a spectrum that falls off."""
    rng = torch.Generator().manual_seed(seed)
    spectrum = (1 + torch.arange(dims) / 4).rsqrt()
    topics = torch.randn((12, dims), generator=torch.Generator().manual_seed(1))
    rows = topics[torch.arange(count) * len(topics) // count] + torch.randn((count, dims), generator=rng)
    return torch.nn.functional.normalize(rows * spectrum, dim=1).to(DEVICE)


def _assert_same(got: Nearest, want: Nearest) -> None:
    assert torch.equal(got.index, want.index)
    assert torch.equal(got.score, want.score)


@pytest.mark.parametrize(("dims", "queries"), [(32, 1), (40, 5), (128, 16), (192, 33)])
def test_without_a_projection_hits_are_those_of_the_reference(dims: int, queries: int) -> None:
    """Proves for every chunking of dimensions and padding of queries, bit for bit, that nothing is missed."""
    held, asked = _held(_whole(600, dims, 1)), _whole(queries, dims, 2)
    _assert_same(nearest(held, asked, 16, groups=1), nearest(held, asked, 16, impl=Impl.REFERENCE))


@pytest.mark.parametrize("k", [1, 7, 256])
def test_equal_scores_are_ordered_newest_first(k: int) -> None:
    """Proves the order of ties over whole groups and tiles: rows of three elements repeat hundreds of times."""
    held = _held(_whole(1500, 32, 3, largest=1) * torch.eye(32, device=DEVICE)[:3].sum(0))
    asked = torch.tensor([[1.0, 0, 0, *[0] * 29], [0.0, 1, 1, *[0] * 29]], device=DEVICE)
    got, want = nearest(held, asked, k), nearest(held, asked, k, impl=Impl.REFERENCE)
    _assert_same(got, want)
    same = got.score[:, 1:] == got.score[:, :-1]
    assert bool((got.index[:, 1:] < got.index[:, :-1])[same].all())


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
def test_few_bookmarks_end_in_blanks(count: int) -> None:
    """Proves that with fewer bookmarks than wanted all are found, and the rest is -1 and minus infinity."""
    held, asked = append(allocate(400, 32, DEVICE), _whole(count or 1, 32, 4)[:count]), _whole(2, 32, 5)
    got = nearest(held, asked, 70)
    _assert_same(got, nearest(held, asked, 70, impl=Impl.REFERENCE))
    assert (got.index >= 0).sum(dim=1).tolist() == [min(count, 70)] * 2
    assert bool((got.score[got.index < 0] == -torch.inf).all())


@pytest.mark.parametrize("limit", [0, 1, 64, 500, 10**12])
def test_a_limit_hides_newer_bookmarks(limit: int) -> None:
    """Proves that only bookmarks below the limit are found, that it may differ by query, and that 0 hides all."""
    rows = _whole(700, 64, 6)
    held = _held(rows)
    asked = rows[-3:]
    got = nearest(held, asked, 20, limit)
    assert int(got.index.max()) < limit
    assert (got.index >= 0).sum(dim=1).tolist() == [min(limit, 20)] * 3
    _assert_same(got, nearest(held, asked, 20, limit, impl=Impl.REFERENCE))
    own = torch.tensor([min(limit, 700), 3, 700], dtype=torch.int32, device=DEVICE)
    mixed = nearest(held, asked, 20, own)
    assert torch.equal(mixed.index[0], got.index[0])
    assert sorted(mixed.index[1].tolist())[-3:] == [0, 1, 2]
    assert int(mixed.index[2, 0]) == 699


def test_any_split_into_appends_gives_the_same_results() -> None:
    """Proves that a record filled bookmark by bookmark, at the same places, answers as one filled at once."""
    rows, asked = _clustered(260, 96, 7), _clustered(4, 96, 8)
    whole = _held(rows, projection=learn_projection(rows, 64))
    parts = allocate(265, 96, DEVICE, projection=whole.projection)
    for start in range(0, 260, 13):
        parts = append(parts, rows[start : start + 13])
    assert (parts.count, int(parts.filled)) == (260, 260)
    assert torch.equal(parts.codes, whole.codes)
    _assert_same(nearest(parts, asked, 16), nearest(whole, asked, 16))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.bfloat16], ids=str)
def test_scores_are_those_of_the_rows_within_rounding(dtype: torch.dtype) -> None:
    """Proves on rows of length 1 that whatever sketches choose is scored by its row: each of D products and sums
    rounds by at most 2^-24 of the sum of magnitudes, itself at most |query| |row|, and the scale once more."""
    rows, asked = _clustered(1000, 96, 9), _clustered(5, 96, 10)
    held = _held(rows, dtype=dtype, projection=learn_projection(rows, 64))
    got = nearest(held, asked, 16)
    exact = (held.codes.double() * held.scale.double()[:, None])[got.index]
    dots = torch.einsum("md,mkd->mk", asked.double(), exact)
    bound = (2 * 96 + 2) * 2.0**-24 * (asked.double().norm(dim=1)[:, None] * exact.norm(dim=2))
    assert bool(((got.score - dots).abs() <= bound).all())
    assert bool((got.score[:, 1:] <= got.score[:, :-1]).all())


def test_rows_in_half_precision_need_no_projection() -> None:
    """Proves that such rows are searched by 8-bit sketches of all dimensions: every hit of the oracle is found."""
    rows, asked = _clustered(1000, 64, 11), _clustered(6, 64, 12)
    held = _held(rows, dtype=torch.bfloat16)
    want = index_of(reference.best_keys(held, asked, 16, held.filled.expand(6), torch.float64))
    found = nearest(held, asked, 16, groups=16).index
    assert torch.equal(found.sort(dim=1).values, want.sort(dim=1).values)


def test_a_projection_to_a_third_finds_95_percent() -> None:
    """Proves agreement with the oracle among 3,000 clustered bookmarks, searched by 32 bytes each where rows take 192,
    of which 16 groups of 47 are scored."""
    rows, asked = _clustered(3000, 192, 13), _clustered(16, 192, 14)
    held = _held(rows, projection=learn_projection(rows[::6], 64))
    want = nearest(held, asked, 16, impl=Impl.REFERENCE).index
    found = nearest(held, asked, 16, groups=16).index
    agreement = (found[:, :, None] == want[:, None, :]).any(dim=2).double().mean().item()
    print(f"seeds 13 and 14: agreement {agreement:.3f}")
    assert agreement >= 0.95


@pytest.mark.parametrize("width", [64, 192, 256])
def test_sketches_of_4_bits_are_compared_exactly(width: int) -> None:
    """Proves for one chunk and for several that the scan sums every code: with a projection that changes nothing and
    rows of integers up to 7, the best bookmark of each group is the oracle's, so that as many groups as hits do."""
    rng = torch.Generator().manual_seed(width)
    rows = torch.randint(-7, 8, (500, width), generator=rng).float().to(DEVICE)
    rows[:, 0] = 7.0
    held, asked = _held(rows, dtype=torch.float16, projection=torch.eye(width)), _whole(3, width, 23)
    codes, scale = sketched(rows)
    lower, upper = (codes << 4) >> 4, codes >> 4
    assert torch.equal(torch.cat([lower, upper], dim=1).float() * 16 * scale[:, None], rows)
    _assert_same(nearest(held, asked, 4, groups=1), nearest(held, asked, 4, impl=Impl.REFERENCE))


def test_a_projection_is_orthonormal_and_keeps_the_most() -> None:
    """Proves that rows in a subspace keep their dot products, and that directions are of length 1 and at right angles
    (float32 elements of 96: within 96 * 2^-23)."""
    rows = _clustered(200, 64, 15) @ torch.linalg.qr(torch.randn(96, 96))[0][:64].to(DEVICE)
    projection = learn_projection(rows, 64)
    unit = projection.T @ projection - torch.eye(64, device=DEVICE)
    assert unit.abs().max().item() <= 96 * 2.0**-23
    low = rows @ projection
    assert (low @ low.T - rows @ rows.T).abs().max().item() <= 4 * 96 * 2.0**-23


def test_keys_are_in_order_of_scores_and_give_them_back() -> None:
    """Proves the packing for signs, both zeros, infinities, ties and blanks."""
    scores = torch.tensor([-torch.inf, -2.5, -1e-40, -0.0, 0.0, 0.0, 1e-40, 3.0, torch.inf], device=DEVICE)
    index = torch.tensor([8, 7, 6, 1, 2, 3, 0, 2**31 - 1, 0], device=DEVICE)
    keys = packed(scores, index)
    assert torch.equal(keys.sort().values, keys)
    assert torch.equal(index_of(keys), index)
    assert torch.equal(score_of(keys), scores)
    blank = torch.tensor([NOTHING], device=DEVICE)
    assert (index_of(blank).item(), score_of(blank).item()) == (-1, -torch.inf)


@pytest.mark.parametrize("count", [10, 5001, 70001])
def test_the_largest_of_many_keys_are_those_of_a_sort(count: int) -> None:
    """Proves that folding loses none, also of what is left over past the last fold, nor with blanks."""
    rng = torch.Generator().manual_seed(count)
    keys = torch.stack([torch.randperm(count, generator=rng), torch.arange(count)]).to(DEVICE)
    keys[0, keys[0] < count // 2] = NOTHING
    assert torch.equal(launch.largest(keys, 7), keys.sort(dim=1, descending=True).values[:, :7])


@pytest.mark.parametrize(
    ("change", "expected", "error"),
    [
        (
            {"queries": torch.zeros(129, 32)},
            "queries: expected \\[1 to 128, 32\\], got \\(129, 32\\)",
            UnsupportedShape,
        ),
        ({"queries": torch.zeros(2, 31)}, "queries: expected .*got \\(2, 31\\)", UnsupportedShape),
        ({"queries": torch.zeros(2, 32).int()}, "queries: expected a floating dtype", UnsupportedDtype),
        ({"queries": torch.zeros(2, 32, device="meta")}, "queries: expected .* got meta", DeviceMismatch),
        ({"k": 0}, "k: expected 1 to 256, got 0", UnsupportedShape),
        ({"k": 257}, "k: expected 1 to 256, got 257", UnsupportedShape),
        ({"groups": 0}, "groups: expected at least 1, got 0", UnsupportedShape),
        ({"limit": -1}, "limit: expected at least 0, got -1", UnsupportedShape),
        ({"limit": torch.zeros(3).int()}, "limit: expected \\[2\\], got \\(3,\\)", UnsupportedShape),
        ({"limit": torch.zeros(2)}, "limit: expected torch.int32, got torch.float32", UnsupportedDtype),
    ],
)
def test_what_does_not_fit_a_search_is_refused(change: dict[str, object], expected: str, error: type) -> None:
    """Proves that each argument out of range gives its typed error, which names it and what came."""
    asked = {"queries": torch.zeros(2, 32), "k": 4} | change
    for name, value in asked.items():
        if isinstance(value, Tensor) and value.device.type != "meta":
            asked[name] = value.to(DEVICE)
    with pytest.raises(error, match=expected):
        nearest(_held(_whole(10, 32, 16)), **asked)  # type: ignore[arg-type]


def test_what_does_not_fit_a_record_is_refused() -> None:
    """Proves the typed errors of allocate, append and learn_projection, and that a refused append wrote nothing."""
    for sizes in ((0, 32), (2**31, 32), (10, 0)):
        with pytest.raises(UnsupportedShape, match="expected 1 to"):
            allocate(*sizes, DEVICE)
    with pytest.raises(UnsupportedDtype, match="dtype: expected one of"):
        allocate(10, 32, DEVICE, torch.float32)
    with pytest.raises(UnsupportedShape, match="projection: expected \\[32, W\\]"):
        allocate(10, 32, DEVICE, projection=torch.zeros(31, 32))
    with pytest.raises(UnsupportedShape, match="width: expected a multiple of 64"):
        learn_projection(torch.zeros(20, 64), 64)
    held = append(allocate(250, 32, DEVICE), _whole(200, 32, 17))
    before = held.codes.clone()
    bad = _whole(3, 32, 18)
    bad[1, 4] = torch.nan
    with pytest.raises(NotFinite, match="rows: expected finite elements"):
        append(held, bad)
    with pytest.raises(UnsupportedShape, match="rows: expected at most 56 more, got 57"):
        append(held, _whole(57, 32, 19))
    with pytest.raises(UnsupportedShape, match="rows: expected \\[n, 32\\]"):
        append(held, _whole(3, 33, 19))
    with pytest.raises(DeviceMismatch, match="rows: expected"):
        append(held, torch.zeros(3, 32, device="meta"))
    assert torch.equal(held.codes, before)


def test_a_zero_vector_is_kept_and_scores_zero() -> None:
    """Proves that a bookmark that equals the centre has a score, and that a query of zeros finds the newest."""
    rows = _whole(100, 32, 20)
    rows[40] = 0
    held = _held(rows)
    got = nearest(held, -rows[3:4], 100)
    assert got.score[0, got.index[0] == 40].item() == 0
    assert nearest(held, torch.zeros(1, 32, device=DEVICE), 3).index.tolist() == [[99, 98, 97]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_search_sees_what_was_appended_since() -> None:
    """Proves that nothing waits for the device, and that a replay searches the bookmarks held then."""
    rows = _whole(40_000, 128, 21)
    held = append(allocate(40_000, 128, DEVICE), rows[:20_000])
    asked = rows[[100, 30_000]].clone()
    nearest(held, asked, 8)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = nearest(held, asked, 8)
    held = append(held, rows[20_000:])
    graph.replay()
    _assert_same(captured, nearest(held, asked, 8, impl=Impl.REFERENCE))
    assert captured.index[:, 0].tolist() == [100, 30_000]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs 5 GB of GPU memory")
def test_offsets_past_32_bits_are_followed() -> None:
    """Proves that bookmarks past 4 GiB of codes are found."""
    held = allocate(8_000_000, 576, DEVICE)
    rows = _whole(300, 576, 22)
    held.codes[-300:], held.scale[-300:] = rows.to(torch.int8), 1.0
    held.filled.fill_(held.capacity)
    got = nearest(held, rows[:4], 1)
    assert got.index[:, 0].tolist() == [held.capacity - 300 + at for at in range(4)]
