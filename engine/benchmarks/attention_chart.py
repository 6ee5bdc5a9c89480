"""The picture of ``benchmark.py attention``: how cost grows with the image, a column of panels a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.benchmarks.attention_cases import LEVELS
from engine.benchmarks.attention_work import Row
from utils.figures import ACCENT, GREY, MEAN, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MARKED = ("BRA", "BRA, S growing")  # drawn thicker
_COLOURS = {
    "full": MEAN,
    "window": "#E3A018",
    "axial": "#3C9D4E",
    "dilated": "#E06C4F",
    "deformable": "#8E5BB5",
    "BRA": ACCENT,
    "BRA, S growing": ACCENT,
    "BRA, reference": "#5FB3CE",
    "BRA, naive": "#C2348B",
}
_KINDS: tuple[tuple[str, str, Callable[[Row], float | None]], ...] = (
    ("operations, formula", "GFLOPs, forward", lambda row: row.cost.total / 1e9),
    ("time, forward", "ms a batch", lambda row: row.forward and 1e3 * row.forward),
    ("time, training", "ms a batch, forward and backward", lambda row: row.training and 1e3 * row.training),
    ("peak memory, training", "MiB", lambda row: row.peak and row.peak / 2**20),
)
_STYLES = {"BRA": "-", "BRA, S growing": "--"}  # of the others, those that compute BRA are dotted


def plot_costs(rows: Sequence[Row], file: str | Path, title: str = "") -> None:
    """Draw operations, times and memory over the image size, both axes logarithmic.

    Args:
        rows: a row an attention and map; what was not measured leaves a gap.
        file: picture to write.
        title: above the picture, such as where it was measured.
    """
    levels = [level for level in LEVELS if any(row.place.level == level for row in rows)]
    if not levels:
        return
    figure, panels = new_figure(3.6 * len(levels) + 2, 3.0 * len(_KINDS), len(_KINDS), len(levels))
    lines: dict[str, Line2D] = {}
    for number, axes in enumerate(panels):
        kind, column = divmod(number, len(levels))
        name, unit, value_of = _KINDS[kind]
        here = [row for row in rows if row.place.level == levels[column]]
        lines |= _curves(axes, here, value_of, formula=kind == 0)
        below = "image side, px" if kind == len(_KINDS) - 1 else ""
        tidy(axes, f"{levels[column]}: {name}", below, unit if column == 0 else "")
        _scale(axes, sorted({row.place.size for row in here}))
    names = [name for name in dict.fromkeys(row.name for row in rows) if name in lines]
    figure.legend([lines[name] for name in names], names, loc="outside right upper", frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=9, color=GREY, parse_math=False)
    save_figure(figure, file, dpi=110)


def _curves(
    axes: Axes, rows: Sequence[Row], value_of: Callable[[Row], float | None], formula: bool
) -> dict[str, Line2D]:
    """A line an attention; where a formula is drawn, one for all that compute the same."""
    drawn = {}
    for name in dict.fromkeys(row.name for row in rows):
        points = [(row.place.size, value_of(row)) for row in rows if row.name == name]
        known = [(size, value) for size, value in points if value]
        if not known or (formula and name.startswith("BRA, ") and name not in _MARKED):
            continue
        marked = name in _MARKED
        drawn[name] = axes.plot(
            *zip(*known, strict=True),
            marker=".",
            color=_COLOURS.get(name, GREY),
            linestyle=_STYLES.get(name, ":" if name.startswith("BRA") else "-"),
            linewidth=2.4 if marked else 1.3,
            zorder=3 if marked else 2,
        )[0]
    return drawn


def _scale(axes: Axes, sizes: Sequence[int]) -> None:
    """Logarithmic both ways, with the sizes measured as ticks and plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator  # noqa: PLC0415 - as in figures

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    few = high / low < 50
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
