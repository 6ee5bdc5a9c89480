"""One suite over every layer that a YAML may name and every YAML that is shipped: a new one is tested by existing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from models import builder
from models.registry import LayerSpec, layer_spec, register_layer, registered_layers
from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.yaml_io import yaml_load

WIDTH = 32
MODELS = Path(__file__).resolve().parents[2] / "models"
YAMLS = sorted(path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*.yaml"))

# The shortest row of each layer; a layer that is not listed is built from an empty one, or from its width alone.
ROWS = {
    "nn.Upsample": [None, 2, "nearest"],
    "nn.UpsamplingNearest2d": [None, 2],
    "nn.UpsamplingBilinear2d": [None, 2],
    "nn.MaxPool2d": [3, 1, 1],
    "nn.AvgPool2d": [3, 1, 1],
    "nn.ZeroPad2d": [[0, 1, 0, 1]],
    "nn.ConvTranspose2d": [WIDTH, 2, 2],
    "DWConvTranspose2d": [WIDTH, 2, 2],
    "TransformerLayer": [WIDTH, 4],
    "TransformerBlock": [WIDTH, 4, 1],
    "Contract": [2],
    "Expand": [2],
    "Concat": [1],
}
RESIZING = {"nn.Upsample", "nn.UpsamplingNearest2d", "nn.UpsamplingBilinear2d", "nn.ZeroPad2d", "nn.ConvTranspose2d",
            "DWConvTranspose2d", "Contract", "Expand", "Focus", "BiFormerStem", "BiFormerDown"}  # fmt: skip
EVEN_ONLY = {"Focus", "Contract"}  # they fold 2x2 pixels
LAYERS = {name: spec for name, spec in registered_layers().items() if spec.width != "detect"}
TOKENS = {"TransformerLayer"}  # takes (T, B, C), not a map


def make(spec: LayerSpec) -> nn.Module:
    """Build a layer the way a YAML row does."""
    torch.manual_seed(0)
    row = ROWS.get(spec.name, [WIDTH] if spec.width == "scaled" else [])
    config = {
        "nc": 1,
        "anchors": 1,
        "backbone": [[-1, 1, "Conv", [WIDTH, 1, 1]], [-1, 1, spec.name, row]],
        "head": [[[0], 1, "Detect", ["nc", "anchors"]]],
        "ch": 3 if spec.name == "BiFormerStem" else WIDTH,
    }
    if spec.name == "BiFormerStem":
        config["backbone"].pop(0)
    layers, _ = builder.parse_model(config, [config["ch"]])
    layer = layers[len(config["backbone"]) - 1]
    for parameter in layer.parameters():  # layer scales start at zero, which would hide what is behind them
        if parameter.ndim <= 1 and not parameter.any():
            nn.init.constant_(parameter, 0.5)
    return layer


def image(spec: LayerSpec, height: int, width: int, batch: int = 2) -> torch.Tensor | list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels = 3 if spec.name == "BiFormerStem" else WIDTH
    x = torch.rand(batch, channels, height, width, generator=generator)
    if spec.name in TOKENS:
        return x.flatten(2).permute(2, 0, 1)
    return [x, x] if spec.name == "Concat" else x


@pytest.mark.parametrize("name", LAYERS)
def test_forward_is_finite_and_deterministic_in_evaluation(name: str) -> None:
    layer = make(LAYERS[name]).eval()
    x = image(LAYERS[name], 8, 12)
    with torch.no_grad():
        first, second = layer(x), layer(x)
    assert torch.isfinite(first).all()
    torch.testing.assert_close(first, second, rtol=0, atol=0)


WEIGHTED = [name for name, spec in LAYERS.items() if any(True for _ in make(spec).parameters())]


@pytest.mark.parametrize("name", WEIGHTED)
def test_every_parameter_receives_a_gradient(name: str) -> None:
    layer = make(LAYERS[name]).train()
    output = layer(image(LAYERS[name], 8, 12))
    (output * torch.rand(output.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    without = [key for key, parameter in layer.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not without, f"no gradient for {without}"


@pytest.mark.parametrize("size", [(7, 13), (1, 1), (33, 9)], ids=str)
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in EVEN_ONLY])
def test_odd_sizes(name: str, size: tuple[int, int]) -> None:
    layer = make(LAYERS[name]).eval()
    x = image(LAYERS[name], *size, batch=1)
    with torch.no_grad():
        output = layer(x)
    assert torch.isfinite(output).all()
    if name not in RESIZING | TOKENS:
        assert output.shape[-2:] == size


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_round_trip_and_copy(name: str) -> None:
    layer = make(LAYERS[name]).eval()
    twin = copy.deepcopy(layer)
    other = make(LAYERS[name]).eval()
    other.load_state_dict(layer.state_dict())
    x = image(LAYERS[name], 8, 8)
    with torch.no_grad():
        expected = layer(x)
        torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_stays_near_float32(name: str) -> None:
    layer = make(LAYERS[name]).eval()
    x = image(LAYERS[name], 8, 8)
    with torch.no_grad():
        expected = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(x)
    error = (output.float() - expected).norm() / expected.norm()
    assert error < 0.02  # bfloat16 keeps 8 bits: 0.4 % a rounding


@pytest.mark.parametrize("name", LAYERS)
def test_attributes_that_outside_tools_read(name: str) -> None:
    layer = make(LAYERS[name])
    assert layer.type == LAYERS[name].type_name
    assert layer.type.startswith(("models.common.", "torch.nn."))
    assert layer.f == -1
    assert layer.np == sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_builds_and_its_parts_fit(name: str) -> None:
    """On shapes alone: widths, strides and rows of predictions."""
    with torch.device("meta"):
        model = DetectionModel(name).train()
        levels = model(torch.empty(1, 3, 256, 256))
    head = model.model[-1]
    assert len(levels) == head.nl == len(model.stride)
    assert (model.stride[1:] > model.stride[:-1]).all()
    for level, stride in zip(levels, model.stride.tolist(), strict=True):
        side = int(256 / stride)
        assert level.shape == (1, head.na, side, side, 85)


SMALL_YAMLS = [name for name in YAMLS if Path(name).stem.startswith(("yolov5n", "yolov3-tiny"))]


@pytest.mark.parametrize("name", SMALL_YAMLS)
def test_small_models_run_and_learn(name: str) -> None:
    """Real numbers: a training pass reaches every parameter but those behind a zero layer scale."""
    torch.manual_seed(0)
    model = DetectionModel(name, nc=3)
    step = int(model.stride.max())
    x = torch.rand(1, 3, 2 * step, step)
    sum(level.square().mean() for level in model.train()(torch.rand(2, 3, step, step))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.inference_mode():
        predictions, raw = model.eval()(x)
    assert torch.isfinite(predictions).all()
    assert predictions.shape == (1, sum(level[0, ..., 0].numel() for level in raw), 8)


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_is_plain_data(name: str) -> None:
    content = yaml_load(MODELS / name)
    assert {"nc", "anchors", "backbone", "head"} <= set(content)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register_layer("Conv", width="same")(nn.Identity)
    assert layer_spec("Conv").cls is not nn.Identity


def test_unknown_width_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="width rule"):
        register_layer("Anything", width="wide")


def test_unknown_layer_names_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*C3TR"):
        layer_spec("C3RT")
