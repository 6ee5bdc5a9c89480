"""Every shipped model file: one epoch on the embedded set in bfloat16, with EMA and validation, to finite losses."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

import train
from models.checkpoint import read_checkpoint
from utils.datasets.config import check_dataset

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "shapes.yaml"
MODELS = sorted(path.name for path in (ROOT / "models").rglob("*.yaml") if "backbone:" in path.read_text())
SAMPLE = ("yolov3-tiny.yaml", "yolov5n.yaml", "yolov5n-biformer.yaml")  # runs with every change
SIZES = {"yolov5n-biformer-p2.yaml": 96, "yolov5s.yaml": 128}  # px, 64 for all others
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in SAMPLE]


def test_the_sample_is_shipped():
    assert set(SAMPLE) < set(MODELS)


@pytest.mark.parametrize("name", [*SAMPLE, *SLOW])
def test_one_epoch(name, tmp_path):
    check_dataset(DATA)  # draws the set where it is not there yet
    options = train.run(
        data=str(DATA), cfg=name, weights="", imgsz=SIZES.get(name, 64), epochs=1, batch_size=16, bf16=True,
        device="cpu", workers=2, noplots=True, project=str(tmp_path),
    )  # fmt: skip
    folder = Path(options.save_dir)
    (row,) = list(csv.reader((folder / "results.csv").read_text().splitlines()[1:]))
    assert all(math.isfinite(float(cell)) for cell in row)
    assert all(float(cell) > 0 for cell in row[1:4] + row[8:11]), "a loss of 0: something was not trained or measured"
    last = read_checkpoint(folder / "weights" / "last.pt")
    assert last.updates == 15  # 240 images, and a warm-up that begins with a step for every batch
    moved = [name for name, tensor in last.ema.items() if name.endswith("conv.weight")]
    assert any((last.ema[name] != last.model[name]).any() for name in moved)
    best = read_checkpoint(folder / "weights" / "best.pt")
    assert best.optimizer is None
