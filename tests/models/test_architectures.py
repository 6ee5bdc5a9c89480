"""Every golden architecture: names and shapes of all tensors, parameters, strides, anchors, cost."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from golden_formulas import golden_arrays, golden_json
from models.yolo import DetectionModel
from utils.model_info import count_flops

ARCHITECTURES = golden_json("architectures")["models"]
pytestmark = pytest.mark.golden


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> tuple[str, DetectionModel]:
    """A name and its network, built once; shapes are all that is looked at, so no weight is ever made."""
    case = ARCHITECTURES[request.param]
    with torch.device("meta"):
        return request.param, DetectionModel(f"{case['yaml']}.yaml", nc=case["nc"])


def test_state_dict_equals_the_reference_to_the_letter(architecture: tuple[str, DetectionModel]) -> None:
    name, model = architecture
    case = ARCHITECTURES[name]
    state = model.state_dict()
    lines = [f"{key} {tuple(value.shape)}" for key, value in state.items()]
    if "listing" in case:
        assert lines == [f"{key} {tuple(shape)}" for key, shape in case["listing"]]
    assert len(lines) == case["state_dict_keys"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == case["key_shape_sha256"]


def test_size_strides_and_anchors(architecture: tuple[str, DetectionModel]) -> None:
    name, model = architecture
    case = ARCHITECTURES[name]
    assert sum(parameter.numel() for parameter in model.parameters()) == case["parameters"]
    assert model.stride.tolist() == case["strides"]
    anchors = model.model[-1].anchors
    expected = torch.tensor(case["anchors_over_stride"]).view_as(anchors)
    torch.testing.assert_close(anchors, expected, rtol=1e-5, atol=1e-5)


def test_flops(architecture: tuple[str, DetectionModel]) -> None:
    """Convolutions to the digit; where there is attention, its matrix products come on top."""
    name, model = architecture
    case = ARCHITECTURES[name]
    counted = count_flops(model) / 1e9
    if name == "yolov5s-transformer":
        assert counted > case["gflops_conv_640"] + 0.5
    else:
        assert counted == pytest.approx(case["gflops_conv_640"], abs=1e-6)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost", "yolov5s-transformer", "yolov3-tiny", "yolov5n6"])
def test_fusing_leaves_the_expected_parameters(name: str) -> None:
    case = ARCHITECTURES[name]
    model = DetectionModel(f"{case['yaml']}.yaml", nc=case["nc"]).fuse()
    assert sum(parameter.numel() for parameter in model.parameters()) == case["parameters_fused"]


def test_norms_and_activation_are_those_of_the_description() -> None:
    leaky = DetectionModel("yolov5s-LeakyReLU.yaml")
    plain = DetectionModel("yolov5n.yaml")  # built afterwards: nothing may linger from the model before
    assert not any(isinstance(module, nn.SiLU) for module in leaky.modules())
    assert not any(isinstance(module, nn.LeakyReLU) for module in plain.modules())
    slopes = {module.negative_slope for module in leaky.modules() if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.1}
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.03)


def test_bra_flops_follow_the_formula() -> None:
    """Projections 4 HW C^2, routing R^2 C, attention 2 HW (topk HW/R) C, local term 25 HW C: multiply-adds."""
    side, dim, n_win, topk = 80, 128, 8, 4
    rows = {
        "nc": 1,
        "anchors": 1,
        "backbone": [[-1, 1, "Conv", [dim, 1, 1]], [-1, 1, "BiLevelRoutingAttention", [4, n_win, topk]]],
        "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
    }
    with torch.device("meta"):
        with_attention = DetectionModel(rows)
        rows["backbone"].pop()
        rows["head"][0][0] = [0]
        without = DetectionModel(rows)
    counted = count_flops(with_attention, side, side) - count_flops(without, side, side)
    tokens, regions = side * side, n_win * n_win
    attention = 2 * tokens * (topk * tokens // regions) * dim
    local = with_attention.model[1].lepe.weight.shape[-1] ** 2 * tokens * dim
    assert counted == 2 * (4 * tokens * dim**2 + regions**2 * dim + attention + local)


def test_golden_arrays_are_complete() -> None:
    """Every stored array is a number throughout and belongs to a case that its description names."""
    cases = golden_json("forward")["cases"]
    arrays = golden_arrays("forward")
    assert {name.split(".")[0] for name in arrays} == set(cases)
    assert all(np.isfinite(values).all() for values in arrays.values())
    assert len(ARCHITECTURES) == 23
