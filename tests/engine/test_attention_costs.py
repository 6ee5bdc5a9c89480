"""What the formulas say that attention costs is what torch counts, and the layer written plainly is the layer."""

from __future__ import annotations

import pytest
import torch

from engine.benchmarks.attention_cases import FAMILY, NAIVE, Place
from engine.benchmarks.attention_costs import (
    axial_cost,
    deformable_cost,
    dilated_cost,
    full_cost,
    growing_regions,
    growth_exponent,
    routing_cost,
    window_cost,
)
from engine.benchmarks.naive import NaiveBRA
from models.attention import (
    AxialAttention,
    BiLevelRoutingAttention,
    DeformableAttention,
    DilatedAttention,
    FullAttention,
    WindowAttention,
)
from utils.errors import ConfigError
from utils.model_info import count_flops


@pytest.mark.parametrize(
    ("shape", "heads", "n_win", "topk", "named"),
    [
        ((2, 16, 8, 8), 2, 4, 3, {}),
        ((1, 24, 6, 12), 3, 3, 2, {"side_dwconv": 0}),
        ((2, 8, 10, 5), 1, 5, 25, {"qk_scale": 0.7}),
        ((1, 8, 4, 4), 2, 2, 1, {"init_scale": 0.5, "side_dwconv": 5}),
    ],
)
def test_the_naive_layer_computes_what_the_layer_computes(shape, heads, n_win, topk, named):
    torch.manual_seed(0)
    naive = NaiveBRA(shape[1], heads, n_win, topk=topk, **named).double()
    ours = BiLevelRoutingAttention(shape[1], heads, n_win, topk=topk, backend="reference", **named).double()
    ours.load_state_dict(naive.state_dict())
    results = []
    for layer in (naive, ours):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        out = layer(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    for plain, reference in zip(*results, strict=True):
        torch.testing.assert_close(plain, reference, rtol=1e-6, atol=1e-8)  # routing of both is in float32 or better


@pytest.mark.parametrize(("height", "width", "topk"), [(9, 8, 1), (8, 10, 1), (8, 8, 17)])
def test_the_naive_layer_refuses_what_the_formula_does_not_cover(height, width, topk):
    with pytest.raises(ConfigError, match="written plainly cannot serve"):
        NaiveBRA(8, 2, 4, topk=topk)(torch.zeros(1, 8, height, width))


@pytest.mark.parametrize(("height", "width"), [(14, 14), (9, 33), (5, 3), (1, 1)])
@pytest.mark.parametrize(
    ("layer", "cost"),
    [
        (FullAttention, full_cost),
        (WindowAttention, window_cost),
        (AxialAttention, axial_cost),
        (DilatedAttention, dilated_cost),
        (DeformableAttention, deformable_cost),
        (BiLevelRoutingAttention, lambda *place: routing_cost(*place, n_win=7)),
    ],
)
def test_formulas_are_what_torch_counts(layer, cost, height, width):
    assert cost(64, height, width).total == count_flops(layer(64, 0), height, width, 64)


@pytest.mark.parametrize("variant", [*FAMILY, NAIVE], ids=lambda variant: variant.name)
@pytest.mark.parametrize("place", [Place("P3", 64), Place("P4", 640), Place("P5", 320)], ids=str)
def test_every_variant_has_the_formula_of_its_layer(variant, place):
    assert variant.cost(place).total == count_flops(variant.build(place), place.side, place.side, place.dim)


def test_formulas_by_hand():
    cost = routing_cost(8, 4, 4, n_win=2, topk=1)  # 4 regions of 4 tokens, each looking at one of them
    assert (cost.projections, cost.local, cost.attention, cost.choosing) == (8192, 2304, 2048, 256)
    assert cost.total == 8192 + 2304 + 2048 + 256
    assert full_cost(8, 4, 4).attention == 4 * 16 * 16 * 8
    assert routing_cost(8, 4, 4, n_win=2, topk=9).attention == full_cost(8, 4, 4).attention


def test_exponent_of_a_power():
    assert growth_exponent([1, 10, 100], [7.0, 7e3, 7e6]) == pytest.approx(3)
    assert growth_exponent([100], [3.0]) is None


def test_regions_grow_as_the_cube_root_of_the_tokens():
    assert growing_regions(80, 80) == 8
    assert growing_regions(640, 640) == 32
    assert growing_regions(1, 1) == 1


@pytest.mark.parametrize("variant", FAMILY, ids=lambda variant: variant.name)
def test_limits_stated_are_those_of_the_formulas(variant):
    places = [Place("P3", 8 * side) for side in (896, 1792, 3584)]  # multiples of windows, strides and regions
    terms = [variant.cost(place).attention for place in places]
    assert growth_exponent([place.tokens for place in places], terms) == pytest.approx(variant.limit, abs=0.02)
