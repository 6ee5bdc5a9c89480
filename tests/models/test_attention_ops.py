"""The op behind bi-level routing attention: regions, routing, and every backend against the reference."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from attention_problems import Problem, assert_backend_agrees, draw_problem

from models.attention.ops.dispatch import attend_regions, bi_level_routing_attention, choose_backend
from models.attention.ops.regions import RegionGrid, from_regions, real_tokens, to_regions
from models.attention.ops.routing import region_means, route_regions
from models.attention.ops.sdpa import _attend_in_chunks, attend_sdpa
from models.attention.ops.sdpa_cpu import attend_rows_cpu
from models.attention.ops.settings import AttentionSettings
from utils.errors import BackendError

BACKENDS = ["reference", "sdpa"]  # triton has tests of its own


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    """Thousands of tiny calls: waking a second thread costs more than it saves."""
    torch.set_num_threads(1)


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
    problem = draw_problem(seed)
    grid = problem.grid
    x = torch.randn(problem.batch, problem.channels, grid.height, grid.width)
    cut = to_regions(x, grid)
    assert cut.shape == (problem.batch, grid.regions, grid.tokens, problem.channels)
    assert torch.equal(from_regions(cut, grid), x)
    assert torch.equal(from_regions(to_regions(x.contiguous(memory_format=torch.channels_last), grid), grid), x)
    # and the padding is zero
    assert not cut[:, ~real_tokens(grid, x.device)].any()


def test_regions_count_row_by_row() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    cut = to_regions(x, RegionGrid.of(4, 4, 2))[0, :, :, 0]
    assert cut.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_means_count_real_tokens_only() -> None:
    x = torch.ones(1, 3, 10, 10, dtype=torch.float16)
    grid = RegionGrid.of(10, 10, 7)
    cut = to_regions(x, grid)
    cut[:, ~real_tokens(grid, x.device)] = 1000.0  # whatever padding holds
    means = region_means(cut, grid)
    filled = real_tokens(grid, x.device).any(dim=1)
    assert means.dtype == torch.float32
    assert torch.equal(means[0, filled], torch.ones(25, 3))
    assert not means[0, ~filled].any()


def test_regions_of_padding_are_never_routed_to() -> None:
    # All affinities negative, so that the zero of an empty region would win
    q, k = torch.ones(1, 4, 10, 10), -torch.ones(1, 4, 10, 10)
    grid = RegionGrid.of(10, 10, 7)
    idx = route_regions(to_regions(torch.cat([q, k], 1), grid), grid, topk=100)
    assert idx.shape == (1, 49, 25)
    filled = real_tokens(grid, q.device).any(dim=1)
    assert filled[idx].all()


def test_routing_is_decided_in_float32() -> None:
    # Sums beyond half precision's 65504, apart by less than its resolution there
    q = torch.full((1, 8, 2, 2), 200.0, dtype=torch.float16)
    k = q.clone()
    k[0, 0, 1, 1] += 0.125
    grid = RegionGrid.of(2, 2, 2)
    qk = to_regions(torch.cat([q, k], 1), grid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        idx = route_regions(qk, grid, topk=1)
    assert idx.flatten().tolist() == [3, 3, 3, 3]


def test_routing_carries_no_gradient() -> None:
    qk = torch.randn(1, 4, 4, 8, requires_grad=True)
    assert not route_regions(qk, RegionGrid.of(4, 4, 2), 2).requires_grad


@pytest.mark.parametrize("seed", range(60))
def test_sdpa_agrees_with_the_reference(seed: int) -> None:
    assert_backend_agrees(draw_problem(seed), seed, "sdpa")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_sdpa_agrees_with_the_reference_on_many(seed: int, dtype: torch.dtype) -> None:
    assert_backend_agrees(draw_problem(seed, largest=32, widths=(1, 5, 16, 32)), seed, "sdpa", dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(10))
def test_backends_in_half_precision(seed: int, dtype: torch.dtype, backend: str) -> None:
    assert_backend_agrees(draw_problem(seed), seed, backend, dtype)


@pytest.mark.parametrize("chunk_bytes", [1, 3_000, 20_000])
def test_chunks_do_not_change_the_result(chunk_bytes: int) -> None:
    problem = Problem(2, 2, 8, RegionGrid.of(11, 14, 4), 3)
    qkv = to_regions(torch.cat(problem.qkv(0), 1).detach(), problem.grid).requires_grad_()
    idx = route_regions(qkv[..., :16], problem.grid, 3)
    settings = AttentionSettings(2, scale=0.3)
    results = []
    for chunks in ({"chunk_bytes": 2**30}, {"chunk_bytes": chunk_bytes}):
        out = attend_sdpa(qkv, idx, problem.grid, settings, **chunks)
        results.append([out, *torch.autograd.grad(out.square().sum(), qkv)])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_bytes", [1, 3_000, 20_000])
def test_chunks_of_other_devices_do_not_change_the_result(chunk_bytes: int) -> None:
    torch.manual_seed(0)
    packed = torch.randn(12, 5, 3, 2, 4, requires_grad=True)
    routed = torch.stack([torch.randperm(12)[:3] for _ in range(12)])
    mask = (torch.rand(12, 1, 1, 15) < 0.7).index_fill(3, torch.tensor([0]), True)
    results = []
    for budget in (2**30, chunk_bytes):
        out = _attend_in_chunks(packed, routed, mask, 0.3, budget)
        results.append([out, *torch.autograd.grad(out.square().sum(), packed)])
    out = attend_rows_cpu(packed, routed, mask, 0.3)
    results.append([out, *torch.autograd.grad(out.square().sum(), packed)])
    for whole, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, whole, rtol=1e-5, atol=1e-5)


def test_training_keeps_no_copies_of_keys_and_values() -> None:
    """Saved for the backward pass: tokens, result and sums, and not topk copies of keys and values."""
    problem = Problem(1, 1, 16, RegionGrid.of(32, 32, 8), 32)
    inputs = problem.qkv(0)
    qkv = to_regions(torch.cat(inputs, 1), problem.grid)
    idx = route_regions(qkv[..., :32], problem.grid, 32)
    kept: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        attend_sdpa(qkv, idx, problem.grid, AttentionSettings(1, scale=0.25))
    copies_of_keys_and_values = 2 * 32 * inputs[0].nbytes
    assert sum(kept.values()) < copies_of_keys_and_values / 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_regions_equal_full_attention(backend: str) -> None:
    problem = Problem(2, 2, 16, RegionGrid.of(10, 13, 7), 49)
    grid = problem.grid
    q, k, v = (x.detach() for x in problem.qkv(0))
    idx = problem.route(q, k)
    out = bi_level_routing_attention(q, k, v, idx, grid, num_heads=2, scale=0.25, backend=backend)
    heads = [x.flatten(2).unflatten(1, (2, 8)).transpose(2, 3) for x in (q, k, v)]
    full = F.scaled_dot_product_attention(*heads, scale=0.25).transpose(2, 3).reshape(q.shape)
    torch.testing.assert_close(out, full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str) -> None:
    problem = Problem(1, 2, 4, RegionGrid.of(3, 5, 2), 2)
    grid = problem.grid
    inputs = problem.qkv(0, torch.float64)
    idx = problem.route(inputs[0], inputs[1])

    def attend(q, k, v):
        return bi_level_routing_attention(q, k, v, idx, grid, num_heads=2, scale=0.5, backend=backend)

    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_deterministic_mode(backend: str) -> None:
    problem = draw_problem(4)
    inputs = problem.qkv(4)
    idx = problem.route(inputs[0], inputs[1])
    torch.use_deterministic_algorithms(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of what it cannot do the same way twice
            first = [x.clone() for x in problem.run(inputs, idx, backend)]
            second = problem.run(inputs, idx, backend)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_meta_device(backend: str) -> None:
    grid = RegionGrid.of(40, 50, 7)
    q = torch.empty(1, 32, 40, 50, device="meta")
    idx = route_regions(to_regions(torch.cat([q, q], 1), grid), grid, 4)
    assert idx.shape == (1, 49, 4)
    out = bi_level_routing_attention(q, q, q, idx, grid, num_heads=4, scale=0.1, backend=backend)
    assert out.shape == q.shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_traced_by_dynamo_in_one_graph(backend: str) -> None:
    grid = RegionGrid.of(9, 10, 4)

    def attend(q, k, v):
        idx = route_regions(to_regions(torch.cat([q, k], 1), grid), grid, 3)
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
    with pytest.raises(BackendError, match=r"YOLO_BRA_BACKEND.*'cuda'.*reference, sdpa, triton"):
        choose_backend(q)
    with pytest.raises(BackendError, match="argument backend"):
        choose_backend(q, "fast")


def test_shapes_that_do_not_fit() -> None:
    q = torch.zeros(1, 6, 4, 4)
    grid = RegionGrid.of(4, 4, 2)
    idx = route_regions(to_regions(torch.cat([q, q], 1), grid), grid, 1)
    with pytest.raises(ValueError, match="heads"):
        bi_level_routing_attention(q, q, q, idx, grid, num_heads=4, scale=1.0)
    with pytest.raises(ValueError, match="do not belong"):
        bi_level_routing_attention(q, q, q, idx, RegionGrid.of(5, 4, 2), num_heads=1, scale=1.0)
    with pytest.raises(ValueError, match="do not belong"):
        attend_regions(torch.zeros(1, 4, 3, 18), idx, grid, AttentionSettings(1, scale=1.0))
