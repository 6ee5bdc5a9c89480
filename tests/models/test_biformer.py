"""BiFormer: golden classifiers, the block, C3BiFormer and the rows that make a detector's backbone."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pytest
import torch
from live_memory import peak_of_training
from torch import nn
from torchvision.ops import StochasticDepth

from golden_formulas import (
    assert_golden,
    check_numbers,
    fill_module,
    golden_arrays,
    golden_json,
    sample_positions,
    uniform,
)
from models.attention.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BiFormer,
    BiFormerDown,
    BiFormerStage,
    BiFormerStem,
    ChannelNorm,
    biformer_base,
    biformer_small,
    biformer_tiny,
    stage_drop_paths,
)
from models.attention.biformer import BiFormerBlock
from models.attention.block import DropPath
from models.attention.released import FullAttentionWithLocalTerm, released_to_ours, released_to_rows
from models.config import load_model_yaml
from models.layers.c3_biformer import C3BiFormer
from models.layers.csp import C3
from models.registry import layer_spec
from models.yolo import DetectionModel
from utils.errors import CheckpointError, ConfigError

MODELS = golden_json("biformer")["models"]
FACTORIES = {"tiny": biformer_tiny, "small": biformer_small, "base": biformer_base}


@pytest.mark.golden
@pytest.mark.parametrize("name", FACTORIES)
def test_released_sizes_and_keys(name: str) -> None:
    golden = MODELS[name]
    with torch.device("meta"):
        model = FACTORIES[name]()
    lines = [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items()]
    assert sum(p.numel() for p in model.parameters()) == golden["parameters"]
    assert len(lines) == golden["state_dict_keys"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == golden["key_shape_sha256"]


@pytest.mark.golden
def test_tiny_gives_the_released_numbers() -> None:
    golden, stored = MODELS["tiny"], golden_arrays("biformer")
    model = fill_module(biformer_tiny(), golden["fill_salt"]).eval()
    values = uniform(golden["input"], golden["shape"])
    np.testing.assert_allclose(check_numbers(values), golden["input_check"], rtol=1e-6)
    x = torch.from_numpy(values)
    with torch.no_grad():
        maps = model.forward_features(x)
        logits = model(x)
    assert [list(stage.shape) for stage in maps] == golden["stage_shapes"]
    for stage, found in enumerate(maps):
        flat = found.flatten()
        sample = flat[torch.from_numpy(sample_positions(flat.numel(), 64))]
        assert_golden(sample, stored[f"tiny.stage{stage}_sample"], tol=1e-3)
        assert_golden(flat.mean(), stored["tiny.stage_mean"][stage], tol=1e-3)
        assert_golden(flat.std(correction=0), stored["tiny.stage_std"][stage], tol=1e-3)
    assert_golden(logits / golden["logits_std"], stored["tiny.logits"] / golden["logits_std"])


def small_classifier(**settings) -> BiFormer:
    torch.manual_seed(0)
    return BiFormer((1, 1, 2, 1), (16, 32, 64, 64), num_classes=5, **settings)


@pytest.mark.parametrize("n_win", [7, 8])
def test_masked_equals_legacy_where_regions_divide(n_win: int) -> None:
    legacy, masked = small_classifier(n_win=n_win).eval(), small_classifier(n_win=n_win, padding="masked").eval()
    side = 32 * n_win
    x = torch.randn(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(masked(x), legacy(x), rtol=1e-4, atol=1e-5)


def test_classifier_trains_every_parameter() -> None:
    model = small_classifier(drop_path=0.1)
    model(torch.randn(2, 3, 64, 96)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_drop_path_rises_over_all_blocks() -> None:
    model = BiFormer((1, 2, 2, 1), (16, 16, 16, 16), num_classes=1, drop_path=0.5)
    rates = [block.drop_path.p for stage in model.stages for block in stage]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert stage_drop_paths((1,), 0.3) == [(0, 0)]


def test_drop_path_skips_whole_images() -> None:
    torch.manual_seed(0)
    block = BiFormerBlock(8, drop_path=0.5, n_win=2, mlp_ratio=1).train()
    x = torch.randn(64, 8, 3, 3)
    out = block(x)
    untouched = (out == x + block.pos_embed(x)).flatten(1).all(dim=1)
    assert 4 < int(untouched.sum()) < 32  # about a quarter of the images lose both branches
    assert torch.equal(block.eval()(x), block(x))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_drop_path_is_stochastic_depth(p: float) -> None:
    x = torch.randn(16, 3, 2, 2)
    torch.manual_seed(3)
    wanted = StochasticDepth(p, mode="row").train()(x)
    torch.manual_seed(3)
    torch.testing.assert_close(DropPath(p).train()(x), wanted)
    assert torch.equal(DropPath(p).eval()(x), x)


@pytest.mark.parametrize(("size", "depths", "last"), [("t", 14, 0.0), ("s", 30, 0.2), ("b", 30, 0.3)])
def test_drop_path_rises_evenly_over_the_shipped_backbones(size: str, depths: int, last: float) -> None:
    with torch.device("meta"):
        model = DetectionModel(f"yolov5-biformer-{size}.yaml")
    rates = [module.p for module in model.modules() if isinstance(module, DropPath)]
    np.testing.assert_allclose(rates, np.linspace(0, last, depths), atol=1e-4)


def training_gradients(stage: BiFormerStage, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)  # for the images that drop path leaves out
    out = stage.train()(x)
    return torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), [x, *stage.parameters()])


@pytest.mark.parametrize("topk", [2, -2])
def test_recomputing_keeps_less_and_gives_the_same_gradients(topk: int) -> None:
    torch.manual_seed(0)
    plain = BiFormerStage(32, depth=4, n_win=4, topk=topk, drop_path=0.4)
    lean = copy.deepcopy(plain)
    lean.recompute = True
    x = torch.randn(4, 32, 16, 12, requires_grad=True)
    for wanted, found in zip(training_gradients(plain, x), training_gradients(lean, x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert peak_of_training(lean, 4, 32, 16, 12) < 0.5 * peak_of_training(plain, 4, 32, 16, 12)
    with torch.no_grad():
        assert torch.equal(lean.eval()(x), plain.eval()(x))


def test_a_row_and_the_classifier_can_ask_for_recomputing() -> None:
    content, _ = load_model_yaml("yolov5-biformer-t.yaml")
    content["backbone"][1][3] = [2, 8, 1, 0, 0.1, True]
    with torch.device("meta"):
        model = DetectionModel(content)
        assert all(stage.recompute for stage in small_classifier(recompute=True).stages)
    assert [layer.recompute for layer in model.model if isinstance(layer, BiFormerStage)] == [True, False, False, False]


def test_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = BiFormerBlock(16, n_win=3, topk=2, init_scale=0.5)
    x = torch.randn(2, 16, 7, 5)
    y = x + 0.5 * block.pos_embed(x)
    y = y + 0.5 * block.attn(block.norm1(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    y = y + 0.5 * block.mlp(block.norm2(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), y)


def test_block_keys() -> None:
    plain = [key.rsplit(".", 1)[0] for key in BiFormerBlock(32).state_dict() if key.endswith("weight")]
    attn = ["attn.lepe", "attn.qkv_linear", "attn.output_linear"]
    assert plain == ["pos_embed", "norm1", *attn, "norm2", "mlp.0", "mlp.3"]
    scaled = BiFormerBlock(32, init_scale=1e-6).state_dict()
    assert {key for key in scaled if key.startswith("gamma")} == {"gamma0", "gamma1", "gamma2"}


@pytest.mark.parametrize("height,width", [(1, 1), (7, 13), (3, 2), (10, 10)])
def test_block_with_zero_scale_is_the_identity(height: int, width: int) -> None:
    x = torch.randn(2, 32, height, width)
    assert torch.equal(BiFormerBlock(32, init_scale=0)(x), x)


def test_every_parameter_of_a_block_gets_a_gradient() -> None:
    block = BiFormerBlock(32, init_scale=1e-2)
    block(torch.randn(2, 32, 9, 10)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_zero_scale_moves_the_scale_alone_at_first() -> None:
    block = BiFormerBlock(32, init_scale=0)
    block(torch.randn(1, 32, 8, 8)).square().sum().backward()
    moved = {name for name, p in block.named_parameters() if p.grad.abs().sum() > 0}
    assert moved == {"gamma0", "gamma1", "gamma2"}


@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (2, 16, 9, 6)])
def test_c3_biformer_starts_as_c3(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain, ours = C3(16, 32, 2, False).eval(), C3BiFormer(16, 32, 2, False).eval()
    keys = list(plain.state_dict())
    assert list(ours.state_dict())[: len(keys)] == keys
    assert all(key.startswith("attn.") for key in list(ours.state_dict())[len(keys) :])
    ours.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(shape)
    assert torch.equal(ours(x), plain(x))


def test_c3_biformer_attends_once_its_scale_moves() -> None:
    layer = C3BiFormer(16, 32).eval()
    x = torch.randn(1, 16, 8, 8)
    before = layer(x)
    nn.init.constant_(layer.attn.gamma1, 0.5)
    assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize(
    "name,width,row",
    [
        ("BiFormerBlock", "same", ("num_heads", "n_win", "topk", "mlp_ratio")),
        ("C3BiFormer", "scaled", ("shortcut", "num_heads", "n_win", "topk")),
    ],
)
def test_rows_take_their_values_in_order_and_a_zero_scale(name: str, width: str, row: tuple[str, ...]) -> None:
    spec = layer_spec(name)
    assert (spec.width, spec.row, spec.repeats) == (width, row, name == "C3BiFormer")
    assert spec.row_defaults == {"num_heads": 0, "init_scale": 0.0}


def backbone_rows() -> nn.Sequential:
    """The first eight rows of a small BiFormer detector, as the YAML builder makes them."""
    widths, depths, topks = (16, 32, 64, 64), (1, 1, 2, 1), (1, 4, 16, -2)
    rows: list[nn.Module] = [BiFormerStem(3, widths[0])]
    for stage, (width, depth, topk) in enumerate(zip(widths, depths, topks, strict=True)):
        if stage:
            rows.append(BiFormerDown(widths[stage - 1], width))
        rows.append(BiFormerStage(width, depth=depth, n_win=7, topk=topk))
    return nn.Sequential(*rows)


def test_released_weights_load_into_rows() -> None:
    classifier, rows = small_classifier().eval(), backbone_rows().eval()
    stored = classifier.state_dict()
    rows.load_state_dict(released_to_rows(stored, prefix=""))  # strict: every key is found
    image = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        wanted = classifier.forward_features((image - mean) / std)[-1]
        torch.testing.assert_close(rows(image), wanted, rtol=1e-4, atol=1e-4)


def test_released_detector_keys_map_to_norm_rows() -> None:
    state = {"backbone.stages.1.0.norm1.weight": torch.ones(2), "backbone.extra_norms.1.weight": torch.ones(2)}
    assert set(released_to_rows(state, first=2, norms={1: 12})) == {"model.5.0.norm1.weight", "model.12.weight"}
    assert set(released_to_rows(state)) == {"model.3.0.norm1.weight"}


def test_other_state_dicts_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no BiFormer state dict"):
        released_to_rows({"model.0.conv.weight": torch.ones(1)})


def test_released_keys_become_ours() -> None:
    stored = small_classifier().state_dict()
    kept = list(stored)
    ours = released_to_ours(stored)
    assert list(stored) == kept
    block = BiFormerBlock(16, topk=1)
    block.load_state_dict({k.removeprefix("stages.0.0."): v for k, v in ours.items() if k.startswith("stages.0.0.")})
    assert torch.equal(ours["stages.3.0.attn.qkv.weight"], stored["stages.3.0.attn.qkv.weight"])


def test_stem_normalises_colour_images_only() -> None:
    torch.manual_seed(0)
    stem = BiFormerStem(3, 8).eval()
    plain = BiFormerStem(3, 8, normalize=False).eval()
    plain.load_state_dict(stem.state_dict())
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(stem(mean), plain(torch.zeros(1, 3, 8, 8)))
    assert BiFormerStem(1, 8)(torch.rand(2, 1, 8, 8)).shape == (2, 8, 2, 2)


def test_stage_heads_and_rates() -> None:
    stage = BiFormerStage(64, depth=3, topk=4, drop_path=[0.1, 0.3])
    assert [block.attn.num_heads for block in stage] == [2, 2, 2]
    np.testing.assert_allclose([block.drop_path.p for block in stage], [0.1, 0.2, 0.3])
    full = BiFormerStage(64, depth=1, topk=-2)
    assert isinstance(full[0].attn, FullAttentionWithLocalTerm)
    with pytest.raises(ConfigError, match="8 heads"):
        BiFormerStage(20, depth=1, topk=-2)


def test_channel_norm_is_per_pixel() -> None:
    x = torch.randn(2, 8, 3, 5) * 4 + 1
    out = ChannelNorm(8)(x)
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(2, 3, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(dim=1, correction=0), torch.ones(2, 3, 5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [BiFormerBlock(32, init_scale=0.1), C3BiFormer(32, 32)], ids=["block", "c3"])
def test_copies_and_compiles(module: nn.Module) -> None:
    twin = copy.deepcopy(module).eval()
    x = torch.randn(1, 32, 9, 7)
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module.eval()(x))
