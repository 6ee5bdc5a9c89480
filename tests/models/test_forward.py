"""Whole detectors against stored outputs: evaluation, training mode, fused, test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from golden_formulas import (
    assert_golden,
    check_numbers,
    fill_module,
    golden_arrays,
    golden_json,
    sample_positions,
    uniform,
)
from models.yolo import DetectionModel

CASES = golden_json("forward")["cases"]
pytestmark = pytest.mark.golden


def build(case: dict) -> DetectionModel:
    model = DetectionModel(f"{case['yaml']}.yaml", nc=case["nc"])
    return fill_module(model, case["salt"], case["gain"])


def input_of(case: dict) -> torch.Tensor:
    image = uniform(case["input"], case["shape"])
    np.testing.assert_allclose(check_numbers(image), case["input_check"], rtol=1e-6)
    return torch.from_numpy(image)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["mode"] in ("eval", "fused")])
def test_evaluation(name: str) -> None:
    case, golden = CASES[name], golden_arrays("forward")
    model = build(case).eval()
    if case["mode"] == "fused":
        model.fuse()
    seen: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, output: seen.append(output)) for layer in model.model[:-1]]
    with torch.inference_mode():
        predictions, raw = model(input_of(case))
    for hook in hooks:
        hook.remove()
    if case.get("layers"):
        assert [list(output.shape) for output in seen] == case["layer_shapes"]
        assert_golden(np.array([output.mean() for output in seen]), golden[f"{name}.layer_mean"], 1e-3)
        assert_golden(np.array([output.std(correction=0) for output in seen]), golden[f"{name}.layer_std"], 1e-3)
        samples = np.stack([output.numpy().reshape(-1)[sample_positions(output.numel(), 8)] for output in seen])
        assert_golden(samples, golden[f"{name}.layer_sample"], 1e-3)
    if f"{name}.raw0" in golden:
        for level, output in enumerate(raw):
            assert_golden(output, golden[f"{name}.raw{level}"], case["tol_raw"])
    assert_golden(predictions, golden[f"{name}.pred"], case["tol_pred"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["mode"] == "train"])
def test_training_mode_and_running_statistics(name: str) -> None:
    case, golden = CASES[name], golden_arrays("forward")
    model = build(case).train()
    raw = model(input_of(case))
    assert isinstance(raw, list)
    for level, output in enumerate(raw):
        assert_golden(output, golden[f"{name}.raw{level}"], case["tol_raw"])
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for which, norm in (("first_bn", norms[0]), ("last_bn", norms[-1])):
        assert_golden(norm.running_mean, golden[f"{name}.{which}.running_mean"], case["tol_raw"])
        assert_golden(norm.running_var, golden[f"{name}.{which}.running_var"], case["tol_raw"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["mode"] == "tta"])
def test_augmented(name: str) -> None:
    case, golden = CASES[name], golden_arrays("forward")[f"{name}.pred"]
    with torch.inference_mode():
        predictions, raw = build(case).eval()(input_of(case), augment=True)
    assert raw is None
    if "keep" in case:
        assert predictions.shape[1] == case["rows"]
        predictions = predictions[:, :: case["keep"]] if isinstance(case["keep"], int) else predictions[:, case["keep"]]
    assert_golden(predictions, golden, case["tol_pred"])
