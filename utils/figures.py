"""What every chart shares: a figure without pyplot or a display, fonts for any language, saving.

matplotlib is imported when the first figure is made, never before.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.fonts import find_font

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

Names = Mapping[int, str] | Sequence[str]

GREY = "0.35"
ACCENT = "#1B6CA8"
MEAN = "0.1"  # nearly black, a colour that no class has


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of panels.

    Args:
        width: in inches.
        height: in inches.
        rows: panels below each other.
        columns: panels beside each other.

    Returns:
        The figure, and its axes in reading order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow, and only charts need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def tidy(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "", grid: bool = True) -> None:
    """Give a panel the project's look."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if grid:
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)


def save_figure(figure: Figure, file: str | Path, dpi: int = 200) -> None:
    """Write a figure; the suffix is the format. A character that no font has becomes a box, without a warning each."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, dpi=dpi)


def label_font(texts: Sequence[str], size: float) -> FontProperties:
    """A font that has all characters of the texts, as far as one is installed.

    Args:
        texts: what will be written.
        size: in points.
    """
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - as above

    characters = "".join(sorted(set("".join(texts))))
    return FontProperties(fname=find_font(characters)[0], size=size)


def name_of(names: Names, index: int) -> str:
    """A class's name, or its number where there is no name."""
    if isinstance(names, Mapping):
        return str(names.get(index, index))
    return str(names[index]) if index < len(names) else str(index)


def name_list(names: Names, count: int) -> list[str]:
    """The first ``count`` class names, safe for matplotlib, where a dollar sign would start a formula."""
    return [name_of(names, index).replace("$", r"\$") for index in range(count)]


def shorten(text: str, limit: int = 22) -> str:
    """A name cut to a length that an axis can carry."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
