"""Charts of runs: the training curves of one, the mAP of several, accuracy against speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.chart_text import legend
from utils.errors import ConfigError
from utils.figures import ACCENT, GREY, class_colour, class_style, name_list, new_figure, note, save_figure, tidy
from utils.log import LOGGER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

STUDY_SIZES = tuple(range(256, 1537, 128))  # px, the sizes that `val.py --task study` runs
_SMOOTHED_FROM = 20  # epochs
# Sizes in px that are written beside a study's curve, and where, as it rises, bends and falls; all would be a thicket.
_NAMED_SIZES = {256: ((4, -9), "left"), 640: ((-3, 3), "right"), 1280: ((2, 5), "left")}
_RESULT_PANELS = (
    "train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall",
    "val/box_loss", "val/obj_loss", "val/cls_loss", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95",
)  # fmt: skip
_COMPARED = {"metrics/mAP_0.5": "mAP50", "metrics/mAP_0.5:0.95": "mAP50-95"}


def plot_results(file: str | Path = "path/to/results.csv", dir: str | Path = "") -> None:  # noqa: A002 - public keyword
    """Draw the training curves of a run as ``results.png`` beside its results file.

    Args:
        file: the results file; every ``results*.csv`` of its folder is drawn.
        dir: the folder, when no file is given.

    Raises:
        ConfigError: when the folder has no results file with a row in it.
    """
    folder = Path(dir) if dir else Path(file).parent
    tables = {path.stem: read_results(path) for path in sorted(folder.glob("results*.csv"))}
    tables = {stem: table for stem, table in tables.items() if table}
    if not tables:
        raise ConfigError(f"{folder}: no results*.csv with results in it; it is written by train.py")
    figure, panels = new_figure(16, 6.5, 2, 5)
    lines: dict[str, Line2D] = {}
    for axes, column in zip(panels, _RESULT_PANELS, strict=True):
        for index, (stem, table) in enumerate(tables.items()):
            if column in table:
                tint = ACCENT if index == 0 else class_colour(index + 3)
                lines[stem] = _training_curve(axes, table["epoch"], table[column], tint)
        tidy(axes, column, "epoch" if axes in panels[5:] else "")
        _whole_epochs(axes, [table["epoch"] for table in tables.values()])
        if len(tables) == 1:
            _say_best(axes, *(next(iter(tables.values())).get(name) for name in ("epoch", column)), column)
    if len(tables) > 1:
        legend(panels[4], list(lines.values()), list(lines))
    save_figure(figure, folder / "results.png", dpi=150)


def plot_comparison(tables: Mapping[str, Mapping[str, np.ndarray]], file: str | Path, title: str = "") -> None:
    """Draw mAP50 and mAP50-95 of several runs over their epochs.

    Args:
        tables: of each run, by the name that the legend shows, its :func:`read_results`.
        file: picture to write.
        title: above the picture.
    """
    figure, panels = new_figure(12, 4.6, 1, 2)
    names, lines, bests = list(tables), [], []
    for axes, (column, short) in zip(panels, _COMPARED.items(), strict=True):
        lines = []
        for index, table in enumerate(tables.values()):
            line = _training_curve(axes, table["epoch"], table[column], class_colour(index))
            line.set_linestyle(class_style(index))
            lines.append(line)
        tidy(axes, short, "epoch")
        axes.set_ylim(bottom=0)
        _whole_epochs(axes, [table["epoch"] for table in tables.values()])
    for table in tables.values():
        tops = [_best(table["epoch"], table[column], highest=True) for column in _COMPARED]
        bests.append("highest " + " / ".join("-" if top is None else f"{top[0]:.3f}" for top in tops))
    shown = [f"{name}: {best}" for name, best in zip(name_list(names, len(names)), bests, strict=True)]
    legend(panels[-1], lines, shown, size=9)
    if title:
        figure.suptitle(title, parse_math=False)
    save_figure(figure, file, dpi=120)


def _training_curve(axes: Axes, epochs: np.ndarray, values: np.ndarray, tint: Any) -> Line2D:
    """The values as they are, and where there are many, a smooth line through them."""
    if np.isfinite(values).sum() < _SMOOTHED_FROM:
        return axes.plot(epochs, values, ".-", color=tint, linewidth=1.5)[0]
    axes.plot(epochs, values, color=tint, linewidth=0.8, alpha=0.45)
    return axes.plot(epochs, _smooth(values), color=tint, linewidth=1.8)[0]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian average over about a tenth of the epochs, narrower towards both ends; gaps stay gaps."""
    finite = np.isfinite(values)
    positions = np.arange(len(values))
    width = max(len(values) / 30, 1.0)
    weights = np.exp(-0.5 * ((positions[:, None] - positions[None]) / width) ** 2) * finite
    totals = weights @ np.where(finite, values, 0.0)
    return np.divide(totals, weights.sum(1), out=np.full(len(values), np.nan), where=finite)


def _whole_epochs(axes: Axes, epochs: Sequence[np.ndarray]) -> None:
    """Ticks at whole epochs, also where there is only one."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - matplotlib is loaded only when something is drawn

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    every = np.concatenate([np.asarray(part, dtype=float) for part in epochs])
    if every.min() == every.max():
        axes.set_xlim(every.min() - 1, every.max() + 1)


def _best(epochs: np.ndarray, values: np.ndarray, highest: bool) -> tuple[float, int] | None:
    """The best of all finite values and its epoch."""
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return None
    place = finite[values[finite].argmax() if highest else values[finite].argmin()]
    return float(values[place]), int(epochs[place])


def _say_best(axes: Axes, epochs: np.ndarray, values: np.ndarray | None, column: str) -> None:
    """The best value of a panel and its epoch in its upper right corner."""
    metric = column.startswith("metrics/")
    best = None if values is None else _best(epochs, values, highest=metric)
    if best is None:
        note(axes, "no number")
        return
    text = f"max {best[0]:.3g} @ {best[1]}" if metric else f"min {best[0]:.3g} @ {best[1]}"
    axes.set_title(text, fontsize=8, loc="right", color=GREY)


def read_results(path: Path) -> dict[str, np.ndarray]:
    """Read a ``results.csv``.

    Args:
        path: of the file.

    Returns:
        Columns by name, equally long. Rows that are none, such as a last one that was cut off, are left out with a
        warning; empty, also with one, when the file has no table of results at all. What was not measured, as with
        ``--noval``, is NaN.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    header, *rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()] or [[]]
    values = [numbers for numbers in (_numbers(row, len(header)) for row in rows) if numbers is not None]
    if "epoch" not in header or not values:
        LOGGER.warning(f"{path}: not a table of results, left out of the chart")
        return {}
    if len(values) < len(rows):
        LOGGER.warning(f"{path}: {len(rows) - len(values)} of {len(rows)} rows are damaged, left out of the chart")
    return _only_measured(dict(zip(header, np.array(values, dtype=float).T, strict=True)))


def _only_measured(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The table with NaN instead of the zeros of epochs without a validation, which has losses above 0."""
    losses = [column for name, column in table.items() if name.startswith("val/")]
    skipped = np.all(np.stack(losses) == 0, axis=0) if losses else False
    return {
        name: np.where(skipped, np.nan, column) if name.startswith(("val/", "metrics/")) else column
        for name, column in table.items()
    }


def _numbers(row: Sequence[str], count: int) -> list[float] | None:
    """The cells as numbers; None when one is none, or their count is another."""
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers[0]) else None


def plot_study(files: Sequence[str | Path], file: str | Path = "study.png", sizes: Sequence[int] = STUDY_SIZES) -> None:
    """Draw accuracy against speed and against image size.

    Args:
        files: tables of ``val.py --task study``, a row a size: P R mAP50 mAP50-95, three losses, then ms per image of
            pre-processing, inference and NMS.
        file: picture to write.
        sizes: image side in px of each row.

    Raises:
        ConfigError: when a file is no such table; names it.
    """
    figure, (speed, accuracy) = new_figure(14, 5, 1, 2)
    tables = [(path.stem.removeprefix("study_"), _read_study(path)) for path in map(Path, files)]
    shown = []
    for index, (name, table) in enumerate(tables):
        score, milliseconds = 100 * table[:, 3], table[:, 8:10].sum(1)
        sides = list(sizes)[: len(score)]
        style = {"color": class_colour(index), "linestyle": class_style(index), "marker": ".", "linewidth": 1.6}
        speed.plot(milliseconds, score, **style)
        line = accuracy.plot(sides, score[: len(sides)], **style)[0]
        shown.append((float(np.nanmax(score)), name, line))
        for side, across, up in zip(sides, milliseconds, score, strict=False):
            if side in _NAMED_SIZES:
                _write_size(speed, side, across, up, style["color"])
    tidy(speed, "Accuracy over time (inference and NMS)", "ms per image, logarithmic", "mAP@0.5:0.95, %")
    tidy(accuracy, "Accuracy over image size", "px", "mAP@0.5:0.95, %")
    if any(table[:, 8:10].sum() > 0 for _, table in tables):
        _log_ticks(speed)
    if tables:
        shown.sort(key=lambda entry: -entry[0])  # the legend's order is that of the curves
        legend(accuracy, [line for _, _, line in shown], [name for _, name, _ in shown], size=9)
    save_figure(figure, file)


def _write_size(axes: Axes, side: int, across: float, up: float, tint: Any) -> None:
    shift, alignment = _NAMED_SIZES[side]  # in points
    place = {"xytext": shift, "textcoords": "offset points", "ha": alignment}
    axes.annotate(str(side), (across, up), fontsize=8, color=tint, **place)


def _log_ticks(axes: Axes) -> None:
    """A logarithmic abscissa with plain numbers: sizes that are twice as slow are equally far apart."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter  # noqa: PLC0415 - as above

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _read_study(path: Path) -> np.ndarray:
    try:
        table = np.loadtxt(path, dtype=float, ndmin=2)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a study table ({error})") from error
    if table.shape[1] < 10:
        raise ConfigError(f"{path}: expected 10 columns, found {table.shape[1]}; write it with val.py --task study")
    return table
