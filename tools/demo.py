"""The whole way on the embedded data set: ``make demo``, or ``python -m tools.demo``.

Draws the set where it is not there yet, trains ``yolov5n-biformer.yaml`` on it from scratch, measures the best weights,
detects on the test images, and ends with the mAP and the paths of the pictures. A few minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/demo.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import detect
import train
import val
from engine.cli import run_command
from utils.datasets.config import check_dataset
from utils.paths import PROJECT_ROOT, increment_path

DATA = PROJECT_ROOT / "data" / "shapes.yaml"
CFG = PROJECT_ROOT / "models" / "yolov5n-biformer.yaml"
HYP = PROJECT_ROOT / "data" / "hyps" / "hyp.demo.yaml"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=19, help="passes over the 240 training images")
    parser.add_argument("--imgsz", type=int, default=192, help="image size, px")
    parser.add_argument(
        "--device", default="", help="cpu or a GPU's number; the first GPU, else the CPU, when left out"
    )
    parser.add_argument("--project", default="runs/demo", help="folder of the results")
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> None:
    """Train, measure, detect, report."""
    folder = increment_path(Path(arguments.project) / "exp", mkdir=True)
    data = check_dataset(DATA)
    common = {"imgsz": arguments.imgsz, "device": arguments.device}
    begun = time.perf_counter()
    train.run(
        data=str(DATA),
        cfg=str(CFG),
        hyp=str(HYP),
        weights="",
        epochs=arguments.epochs,
        batch_size=16,
        nbs=16,  # a step for every batch, of which so few images give few
        optimizer="AdamW",
        cache="ram",
        workers=2,
        project=str(folder),
        name="train",
        **common,
    )
    minutes = (time.perf_counter() - begun) / 60
    best = folder / "train" / "weights" / "best.pt"
    summary, _, _ = val.run(
        str(DATA), [str(best)], project=str(folder), name="val", half=False, workers=2, verbose=True, **common
    )
    common["imgsz"] = [arguments.imgsz]
    detect.run(weights=[str(best)], source=str(_first(data["test"])), project=str(folder), name="detect", **common)
    report(folder, summary, minutes)


def report(folder: Path, summary: tuple[float, ...], minutes: float) -> None:
    """Print what came out and where it is."""
    _, _, map50, map50_95, *_ = summary
    print(f"\ntrained in {minutes:.1f} minutes\nmAP50 {map50:.3f}  mAP50-95 {map50_95:.3f} on the validation images\n")
    for title, pattern in (
        ("curves of the training", "train/results.png"),
        ("what the labels look like", "train/labels.jpg"),
        ("predictions on validation images", "val/val_batch0_pred.jpg"),
        ("detections on test images", "detect"),
    ):
        print(f"{title:<34}{folder / pattern}")


def _first(entry: str | list[str]) -> str:
    return entry if isinstance(entry, str) else entry[0]


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(parse_arguments())))
