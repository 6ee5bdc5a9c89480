"""The picture of ``benchmark.py growth``: a row an axis, time at the left and memory at the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.benchmarks.growth_curves import AXES, MEMORY, TIME, Curve, of_axis
from utils.figures import ACCENT, GREY, new_figure, note, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (ACCENT, "#E06C4F", "#3C9D4E", "#8E5BB5", "#E3A018", "#5FB3CE")
_UNITS = {TIME: (1e3, "ms"), MEMORY: (2**-20, "MiB")}
_LEGEND = "e: exponent over the upper three points, behind it that of the work; dotted: as the work grows"
_NARROW = 50  # ratio of an axis's ends below which 2 and 5 have a mark of their own
_LEAST_RANGE = 4  # ratio of the ends of an axis of figures
_LINE = 0.065  # of a panel's height that a line of its legend takes
_FEW_PLACES = 8  # that are marked each


def plot_growth(curves: Sequence[Curve], file: str | Path, title: str = "") -> None:
    """Draw time and memory along each axis, logarithmic both ways, and the growth of the work beside each curve.

    Args:
        curves: what was measured.
        file: picture to write.
        title: above the picture, such as where it was measured.
    """
    axes = [axis for axis in AXES if of_axis(curves, axis)]
    if not axes:
        return
    kinds = (TIME, MEMORY)
    figure, panels = new_figure(12, 3.7 * len(axes), len(axes), len(kinds))
    for number, panel in enumerate(panels):
        axis, kind = axes[number // len(kinds)], kinds[number % len(kinds)]
        tidy(panel, f"{AXES[axis].name}: {kind}", AXES[axis].unit, _UNITS[kind][1])
        _draw(panel, of_axis(curves, axis, kind))
    heading = "\n".join(filter(None, (title, _LEGEND)))
    figure.suptitle(heading, fontsize=9, color=GREY, parse_math=False)
    save_figure(figure, file, dpi=110)


def _draw(panel: Axes, curves: Sequence[Curve]) -> None:
    shown = [curve for curve in curves if any(point.figure > 0 for point in curve.points)]
    if not shown:
        note(panel, "not measured")
        return
    factor = _UNITS[shown[0].kind][0]
    for curve, colour in zip(shown, _COLOURS, strict=False):
        points = [point for point in curve.points if point.figure > 0]
        places, last = [point.at for point in points], points[-1]
        expected = [factor * last.figure * point.work / last.work for point in points]
        panel.plot(places, expected, ":", color=colour, linewidth=0.9)
        figures = [factor * point.figure for point in points]
        panel.plot(places, figures, ".-", color=colour, linewidth=1.5, label=_label(curve))
    _scale(panel, sorted({point.at for curve in shown for point in curve.points}), _LINE * len(shown))
    panel.legend(fontsize=7.5, frameon=False, loc="upper left", borderaxespad=0.0)


def _label(curve: Curve) -> str:
    own, due = curve.exponent(upper=True), curve.work_exponent(upper=True)
    return curve.name if own is None or due is None else f"{curve.name}: e {own:.2f} ({due:.2f})"


def _scale(panel: Axes, places: Sequence[int], legend: float) -> None:
    """Logarithmic, with marks at the places and plain numbers; an axis that begins at 0 stays as it is.

    Args:
        panel: where curves are drawn already.
        places: of the points.
        legend: share of the panel's height that stays free above the curves.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator  # noqa: PLC0415 - as in figures

    panel.set_yscale("log")
    if places[0] > 0:
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
    if len(places) <= _FEW_PLACES:
        panel.set_xticks(places, [f"{place:,}" for place in places])
    low, high = panel.get_ylim()
    room = max(_LEAST_RANGE / (high / low), 1.0) ** 0.5  # else what hardly changes would look as if it did
    low, high = low / room, high * room
    panel.set_ylim(low, low * (high / low) ** (1 / (1 - legend)))
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < _NARROW else (1,)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
