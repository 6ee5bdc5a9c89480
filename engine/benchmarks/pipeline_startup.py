"""How long a command takes to say what its flags are, beside a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch

from engine.benchmarks.figures import Figure
from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from utils.paths import PROJECT_ROOT

SCRIPTS = ("train.py", "val.py", "detect.py")
_LIMIT = 0.4  # seconds


def measure_startup(repeats: int) -> Iterator[Figure]:
    """Seconds of ``--help`` of each script beyond those of an empty Python.

    Args:
        repeats: rounds; one before them lets Python write its compiled files.
    """
    words = {name: [str(PROJECT_ROOT / name), "--help"] for name in SCRIPTS}
    runs = {name: partial(_run, arguments) for name, arguments in {"empty": ["-c", ""], **words}.items()}
    for run in runs.values():
        run()
    seconds = interleaved_rounds(runs, torch.device("cpu"), Rounds(repeats, repeats, 0.0))
    empty = seconds["empty"]
    for name in SCRIPTS:
        about = f"{statistics.median(seconds[name]):.2f} s beside an empty Python's {statistics.median(empty):.2f} s"
        beyond = [taken - nothing for taken, nothing in zip(seconds[name], empty, strict=True)]
        yield Figure(f"start-up: `{name} --help`", about, beyond, _LIMIT, unit=" s")


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=PROJECT_ROOT)
