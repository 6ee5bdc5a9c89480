"""The op behind bi-level routing attention: regions, routing, and every backend against the reference."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
import torch.nn.functional as F

from models.attention.ops.dispatch import available_backends, bi_level_routing_attention, choose_backend
from models.attention.ops.regions import RegionGrid, from_regions, real_tokens, to_regions
from models.attention.ops.routing import region_means, route_regions
from models.attention.ops.sdpa import attend_sdpa
from utils.errors import BackendError

FAST_BACKENDS = [name for name in available_backends() if name != "reference"]


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    """Thousands of tiny calls: waking a second thread costs more than it saves."""
    torch.set_num_threads(1)


def draw_problem(seed: int) -> tuple[dict, RegionGrid, int]:
    """Shapes of one random problem: maps with and without padding, smaller than the regions asked for, tiny heads."""
    draw = random.Random(seed)
    heads = draw.choice((1, 2, 3, 4))
    sizes = {
        "batch": draw.choice((1, 1, 2, 3)),
        "heads": heads,
        "channels": heads * draw.choice((1, 4, 8, 16)),
        "height": draw.randint(1, 20),
        "width": draw.randint(1, 20),
    }
    n_win = draw.randint(1, 8)
    grid = RegionGrid.of(sizes["height"], sizes["width"], n_win)
    if seed % 3 == 0:
        region = max(1, sizes["height"] // n_win), max(1, sizes["width"] // n_win)
        grid = RegionGrid.of_region_size(sizes["height"], sizes["width"], *region)
    return sizes, grid, draw.randint(1, 10)


def qkv_of(sizes: dict, seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, sizes["batch"], sizes["channels"], sizes["height"], sizes["width"])
    return [part.to(dtype).requires_grad_() for part in torch.randn(shape, generator=generator)]


def run(inputs: list[torch.Tensor], idx, grid, heads: int, backend: str, **settings) -> list[torch.Tensor]:
    """Output and the gradients of q, k and v under a fixed random probe."""
    for x in inputs:
        x.grad = None
    scale = inputs[0].shape[1] ** -0.5
    out = bi_level_routing_attention(*inputs, idx, grid, num_heads=heads, scale=scale, backend=backend, **settings)
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out.float() * probe).sum().backward()
    return [out, *(x.grad for x in inputs)]


@pytest.mark.parametrize(
    "height,width,n_win,wanted",
    [
        (1, 1, 7, (1, 1, 1, 1)),
        (5, 9, 7, (5, 7, 1, 2)),  # fewer rows than regions asked for
        (20, 20, 7, (7, 7, 3, 3)),  # rounded up, not down to 10 x 10 regions of 2 x 2
        (10, 10, 7, (7, 7, 2, 2)),  # the last two rows and columns of regions are padding alone
        (14, 28, 7, (7, 7, 2, 4)),
    ],
)
def test_grid(height: int, width: int, n_win: int, wanted: tuple[int, ...]) -> None:
    grid = RegionGrid.of(height, width, n_win)
    assert dataclasses.astuple(grid)[2:] == wanted
    assert grid.is_padded == (height % wanted[0] > 0 or width % wanted[1] > 0)
    filled = real_tokens(grid, torch.device("cpu")).any(dim=1)
    assert int(filled.sum()) == grid.filled_regions
    assert int(real_tokens(grid, torch.device("cpu")).sum()) == height * width


@pytest.mark.parametrize("seed", range(20))
def test_regions_round_trip(seed: int) -> None:
    sizes, grid, _ = draw_problem(seed)
    x = torch.randn(sizes["batch"], sizes["channels"], sizes["height"], sizes["width"])
    cut = to_regions(x, grid)
    assert cut.shape == (sizes["batch"], grid.regions, grid.tokens, sizes["channels"])
    assert torch.equal(from_regions(cut, grid), x)
    # and the padding is zero
    assert not cut[:, ~real_tokens(grid, x.device)].any()


def test_regions_count_row_by_row() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    cut = to_regions(x, RegionGrid.of(4, 4, 2))[0, :, :, 0]
    assert cut.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_means_count_real_tokens_only() -> None:
    x = torch.ones(1, 3, 10, 10, dtype=torch.float16)
    grid = RegionGrid.of(10, 10, 7)
    means = region_means(x, grid)
    filled = real_tokens(grid, x.device).any(dim=1)
    assert means.dtype == torch.float32
    assert torch.equal(means[0, filled], torch.ones(25, 3))
    assert not means[0, ~filled].any()


def test_regions_of_padding_are_never_routed_to() -> None:
    # All affinities negative, so that the zero of an empty region would win
    q, k = torch.ones(1, 4, 10, 10), -torch.ones(1, 4, 10, 10)
    grid = RegionGrid.of(10, 10, 7)
    idx = route_regions(q, k, grid, topk=100)
    assert idx.shape == (1, 49, 25)
    filled = real_tokens(grid, q.device).any(dim=1)
    assert filled[idx].all()


def test_routing_is_decided_in_float32() -> None:
    # Sums beyond half precision's 65504, apart by less than its resolution there
    q = torch.full((1, 8, 2, 2), 200.0, dtype=torch.float16)
    k = q.clone()
    k[0, 0, 1, 1] += 0.125
    with torch.autocast("cpu", dtype=torch.bfloat16):
        idx = route_regions(q, k, RegionGrid.of(2, 2, 2), topk=1)
    assert idx.flatten().tolist() == [3, 3, 3, 3]


def test_routing_carries_no_gradient() -> None:
    q = torch.randn(1, 4, 4, 4, requires_grad=True)
    assert not route_regions(q, q, RegionGrid.of(4, 4, 2), 2).requires_grad


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("seed", range(120))
def test_backends_agree_with_the_reference(seed: int, backend: str) -> None:
    sizes, grid, topk = draw_problem(seed)
    inputs = qkv_of(sizes, seed)
    idx = route_regions(inputs[0], inputs[1], grid, topk)
    mask = {"mask_padding": seed % 3 != 0}
    wanted = run(inputs, idx, grid, sizes["heads"], "reference", **mask)
    for ours, reference in zip(run(inputs, idx, grid, sizes["heads"], backend, **mask), wanted, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(10))
def test_backends_in_half_precision(seed: int, dtype: torch.dtype, backend: str) -> None:
    sizes, grid, topk = draw_problem(seed)
    inputs = qkv_of(sizes, seed, dtype)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    idx = route_regions(inputs[0], inputs[1], grid, topk)
    wanted = run(exact, idx, grid, sizes["heads"], "reference")
    for ours, reference in zip(run(inputs, idx, grid, sizes["heads"], backend), wanted, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), reference, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("chunk_bytes", [1, 3_000, 20_000])
def test_chunks_do_not_change_the_result(chunk_bytes: int) -> None:
    sizes = {"batch": 2, "heads": 2, "channels": 8, "height": 11, "width": 14}
    grid = RegionGrid.of(11, 14, 4)
    inputs = qkv_of(sizes, 0)
    idx = route_regions(inputs[0], inputs[1], grid, 3)
    settings = {"num_heads": 2, "scale": 0.3, "mask_padding": True}
    results = []
    for chunks in ({}, {"chunk_bytes": chunk_bytes}):
        out = attend_sdpa(*inputs, idx, grid, **settings, **chunks)
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5)


def test_chunks_bound_what_training_keeps() -> None:
    """Saved for the backward pass: the inputs of the chunks, and not topk copies of keys and values."""
    sizes = {"batch": 1, "heads": 1, "channels": 16, "height": 32, "width": 32}
    grid = RegionGrid.of(32, 32, 8)
    inputs = qkv_of(sizes, 0)
    idx = route_regions(inputs[0], inputs[1], grid, 32)
    kept: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        attend_sdpa(*inputs, idx, grid, num_heads=1, scale=0.25, mask_padding=True, chunk_bytes=2**20)
    copies_of_keys_and_values = 2 * 32 * inputs[0].nbytes
    assert sum(kept.values()) < copies_of_keys_and_values / 4


@pytest.mark.parametrize("backend", available_backends())
def test_all_regions_equal_full_attention(backend: str) -> None:
    sizes = {"batch": 2, "heads": 2, "channels": 16, "height": 10, "width": 13}
    grid = RegionGrid.of(10, 13, 7)
    q, k, v = (x.detach() for x in qkv_of(sizes, 0))
    idx = route_regions(q, k, grid, 49)
    out = bi_level_routing_attention(q, k, v, idx, grid, num_heads=2, scale=0.25, backend=backend)
    heads = [x.flatten(2).unflatten(1, (2, 8)).transpose(2, 3) for x in (q, k, v)]
    full = F.scaled_dot_product_attention(*heads, scale=0.25).transpose(2, 3).reshape(q.shape)
    torch.testing.assert_close(out, full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", available_backends())
def test_gradcheck(backend: str) -> None:
    sizes = {"batch": 1, "heads": 2, "channels": 4, "height": 3, "width": 4}
    grid = RegionGrid.of(3, 4, 2)
    inputs = qkv_of(sizes, 0, torch.float64)
    idx = route_regions(inputs[0], inputs[1], grid, 2)

    def attend(q, k, v):
        return bi_level_routing_attention(q, k, v, idx, grid, num_heads=2, scale=0.5, backend=backend)

    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("backend", available_backends())
def test_deterministic_mode(backend: str) -> None:
    sizes, grid, topk = draw_problem(4)
    inputs = qkv_of(sizes, 4)
    idx = route_regions(inputs[0], inputs[1], grid, topk)
    torch.use_deterministic_algorithms(True)
    try:
        first = [x.clone() for x in run(inputs, idx, grid, sizes["heads"], backend)]
        second = run(inputs, idx, grid, sizes["heads"], backend)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", available_backends())
def test_meta_device(backend: str) -> None:
    grid = RegionGrid.of(40, 50, 7)
    q = torch.empty(1, 32, 40, 50, device="meta")
    idx = route_regions(q, q, grid, 4)
    assert idx.shape == (1, 49, 4)
    out = bi_level_routing_attention(q, q, q, idx, grid, num_heads=4, scale=0.1, backend=backend)
    assert out.shape == q.shape


@pytest.mark.parametrize("backend", available_backends())
def test_traced_by_dynamo_in_one_graph(backend: str) -> None:
    grid = RegionGrid.of(9, 10, 4)

    def attend(q, k, v):
        idx = route_regions(q, k, grid, 3)
        return bi_level_routing_attention(q, k, v, idx, grid, num_heads=2, scale=0.5, backend=backend)

    q, k, v = torch.randn(3, 2, 8, 9, 10)
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), attend(q, k, v))


def test_choice_of_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    q, meta = torch.empty(1, 1, 1, 1), torch.empty(1, 1, 1, 1, device="meta")
    monkeypatch.delenv("YOLO_BRA_BACKEND", raising=False)
    assert choose_backend(q) == "sdpa"
    assert choose_backend(meta) == "reference"
    monkeypatch.setenv("YOLO_BRA_BACKEND", "reference")
    assert choose_backend(q) == "reference"
    assert choose_backend(q, "auto") == "reference"
    assert choose_backend(q, "sdpa") == "sdpa"  # an argument goes before the environment
    monkeypatch.setenv("YOLO_BRA_BACKEND", "cuda")
    with pytest.raises(BackendError, match=r"YOLO_BRA_BACKEND.*'cuda'.*reference, sdpa"):
        choose_backend(q)
    with pytest.raises(BackendError, match="argument backend"):
        choose_backend(q, "fast")


def test_shapes_that_do_not_fit() -> None:
    q = torch.zeros(1, 6, 4, 4)
    grid = RegionGrid.of(4, 4, 2)
    idx = route_regions(q, q, grid, 1)
    with pytest.raises(ValueError, match="heads"):
        bi_level_routing_attention(q, q, q, idx, grid, num_heads=4, scale=1.0)
    with pytest.raises(ValueError, match="do not belong"):
        bi_level_routing_attention(q, q, q, idx, RegionGrid.of(5, 4, 2), num_heads=1, scale=1.0)
