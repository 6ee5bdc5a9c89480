"""The console command: ``yolov5-biformer train ...`` is ``python train.py ...``; ``python -m yolov5_biformer`` too."""

from __future__ import annotations

import argparse
import runpy
import sys

from yolov5_biformer import add_to_path, project_folder

PROG = "yolov5-biformer"
COMMANDS = {
    "train": ("train", "train a detector"),
    "val": ("val", "measure a detector"),
    "detect": ("detect", "find objects in pictures and videos"),
    "export": ("export", "write a detector in another format"),
    "benchmark": ("benchmark", "measure what things cost here"),
    "ablate": ("ablate", "train models and seeds side by side and compare them"),
    "checkpoint": ("tools.checkpoint", "look into a weights file, or convert one of YOLOv5"),
    "convert": ("tools.convert", "bring a data set into this project's form"),
    "doctor": ("tools.doctor", "find what is wrong with a data set before training does"),
    "model": ("tools.model", "check a model YAML and show what it builds"),
    "demo": ("tools.demo", "draw a small data set, train on it, measure, detect"),
}


def available() -> dict[str, tuple[str, str]]:
    """The commands whose script is there: its module and what it does, by name."""
    folder = project_folder()
    return {
        name: (module, title)
        for name, (module, title) in COMMANDS.items()
        if (folder / f"{module.replace('.', '/')}.py").is_file()
    }


def main() -> None:
    """Run the script that the first word names with the words behind it; leaves with its exit code."""
    commands = available()
    listed = "\n".join(f"  {name:<12}{title}" for name, (_, title) in commands.items())
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage="%(prog)s COMMAND [flags]; COMMAND --help lists the flags",
        description=f"A YOLOv5-compatible detector with BiFormer's attention.\n\ncommands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=list(commands), metavar="COMMAND", help="what to do")
    name = parser.parse_args(sys.argv[1:2]).command
    add_to_path()
    sys.argv[:2] = [f"{PROG} {name}"]  # what the script's own help calls itself
    runpy.run_module(commands[name][0], run_name="__main__")


if __name__ == "__main__":
    main()
