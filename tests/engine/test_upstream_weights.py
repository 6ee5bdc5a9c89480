"""The commands take checkpoints that YOLOv5 has written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_dataset import NAMES, make_dataset

import detect
import train
import val
from models.checkpoint import read_checkpoint
from utils.errors import CheckpointError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "set", train=2, val=2)


def test_val_and_detect_take_it(upstream_files: Path, data: Path, tmp_path: Path) -> None:
    settings = {"weights": str(upstream_files / "best.pt"), "imgsz": 64, "device": "cpu", "project": str(tmp_path)}
    figures, _, _ = val.run(str(data), **settings, workers=0, half=False, plots=False)
    assert len(figures) == 7
    detect.run(**{**settings, "imgsz": [64]}, source=str(data.parent / "images" / "val"), conf_thres=0.01, name="seen")
    assert len(list((tmp_path / "seen").glob("*.png"))) == 2


def test_training_starts_from_it(upstream_files: Path, data: Path, tmp_path: Path) -> None:
    train.run(
        weights=str(upstream_files / "v3.pt"), data=str(data), imgsz=64, epochs=1, batch_size=2, device="cpu",
        workers=0, noplots=True, noautoanchor=True, project=str(tmp_path), name="exp",
    )  # fmt: skip
    last = read_checkpoint(tmp_path / "exp" / "weights" / "last.pt")
    assert last.meta.names == NAMES
    assert last.meta.yaml["activation"] == "nn.Hardswish()"


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_it_cannot_be_resumed(name: str, upstream_files: Path) -> None:
    path = upstream_files / name
    words = rf"{name}: a checkpoint that YOLOv5 has written; .* bit for bit, .* a new training with --weights {path}$"
    with pytest.raises(CheckpointError, match=words):
        train.run(resume=str(path), device="cpu")
