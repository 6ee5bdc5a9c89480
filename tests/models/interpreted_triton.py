"""The Triton kernels on the CPU, by Triton's interpreter; ``test_triton.py`` runs this file in a process of its own.

The interpreter is chosen when triton is imported, so these tests need ``TRITON_INTERPRET=1`` from the start:
``TRITON_INTERPRET=1 python -m pytest tests/models/interpreted_triton.py``.
"""

from __future__ import annotations

import os

import pytest
import torch
from attention_problems import Problem, assert_backend_agrees, draw_problem

from models.attention.bra import BiLevelRoutingAttention
from models.attention.ops.dispatch import bi_level_routing_attention, choose_backend
from models.attention.ops.regions import RegionGrid

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("these tests need TRITON_INTERPRET=1 in the environment")

HALVES = [torch.float16, torch.bfloat16]
WIDTHS = (1, 5, 16, 24)


def test_dispatch_lets_the_interpreter_serve_the_cpu() -> None:
    assert choose_backend(torch.zeros(1), "triton") == "triton"
    assert choose_backend(torch.zeros(1)) == "sdpa"  # it is for tests: nobody gets it unasked


@pytest.mark.parametrize("seed", [1, 2, 3, 5, 6, 7])
def test_agrees_with_the_reference(seed: int) -> None:
    assert_backend_agrees(draw_problem(seed, largest=5, widths=WIDTHS), seed, "triton")


@pytest.mark.parametrize("dtype", HALVES)
def test_agrees_in_half_precision(dtype: torch.dtype) -> None:
    seed = 5
    assert_backend_agrees(draw_problem(seed, largest=5, widths=WIDTHS), seed, "triton", dtype)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_agrees_with_the_reference_on_many(seed: int) -> None:
    dtype = [torch.float32, torch.float32, *HALVES][seed % 4]
    assert_backend_agrees(draw_problem(seed, largest=8, widths=(1, 5, 16, 24, 40)), seed, "triton", dtype)


@pytest.mark.parametrize("heads,width", [(1, 128), pytest.param(2, 64, marks=pytest.mark.slow)])
def test_wide_heads_and_large_regions(heads: int, width: int) -> None:
    # Several tiles a region, the last of them partly empty, and a map whose regions reach beyond it
    problem = Problem(1, heads, heads * width, RegionGrid.of(9, 11, 2), 2)
    assert_backend_agrees(problem, 0, "triton")


def test_a_region_that_none_looks_at_and_one_that_all_look_at() -> None:
    problem = Problem(1, 1, 8, RegionGrid.of(4, 4, 2), 1)
    inputs = problem.qkv(0)
    idx = torch.full((1, 4, 1), 3)
    wanted = problem.run([x.detach().clone().requires_grad_() for x in inputs], idx, "reference")
    for ours, reference in zip(problem.run(inputs, idx, "triton"), wanted, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_whole_layer() -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(8, 1, n_win=2, topk=2, init_scale=0.5, backend="triton")
    x = torch.randn(1, 8, 5, 4, requires_grad=True)
    results = []
    for backend in ("triton", "reference"):
        layer.backend = backend
        out = layer(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_same_again_bit_for_bit() -> None:
    problem = Problem(1, 2, 8, RegionGrid.of(3, 4, 2), 2)
    inputs = problem.qkv(4)
    idx = problem.route(inputs[0], inputs[1])
    torch.use_deterministic_algorithms(True)
    try:
        first = [x.clone() for x in problem.run(inputs, idx, "triton")]
        second = problem.run(inputs, idx, "triton")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_compiled_in_one_graph() -> None:
    problem = Problem(1, 2, 8, RegionGrid.of(3, 4, 2), 2)
    inputs = problem.qkv(0)
    idx = problem.route(inputs[0], inputs[1])

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return bi_level_routing_attention(q, k, v, idx, problem.grid, num_heads=2, scale=0.5, backend="triton")

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    results = []
    for run in (compiled, attend):
        out = run(*inputs)
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, eager in zip(*results, strict=True):
        torch.testing.assert_close(ours, eager)


def test_operator_keeps_to_the_rules_of_torch() -> None:
    from models.attention.ops.triton_backend import _attend

    packed = torch.randn(4, 4, 12, requires_grad=True)  # 2 x 2 regions of 2 x 2 tokens
    sides = [4, 2, 2, 2, 4, 4]
    routed = torch.tensor([[0, 1], [1, 2], [3, 0], [2, 3]])
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_attend, (packed, routed, sides, 1, 0.5, False), test_utils=checks)
