"""The entry points of torch.hub, called through torch.hub, from local files alone."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from picture_detector import NAMES, random_picture, save_picture_detector

import hubconf
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.common import AutoShape, DetectMultiBackend
from models.yolo import DetectionModel
from utils.errors import BackendError, ConfigError
from utils.log import LOGGER

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("logger_as_before")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(name: str, **options):
    return torch.hub.load(str(ROOT), name, source="local", **{"device": "cpu", **options})


def test_custom_takes_weights_of_ones_own(tmp_path):
    weights = save_picture_detector(tmp_path / "tiny.pt")
    model = load("custom", path=str(weights))
    assert isinstance(model, AutoShape) and model.names == NAMES
    assert len(model(random_picture(64, 64), size=64).xyxy[0]) > 5
    bare = load("custom", path=weights, autoshape=False)
    assert isinstance(bare, DetectMultiBackend)
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in bare.modules())  # not fused, as in YOLOv5
    assert len(load("custom", path=[weights, weights]).model.model) == 2


@pytest.mark.parametrize(("verbose", "expected"), [(True, "AutoShape"), (False, "")])
def test_verbose(tmp_path, capfd, verbose, expected):
    weights = save_picture_detector(tmp_path / "tiny.pt")
    LOGGER.addHandler(logging.StreamHandler(sys.stderr))
    load("custom", path=weights, _verbose=verbose)
    said = capfd.readouterr()
    assert expected in said.err and not said.out
    assert bool(said.err) == verbose


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
def test_devices(tmp_path, device):
    model = load("custom", path=save_picture_detector(tmp_path / "tiny.pt"), device=device)
    wanted = "cuda" if device is None and torch.cuda.is_available() else "cpu"
    assert next(model.parameters()).device.type == wanted


def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(BackendError, match="--device cpu"):
        load("custom", path=save_picture_detector(tmp_path / "tiny.pt"), device=99)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n6", "yolov5n_biformer", "yolov5n-biformer"])
def test_untrained(name):
    model = load(name, pretrained=False, classes=3, channels=4, autoshape=False)
    assert isinstance(model, DetectionModel) and not model.training
    assert model.nc == 3 and model.model[0].conv.in_channels == 4
    assert ("biformer" in name) == any("BiFormer" in layer.type for layer in model.model)
    assert len(model.stride) == (4 if name.endswith("6") else 3)


def test_untrained_takes_pictures():
    model = load("yolov5n", pretrained=False)
    assert isinstance(model, AutoShape) and model.nc == 80
    assert len(model(random_picture(64, 64), size=64)) == 1


def test_weights_are_not_downloaded_but_asked_for():
    with pytest.raises(ConfigError, match=r"yolov5n-biformer.pt: .*nothing is downloaded.*pretrained=False"):
        load("yolov5n_biformer")


@pytest.fixture
def local_weights(tmp_path) -> DetectionModel:
    """yolov5n.pt in the current folder, with classes of its own."""
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=80)
    model.names = {index: f"class {index}" for index in range(80)}
    model.model[-1].anchors += 1
    write_checkpoint(tmp_path / "yolov5n.pt", Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return model


def test_local_weights_are_taken(local_weights):
    model = load("yolov5n", autoshape=False)
    assert model.names == local_weights.names
    torch.testing.assert_close(model.model.state_dict(), local_weights.state_dict())


def test_of_weights_for_other_classes_what_fits_is_taken(local_weights):
    model = load("yolov5n", classes=5, autoshape=False)
    expected, found = local_weights.state_dict(), model.state_dict()
    same = {name for name, tensor in found.items() if torch.equal(tensor, expected[name])}
    assert "model.0.conv.weight" in same and "model.23.cv3.conv.weight" in same
    assert "model.24.anchors" not in same and found["model.24.m.0.weight"].shape[0] == 30
    assert model.names[0] == "0"
    four = load("yolov5n", channels=4, autoshape=False)
    assert four.names == local_weights.names and four.model[0].conv.in_channels == 4


def test_importing_runs_nothing_heavy():
    code = "import sys, hubconf; assert not {'torch', 'cv2', 'models', 'utils'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_entry_points_are_all_that_is_public():
    public = {name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    variants = {f"yolov5{size}{kind}" for size in "nsmlx" for kind in ("", "6", "_biformer", "-biformer")}
    assert public == {"custom", *variants}
    assert all("pretrained" in vars(hubconf)[name].__doc__ for name in variants)
    assert hubconf.yolov5n_biformer.__name__ == "yolov5n_biformer"
