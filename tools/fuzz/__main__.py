"""Fuzz what the project reads: ``python -m tools.fuzz --cases 100000 --seed 1``.

Each kind of file is fuzzed in a process of its own, with little memory and five seconds of the processor a case. A
fault is any error that is not one of the project's own in a single line, and whatever :mod:`tools.fuzz.guard` forbids;
its file is kept, and read again with ``--case FILE --targets NAME``. Equal seeds give equal cases. Exit code 1 tells of
faults.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from engine.cli import run_command
from tools.fuzz.worker import fuzz_in_process
from utils.errors import OptionError

NAMES = ("labels", "data", "model", "images", "index", "checkpoints")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default=",".join(NAMES), help=f"some of {','.join(NAMES)}")
    parser.add_argument("--cases", type=int, default=10_000, help="of all targets together")
    parser.add_argument("--seed", default="0", help="equal seeds give equal cases")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop each target after its share of this")
    parser.add_argument("--folder", type=Path, help="where to work and keep files with faults; a new one when left out")
    parser.add_argument("--case", type=Path, help="read this one file, as the one target given, and show what happens")
    return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> int:
    """Fuzz, print a table and the faults; returns the number of faults."""
    chosen = [name.strip() for name in arguments.targets.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in NAMES]
    if unknown or not chosen:
        raise OptionError(f"--targets {arguments.targets}: expected some of {','.join(NAMES)}")
    from tools.fuzz.targets import make_targets  # noqa: PLC0415 - --help must not wait for torch

    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))).resolve()
    targets = make_targets()
    if arguments.case:
        return _show_case(arguments.case, chosen, folder)
    whole = sum(targets[name].share for name in chosen)
    print("| target | cases | refused | faults | kinds | lines | corpus | slowest s | seconds |\n" + "|---" * 9 + "|")
    reports = []
    for name in chosen:
        share = targets[name].share / whole
        seconds = arguments.minutes * 60 * share
        report = fuzz_in_process(name, round(arguments.cases * share), arguments.seed, seconds, folder / name)
        counts = (
            f"{report.cases:,} | {report.refused:,} | {report.failed:,} | {len(report.failures)} | {report.lines:,}"
        )
        print(f"| {name} | {counts} | {report.corpus:,} | {report.slowest:.2f} | {report.seconds:.0f} |", flush=True)
        reports.append(report)
    for report in reports:
        for fault, about in report.failures.items():
            print(f"{report.target}: {fault}: {about}")
    print(f"{sum(report.cases for report in reports):,} cases, seed {arguments.seed}; files are in {folder}")
    return sum(report.failed for report in reports)


def _show_case(file: Path, chosen: list[str], folder: Path) -> int:
    """Read one file; 1 when that is a fault."""
    from tools.fuzz.guard import Watch  # noqa: PLC0415 - --help must not wait for torch
    from tools.fuzz.loop import files_to_begin_with, run_case  # noqa: PLC0415 - likewise
    from tools.fuzz.targets import make_targets  # noqa: PLC0415 - likewise

    if len(chosen) != 1:
        raise OptionError("--case: name the one target that the file is for with --targets")
    target, data = make_targets()[chosen[0]], file.read_bytes()
    (folder / target.place).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        files_to_begin_with(target)
        outcome = run_case(target, data, Watch())
    well = "refused, as it may be" if outcome.refused else "read"
    print(f"{outcome.fault}: {outcome.text}" if outcome.fault else well)
    return int(bool(outcome.fault))


if __name__ == "__main__":
    found: list[int] = []
    code = run_command(lambda: found.append(main(parse_arguments())))
    sys.exit(code or int(any(found)))
