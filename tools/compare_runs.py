"""Draw the mAP of several runs over their epochs: ``python -m tools.compare_runs runs/train/a runs/train/b``.

One picture with mAP50 on the left and mAP50-95 on the right; the legend gives the best of both. A run is its folder, or
a results file. The values are those of ``results.csv``; from 20 epochs on a smoothed line lies over them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: python tools/compare_runs.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command
from utils.errors import ConfigError
from utils.run_charts import plot_comparison, read_results

_NEEDED = ("epoch", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")


def compare_runs(
    runs: Sequence[str | Path], out: str | Path, names: Sequence[str] | None = None, title: str = ""
) -> Path:
    """Draw the curves of runs into one picture.

    Args:
        runs: run folders or results files.
        out: picture to write; the suffix is the format.
        names: what the legend calls them; the folders' names when None.
        title: above the picture.

    Returns:
        The picture's path.

    Raises:
        ConfigError: when a run has no results, or the names are not as many or not all different.
    """
    files = [_results_file(Path(run)) for run in runs]
    shown = list(names) if names else _folder_names(files)
    if len(shown) != len(files) or len(set(shown)) != len(shown):
        raise ConfigError(f"--names {' '.join(shown)}: expected {len(files)} different names, one a run")
    tables = {}
    for name, file in zip(shown, files, strict=True):
        tables[name] = read_results(file)
        missing = [column for column in _NEEDED if column not in tables[name]]
        if missing:
            raise ConfigError(f"{file}: no column {', '.join(missing)}; expected a results.csv of train.py")
    plot_comparison(tables, out, title)
    return Path(out)


def _results_file(run: Path) -> Path:
    file = run / "results.csv" if run.is_dir() else run
    if not file.is_file():
        raise ConfigError(f"{run}: expected a run folder with results.csv, or a results file")
    return file


def _folder_names(files: Sequence[Path]) -> list[str]:
    """Names of the folders; with their parents' where that alone is not enough."""
    folders = [file.resolve().parent for file in files]
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]  # several files in one folder


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_runs", description=__doc__.split(":")[0] + ".")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or a results file")
    parser.add_argument("--out", default="curves.png", help="picture to write [%(default)s]")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names in the legend, one a run; the folders' names")
    parser.add_argument("--title", default="", help="text above the picture")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw as the command line says; returns the exit code."""
    opt = parse_opt(argv)
    return run_command(lambda: print(compare_runs(opt.runs, opt.out, opt.names, opt.title)))


if __name__ == "__main__":
    sys.exit(main())
