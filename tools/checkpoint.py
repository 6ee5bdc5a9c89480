"""Look into a weights file, or turn one of YOLOv5 into this project's form: ``python -m tools.checkpoint show FILE``.

``show`` prints what is inside: who wrote it, epoch, classes, tensors, settings. ``convert FILE [OUT]`` writes a
checkpoint that loads with ``torch.load(weights_only=True)``, beside the old one and in one step. Nothing in a file is
run: one that asks for more than a checkpoint needs is refused in a line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/checkpoint.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command
from utils.errors import CheckpointError
from utils.paths import find_weights


def show(file: str | Path, tensors: bool = False) -> None:
    """Print what a weights file holds.

    Args:
        file: a path, or a bare name as ``--weights`` takes it.
        tensors: also a line for each tensor.

    Raises:
        CheckpointError: when it cannot be read.
    """
    from models.checkpoint_summary import summarise  # noqa: PLC0415 - --help must not wait for torch

    rows = summarise(find_weights(file), tensors)
    width = max(len(title) for title, _ in rows)
    for title, words in rows:
        print(f"{title:<{width}}  {words}")


def convert(file: str | Path, out: str | Path | None = None) -> Path:
    """Write a checkpoint of YOLOv5 in this project's form.

    Args:
        file: a path, or a bare name as ``--weights`` takes it.
        out: what to write, a new file; ``<name>-converted.pt`` beside the source when None.

    Returns:
        The new file.

    Raises:
        CheckpointError: when the source is no checkpoint of YOLOv5, or ``out`` is there already.
    """
    from models.checkpoint import adopt, write_checkpoint  # noqa: PLC0415 - --help must not wait for torch
    from models.upstream_file import read_upstream  # noqa: PLC0415 - likewise

    source = find_weights(file)
    target = source.with_name(f"{source.stem}-converted.pt") if out is None else Path(out)
    if target.exists():
        raise CheckpointError(f"{target}: is there already; name a new file: the old one is never overwritten")
    if target.suffix != ".pt":
        raise CheckpointError(f"{target}: expected a name ending in .pt")
    upstream = read_upstream(source)
    if upstream is None:
        raise CheckpointError(f"{source}: holds plain data, no whole modules of YOLOv5: there is nothing to convert")
    write_checkpoint(target, adopt(upstream))
    return target


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.checkpoint", description="Look into a weights file, or convert one of YOLOv5."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("show", help="print what a file holds")
    shown.add_argument("file", metavar="FILE", help="weights file")
    shown.add_argument("--tensors", action="store_true", help="a line for each tensor, too")
    converted = commands.add_parser("convert", help="write a checkpoint of YOLOv5 in this project's form")
    converted.add_argument("file", metavar="FILE", help="checkpoint that YOLOv5 has written")
    converted.add_argument("out", metavar="OUT", nargs="?", help="new file; FILE's name with -converted beside it")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; returns the exit code."""
    opt = parse_opt(argv)
    if opt.command == "show":
        return run_command(lambda: show(opt.file, opt.tensors))
    return run_command(lambda: print(f"{convert(opt.file, opt.out)} written"))


if __name__ == "__main__":
    sys.exit(main())
