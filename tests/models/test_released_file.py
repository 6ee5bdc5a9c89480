"""A file as BiFormer's authors publish it, from ``--weights`` to the backbone of a detector."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from engine.options.train import TrainOptions
from engine.setup import Names, build_model, load_start
from golden_formulas import assert_golden, fill_module, golden_arrays, golden_json, sample_positions, uniform
from models.attention.backbone import IMAGENET_MEAN, IMAGENET_STD, BiFormer, biformer_tiny
from models.config import load_model_yaml
from models.released_file import read_released
from models.transfer import transfer_weights
from models.yolo import DetectionModel
from utils.errors import CheckpointError, ConfigError

STAGE_ROWS = (1, 3, 5, 7)


def features(model: DetectionModel, image: torch.Tensor) -> list[torch.Tensor]:
    """Maps of the backbone's four stages."""
    maps, x = [], image
    with torch.no_grad():
        for index, layer in enumerate(model.model[:8]):
            x = layer(x)
            if index in STAGE_ROWS:
                maps.append(x)
    return maps


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BiFormer-T with the golden weights, saved the way the authors do."""
    path = tmp_path_factory.mktemp("released") / "biformer_tiny_best.pth"
    state = fill_module(biformer_tiny(), golden_json("biformer")["models"]["tiny"]["fill_salt"]).state_dict()
    torch.save({"model": state, "epoch": 299, "args": argparse.Namespace(model="biformer_tiny", lr=1e-3)}, path)
    return path


@pytest.mark.golden
def test_a_detector_started_from_the_file_has_the_released_features(tiny_file: Path) -> None:
    golden, stored = golden_json("biformer")["models"]["tiny"], golden_arrays("biformer")
    content, _ = load_model_yaml("yolov5-biformer-t.yaml")
    for row in STAGE_ROWS:
        content["backbone"][row][3][1] = 7  # regions a side, as at 224 px
    model = DetectionModel(content, nc=3).eval()
    start = load_start(str(tiny_file))
    report = transfer_weights(start.model, model)
    assert report.transferred == len(start.model) == golden["state_dict_keys"] - 7  # all but the last norm and the head
    assert report.unused == []
    assert {int(line.split()[0].split(".")[1].rstrip(":")) for line in report.missing}.isdisjoint(range(8))

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    image = torch.from_numpy(uniform(golden["input"], golden["shape"])) * std + mean  # as a detector is given it
    for stage, found in enumerate(features(model, image)):
        flat = found.flatten()
        sample = flat[torch.from_numpy(sample_positions(flat.numel(), 64))]
        assert_golden(sample, stored[f"tiny.stage{stage}_sample"], tol=1e-3)


def test_training_builds_the_detector_of_the_files_size(tiny_file: Path) -> None:
    options = TrainOptions.from_kwargs(weights=str(tiny_file), cfg="")
    model = build_model(options, Names(3, {0: "a", 1: "b", 2: "c"}), {})
    assert model.yaml["backbone"] == load_model_yaml("yolov5-biformer-t.yaml")[0]["backbone"]
    assert model.names == {0: "a", 1: "b", 2: "c"}
    wanted = torch.load(tiny_file, weights_only=False)["model"]["stages.2.7.attn.wo.weight"]
    assert torch.equal(model.model[5][7].attn.wo.weight, wanted)


def test_an_unpublished_size_needs_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"model": BiFormer((1, 1, 1, 1), (16, 16, 16, 16), num_classes=1).state_dict()}, path)
    start = load_start(str(path))
    assert start.meta.yaml == {}
    assert "model.7.0.attn.qkv.weight" in start.model
    with pytest.raises(ConfigError, match="give --cfg"):
        build_model(TrainOptions.from_kwargs(weights=str(path), cfg=""), Names(1, {0: "a"}), {})


def test_a_published_detectors_norms_reach_the_rows_before_the_neck(tmp_path: Path) -> None:
    path = tmp_path / "detector.pth"
    state = {f"backbone.extra_norms.{stage}.weight": torch.full((2,), float(stage)) for stage in range(4)}
    torch.save({"state_dict": {**state, "backbone.stages.1.0.norm1.weight": torch.zeros(2)}, "meta": {}}, path)
    found = {key: float(value[0]) for key, value in read_released(path).model.items()}
    assert found == {"model.3.0.norm1.weight": 0, "model.8.weight": 1, "model.9.weight": 2, "model.10.weight": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"conv.weight": torch.ones(1)}}, "no BiFormer state dict"),
        ({"model": {}}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
    ],
    ids=repr,
)
def test_other_files_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_released(path)
    assert str(path) in str(caught.value)


def test_a_file_that_could_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.pth"
    torch.save({"model": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        read_released(path)
