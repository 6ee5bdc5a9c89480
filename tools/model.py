"""Check a model YAML and show what it builds: ``python -m tools.model yolov5s-biformer.yaml``.

Prints a line a layer (number, what it reads, parameters, module, and what ``--insert`` may call it beside its number)
and the summary; a mistake is one line that names the row. ``--insert`` shows what that flag of train.py would build;
places are then those of the network shown, while insertions made at once all mean the file's.
Nothing is trained and no data is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/model.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command
from models.insertion import insert_rows, place_names


def main() -> None:
    """Build, print, done."""
    parser = argparse.ArgumentParser(description="Check a model YAML and show what it builds.")
    parser.add_argument("cfg", help="model YAML, by path or name")
    parser.add_argument("--insert", action="extend", nargs="+", default=[], metavar="ROW", help="as for train.py")
    parser.add_argument("--nc", type=int, help="number of classes; the file's own when left out")
    parser.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="image size for the GFLOPs, px")
    arguments = parser.parse_args()

    import torch  # noqa: PLC0415 - --help must not wait for torch

    from models.config import load_model_yaml  # noqa: PLC0415 - likewise
    from models.yolo import DetectionModel  # noqa: PLC0415 - likewise

    content, title = load_model_yaml(arguments.cfg)
    content = insert_rows(content, arguments.insert, title) if arguments.insert else {**content, "yaml_file": title}
    with torch.device("meta"):  # shapes are all that is shown, so no weight is made
        model = DetectionModel(content, nc=arguments.nc)
    print(f"{'layer':>5} {'from':>14} {'parameters':>12}  {'module':<24} place")
    for layer, place in zip(model.model, place_names(content, title), strict=True):
        module = layer.type.rsplit(".", 1)[-1]
        print(f"{layer.i:>5} {layer.f!s:>14} {layer.np:>12,}  {module:<24} {place}")
    model.info(img_size=arguments.imgsz)


if __name__ == "__main__":
    sys.exit(run_command(main))
