"""The routing that is recorded is the routing that was used, for every kind of padding; shares by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.attention import BiFormerBlock, BiLevelRoutingAttention
from models.attention.ops.reference import attend_reference
from models.attention.ops.regions import from_regions
from models.attention.ops.settings import AttentionSettings
from models.attention.recording import LayerRouting, RoutingRecorder
from models.yolo import DetectionModel
from utils.errors import ConfigError

MAPS = [(8, 8), (10, 13), (20, 20), (3, 2), (1, 1)]
PADDINGS = ["masked", "legacy", "released"]


def recorded(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[LayerRouting]]:
    with torch.no_grad(), RoutingRecorder(model) as recorder:
        return model(x), recorder.take()


def layer_for(padding: str, topk: int = 3) -> BiLevelRoutingAttention:
    torch.manual_seed(0)
    return BiLevelRoutingAttention(8, 2, n_win=4, topk=topk, padding=padding).eval()


def cases() -> list[tuple[str, tuple[int, int]]]:
    fits = {"released": lambda side: side >= 4}  # the released cut knows no smaller map
    return [(kind, hw) for kind in PADDINGS for hw in MAPS if all(map(fits.get(kind, lambda side: True), hw))]


@pytest.mark.parametrize(("padding", "map_hw"), cases())
def test_recorded_regions_reproduce_the_layers_output(padding, map_hw):
    layer = layer_for(padding)
    x = torch.randn(2, 8, *map_hw)
    out, (routing,) = recorded(layer, x)
    assert routing.map_hw == map_hw and routing.idx.shape[:2] == (2, routing.grid.regions)
    qkv, grid = layer._projected(x)
    assert grid == routing.grid
    settings = AttentionSettings(routing.num_heads, routing.scale, routing.mask_padding)
    mixed = attend_reference(qkv, routing.idx, routing.grid, settings)
    total = from_regions(mixed, grid) + layer.lepe(from_regions(qkv[..., 16:], grid))
    again = layer.output_linear(total[:, :, : map_hw[0], : map_hw[1]])
    torch.testing.assert_close(out, again, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(routing.queries_keys, qkv[..., :16])
    torch.testing.assert_close(routing.idx, layer.route(x)[0])


@pytest.mark.parametrize(("padding", "map_hw"), cases())
def test_shares_are_the_weights_that_the_attention_gives(padding, map_hw):
    """With values that are 1 in one region and 0 elsewhere, attention gives the weight on that region."""
    layer = layer_for(padding)
    _, (routing,) = recorded(layer, torch.randn(1, 8, *map_hw))
    grid, qk = routing.grid, routing.queries_keys
    settings = AttentionSettings(2, routing.scale, routing.mask_padding)
    for row, column in {(0, 0), (map_hw[0] - 1, map_hw[1] - 1), (map_hw[0] // 2, 0)}:
        region = routing.region_at(row, column)
        shares = routing.shares(region)
        assert shares.sum().item() == pytest.approx(1, abs=1e-5)
        for slot, looked_at in enumerate(routing.idx[0, region].tolist()):
            values = torch.zeros(1, grid.regions, grid.tokens, 8)
            values[:, looked_at] = 1
            weights = from_regions(attend_reference(torch.cat([qk, values], -1), routing.idx, grid, settings), grid)
            top, left = region // grid.cols * grid.region_h, region % grid.cols * grid.region_w
            bottom, right = min(top + grid.region_h, map_hw[0]), min(left + grid.region_w, map_hw[1])
            own = weights[0, :, top:bottom, left:right]
            torch.testing.assert_close(shares[slot], own.mean(), rtol=1e-4, atol=1e-5)


def test_regions_of_padding_alone_have_no_shares():
    layer = layer_for("masked")
    _, (routing,) = recorded(layer, torch.randn(1, 8, 5, 5))  # 4 x 4 regions of 2 x 2: the last row and column is empty
    assert routing.grid.has_empty_regions
    assert routing.shares(15).tolist() == [0.0] * 3
    assert not set(routing.idx.flatten().tolist()) & {3, 7, 11, 12, 13, 14, 15}
    assert torch.isneginf(routing.affinity[0, :, 15]).all()


def test_topk_beyond_the_regions_is_full_attention():
    _, (routing,) = recorded(layer_for("masked", topk=99), torch.randn(1, 8, 8, 8))
    assert routing.idx.shape == (1, 16, 16)
    assert sorted(routing.idx[0, 0].tolist()) == list(range(16))
    assert routing.shares(0).sum().item() == pytest.approx(1, abs=1e-5)


def test_best_regions_come_first():
    _, (routing,) = recorded(layer_for("masked"), torch.randn(2, 8, 20, 20))
    best = routing.affinity.topk(3).indices
    torch.testing.assert_close(routing.idx, best)


@pytest.mark.parametrize(
    ("row", "column", "region"),
    [(0, 0, 0), (2.99, 0, 0), (3, 0, 4), (0, 3.99, 0), (0, 4, 1), (9, 12, 15), (99, 99, 15), (-5, 4.5, 1)],
)
def test_region_of_a_place(row, column, region):
    _, (routing,) = recorded(layer_for("masked"), torch.randn(1, 8, 10, 13))  # regions of 3 x 4 tokens
    assert routing.region_at(row, column) == region


def test_nothing_changes_while_recording_and_nothing_is_left_behind():
    torch.manual_seed(0)
    model = nn.Sequential(BiFormerBlock(16, 0, 4, 2), BiFormerBlock(16, 0, 2, 1)).eval()
    x = torch.randn(1, 16, 9, 9)
    with torch.inference_mode():
        before = model(x)
        with RoutingRecorder(model) as recorder:
            assert recorder.names == ("0.attn", "1.attn")
            during = model(x)
            assert [layer.name for layer in recorder.take()] == ["0.attn", "1.attn"]
            assert recorder.take() == []
        after = model(x)
    assert recorder.take() == []
    assert torch.equal(before, during) and torch.equal(before, after)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert not [key for key in model.state_dict() if "router" in key]


def test_the_last_pass_counts():
    layer = layer_for("masked")
    with RoutingRecorder(layer) as recorder:
        layer(torch.randn(1, 8, 8, 8))
        layer(torch.randn(2, 8, 12, 12))
        (routing,) = recorder.take()
    assert routing.map_hw == (12, 12) and len(routing.idx) == 2


def test_half_precision_gives_shares_too():
    layer = layer_for("masked").to(torch.bfloat16)
    _, (routing,) = recorded(layer, torch.randn(1, 8, 9, 9, dtype=torch.bfloat16))
    assert routing.shares(0).dtype == torch.float32
    assert routing.shares(0).sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", [nn.Conv2d(1, 1, 1), None, lambda x: x])
def test_networks_without_routing_are_refused(model):
    with pytest.raises(ConfigError, match="no bi-level routing attention"):
        RoutingRecorder(model)


def test_every_layer_of_a_detector_is_heard():
    model = DetectionModel("yolov5n-biformer-both.yaml").eval()
    _, layers = recorded(model, torch.rand(1, 3, 64, 96))
    assert [layer.name for layer in layers] == [f"model.{number}.attn" for number in (10, 19, 23, 27)]
    assert [layer.map_hw for layer in layers] == [(2, 3), (8, 12), (4, 6), (2, 3)]
