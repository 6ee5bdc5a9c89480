"""benchmark.py tiling: what it compares, and what it leaves behind; and, slow, that tiles find what is small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import benchmark
import train
from engine.benchmarks.tiling import Way, passes_of
from engine.tiling import Tiling
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel
from utils.datasets.shapes import CLASSES
from utils.errors import ConfigError, DatasetError, OptionError
from utils.paths import PROJECT_ROOT

PAGE = "# Tiles\n<!-- tiling:begin -->\nold\n<!-- tiling:end -->\nAfter.\n"


def save_weights(path: Path, names: tuple[str, ...]) -> Path:
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=len(names))
    model.names = dict(enumerate(names))
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


def test_a_small_run(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    files = {"weights": save_weights(tmp_path / "a.pt", CLASSES), "docs": str(page), "project": str(tmp_path / "runs")}
    sizes = {"imgsz": 64, "tile": 160, "overlap": 0.1, "images": 1, "side": 320}
    result = benchmark.run("tiling", **files, **sizes, device="cpu", name="t", exist_ok=True)
    assert [(row.way.imgsz, row.way.tiling) for row in result.rows] == [
        (64, None),
        (160, None),
        (320, None),
        (64, Tiling(160, 0.1, whole=False)),
        (64, Tiling(160, 0.1)),
    ]
    assert all(row.milliseconds > 0 for row in result.rows)
    assert (result.folder / "tiling.md").read_text() == result.text and result.folder == tmp_path / "runs" / "t"
    assert result.text.strip() in page.read_text() and page.read_text().endswith("After.\n")
    assert result.text.count("\n| ") == 7


@pytest.mark.parametrize(
    ("tiling", "side", "passes"),
    [(None, 640, 1), (Tiling(160, 0), 320, 5), (Tiling(160, 0, whole=False), 320, 4), (Tiling(640, 0), 320, 1)],
)
def test_passes(tiling, side, passes):
    assert passes_of(Way("", 64, tiling), side) == passes


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(OptionError, match="--side"):
        benchmark.run("tiling", side=1000)
    with pytest.raises(OptionError, match="--tile"):
        benchmark.run("tiling", tile=8)
    with pytest.raises(DatasetError, match="circle"):
        benchmark.run("tiling", weights=save_weights(tmp_path / "b.pt", ("cat", "dog")), device="cpu")
    with pytest.raises(ConfigError, match="tiling:begin"):
        (tmp_path / "bare.md").write_text("# Tiles\n")
        benchmark.run("tiling", docs=str(tmp_path / "bare.md"))


@pytest.mark.slow
def test_tiles_find_what_is_small(tmp_path):
    """The demonstration's training, then its weights on four large images; about six minutes on two cores."""
    train.run(
        data=str(PROJECT_ROOT / "data" / "shapes.yaml"), cfg="yolov5n-biformer.yaml", weights="", epochs=19,
        hyp=str(PROJECT_ROOT / "data" / "hyps" / "hyp.demo.yaml"), batch_size=16, nbs=16, imgsz=192, optimizer="AdamW",
        cache="ram", workers=2, device="cpu", project=str(tmp_path), name="train",
    )  # fmt: skip
    best = tmp_path / "train" / "weights" / "best.pt"
    result = benchmark.run("tiling", weights=best, images=4, device="cpu", project=str(tmp_path))
    small, half, _, _, tiled = (row.figures.small for row in result.rows)
    assert tiled > small + 0.1 and tiled > half + 0.1
