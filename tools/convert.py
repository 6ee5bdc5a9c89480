"""Turn a data set into another format: ``python -m tools.convert coco SRC DST --to yolo``.

Formats are coco, voc, labelme and yolo (this project's own, the default of ``--to``). Everything is read before
anything is written; what had to be left out is counted and named. ``docs/converters.md`` describes layouts, numbers,
crowds and areas.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/convert.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command

_FORMATS = ("coco", "voc", "labelme", "yolo")  # by hand, so that --help need not wait for torch; a test compares


def make_parser() -> argparse.ArgumentParser:
    """The command's flags; ``docs/converters.md`` has a row for each."""
    parser = argparse.ArgumentParser(prog="python -m tools.convert", description=__doc__.split("\n")[0])
    parser.add_argument("format", choices=_FORMATS, help="format of the source")
    parser.add_argument("source", type=Path, metavar="SRC", help="folder; for coco also a JSON file, for yolo a YAML")
    parser.add_argument("target", type=Path, metavar="DST", help="new folder")
    parser.add_argument("--to", choices=_FORMATS, default="yolo", help="format of the new folder (default: yolo)")
    parser.add_argument("--classes", "--names", metavar="A,B,C", help="classes to keep, in order; or a YAML `old: new`")
    parser.add_argument("--split", metavar="0.8,0.1,0.1", help="divide into train, val, test; else as in the source")
    parser.add_argument("--seed", type=int, default=0, help="of the division")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--images", choices=("copy", "link", "none"), default="copy", help="link: hard links")
    images.add_argument("--copy", dest="images", action="store_const", const="copy", help="the same as --images copy")
    images.add_argument("--link", dest="images", action="store_const", const="link", help="the same as --images link")
    parser.add_argument("--image-folder", type=Path, metavar="DIR", help="where the source's images are")
    parser.add_argument("--one-based", action="store_true", help="voc: pixels count from 1, the last one included")
    parser.add_argument("--difficult", action="store_true", help="voc: keep objects marked difficult")
    parser.add_argument("--polygons", action="store_true", help="yolo: write outlines instead of their boxes")
    parser.add_argument("--exist-ok", action="store_true", help="DST may have content, which is added to")
    return parser


def run(opt: argparse.Namespace) -> None:
    """Convert, and say what came of it."""
    from utils.annotations.class_map import read_class_map  # noqa: PLC0415 - --help must not wait for torch
    from utils.annotations.conversion import Conversion, convert  # noqa: PLC0415 - likewise
    from utils.annotations.settings import ReadSettings, WriteSettings  # noqa: PLC0415 - likewise
    from utils.annotations.splits import read_shares  # noqa: PLC0415 - likewise

    content, report = convert(
        Conversion(
            source=opt.source,
            target=opt.target,
            source_format=opt.format,
            target_format=opt.to,
            classes=read_class_map(opt.classes) if opt.classes else None,
            shares=read_shares(opt.split) if opt.split else None,
            seed=opt.seed,
            images=opt.images,
            exist_ok=opt.exist_ok,
            reading=ReadSettings(opt.images != "none", opt.image_folder, opt.one_based, opt.difficult),
            writing=WriteSettings(opt.one_based, opt.polygons),
        )
    )
    for line in report.lines():
        print(line)
    counts = ", ".join(f"{split} {len(content.of_split(split))}" for split in content.splits)
    objects = sum(len(image.annotations) for image in content.images)
    print(f"{objects} objects in images: {counts}; classes {', '.join(content.names)}")
    print(f"{opt.target} written")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says; returns the exit code."""
    opt = make_parser().parse_args(argv)
    return run_command(lambda: run(opt))


if __name__ == "__main__":
    sys.exit(main())
