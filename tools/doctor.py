"""Find what is wrong with a data set before training does: ``python -m tools.doctor data.yaml``.

Prints where the YAML leads, objects by class and size, and each fault with file and line, the most harmful first; what
every kind of fault means is in docs/doctor.md. Nothing is changed: ``--fix OUT`` writes a corrected copy into a new
folder. Exit code 0 when nothing would harm training, 1 when something would, 2 when the question could not be answered.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/doctor.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command

EXIT_HARMFUL = 1


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.doctor", description=__doc__.split(":")[0])
    parser.add_argument("data", metavar="DATA", help="data set YAML, by path or name")
    parser.add_argument(
        "--imgsz", "--img", "--img-size", type=int, default=640, help="size you will train at, px (default 640)"
    )
    parser.add_argument("--quick", action="store_true", help="read image headers only: no damage within, no copies")
    parser.add_argument("--examples", type=int, default=5, help="findings shown of each kind (default 5)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write all findings as JSON")
    parser.add_argument("--fix", metavar="OUT", type=Path, help="write a corrected copy into this new folder")
    parser.add_argument("--link", action="store_true", help="with --fix: link to the images instead of copying them")
    opt = parser.parse_args(argv)
    if opt.imgsz < 1 or opt.examples < 0:
        parser.error("--imgsz must be a number from 1, --examples one from 0")
    if opt.json is not None and (opt.json.is_dir() or not opt.json.parent.is_dir()):
        parser.error(f"--json {opt.json}: expected a file in a folder that is there")
    if opt.link and opt.fix is None:
        parser.error("--link goes with --fix")
    return opt


def examine(opt: argparse.Namespace) -> bool:
    """Look, report, and correct where asked to.

    Returns:
        Whether training would be harmed.

    Raises:
        ConfigError: when there is no such YAML.
        DatasetError: when ``--fix`` names a folder with something in it, or there is nothing to copy.
    """
    from cv2.utils import logging as decoder_log  # noqa: PLC0415 - --help must not wait for it

    from utils.atomic import replacing  # noqa: PLC0415 - likewise
    from utils.doctor.correct import require_new, write_corrected  # noqa: PLC0415 - likewise
    from utils.doctor.diagnosis import diagnose  # noqa: PLC0415 - likewise
    from utils.doctor.report import report_data, report_lines  # noqa: PLC0415 - likewise

    decoder_log.setLogLevel(decoder_log.LOG_LEVEL_SILENT)  # what decoders say of damaged files is in the report
    if opt.fix is not None:
        require_new(opt.fix)
    found = diagnose(opt.data, opt.imgsz, pixels=not opt.quick)
    for line in report_lines(found, opt.examples):
        print(line)
    if opt.json is not None:
        with replacing(opt.json) as stream:
            json.dump(report_data(found), stream, indent=1)
        print(f"{opt.json} written")
    if opt.fix is not None:
        changes = write_corrected(found, opt.fix, link=opt.link)
        print(f"{opt.fix / 'data.yaml'} written, {changes} changes listed in {opt.fix / 'changes.txt'}")
    return found.findings.harmful


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; returns the exit code."""
    opt = parse_opt(argv)
    harmful: list[bool] = []
    code = run_command(lambda: harmful.append(examine(opt)))
    return code or (EXIT_HARMFUL if harmful[0] else 0)


if __name__ == "__main__":
    sys.exit(main())
