"""Check a model YAML and show what it builds: ``python -m tools.model yolov5s-biformer.yaml``.

Prints a line a layer (number, what it reads, parameters, module) and the summary; a mistake is one line that names the
row. Nothing is trained and no data is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/model.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command


def main() -> None:
    """Build, print, done."""
    parser = argparse.ArgumentParser(description="Check a model YAML and show what it builds.")
    parser.add_argument("cfg", help="model YAML, by path or name")
    parser.add_argument("--nc", type=int, help="number of classes; the file's own when left out")
    parser.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="image size for the GFLOPs, px")
    arguments = parser.parse_args()

    import torch  # noqa: PLC0415 - --help must not wait for torch

    from models.yolo import DetectionModel  # noqa: PLC0415 - likewise

    with torch.device("meta"):  # shapes are all that is shown, so no weight is made
        model = DetectionModel(arguments.cfg, nc=arguments.nc)
    print(f"{'layer':>5} {'from':>14} {'parameters':>12}  module")
    for layer in model.model:
        print(f"{layer.i:>5} {layer.f!s:>14} {layer.np:>12,}  {layer.type.rsplit('.', 1)[-1]}")
    model.info(img_size=arguments.imgsz)


if __name__ == "__main__":
    sys.exit(run_command(main))
