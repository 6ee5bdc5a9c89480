"""What every chart shares: a figure without pyplot or a display, its look, class names and colours, saving.

matplotlib is imported when the first figure is made, never before.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.drawing import colors
from utils.fonts import drawable
from utils.image_io import write_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

Names = Mapping[int, str] | Sequence[str]

GREY = "0.35"
FAINT = "0.72"
ACCENT = "#1B6CA8"
MEAN = "0.1"  # nearly black, a colour that no class has
_PIXEL_FORMATS = (".png", ".jpg", ".jpeg")
_STYLES = ("-", "--", ":", "-.")


def blank_figure(width: float, height: float) -> Figure:
    """Make a figure without panels.

    Args:
        width: in inches.
        height: in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow, and only charts need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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
    figure = blank_figure(width, height)
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


def note(axes: Axes, text: str) -> None:
    """Say in the middle of a panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=10)


def colour_bar(axes: Axes, picture: ScalarMappable, label: str = "") -> Colorbar:
    """Put a narrow colour bar beside a panel, as high as the panel."""
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, aspect=40)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)
    return bar


def save_figure(figure: Figure, file: str | Path, dpi: int = 200) -> None:
    """Write a figure; the suffix is the format. A character that no font has becomes a box, without a warning each."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        if path.suffix.lower() not in _PIXEL_FORMATS:
            figure.savefig(path, dpi=dpi)
            return
        figure.set_dpi(dpi)  # savefig would draw everything twice, once to lay it out
        figure.canvas.draw()
    write_image(path, np.asarray(figure.canvas.buffer_rgba())[..., 2::-1])


def class_colour(index: int) -> tuple[float, ...]:
    """A class's colour as matplotlib takes it: red, green, blue in 0..1."""
    return tuple(value / 255 for value in colors(index))


def class_style(index: int) -> str:
    """A class's kind of line: solid for the palette's first round, dashed and dotted for the next ones."""
    return _STYLES[int(index) // colors.n % len(_STYLES)]


def name_of(names: Names, index: int) -> str:
    """A class's name, or its number where there is no name."""
    if isinstance(names, Mapping):
        return str(names.get(index, index))
    return str(names[index]) if index < len(names) else str(index)


def name_list(names: Names, count: int) -> list[str]:
    """The first ``count`` class names, each on one line, without what is no character."""
    return [" ".join(drawable(name_of(names, index)).split()) for index in range(count)]


def text_width(text: str) -> int:
    """Width of a text in Latin letters; Chinese, Japanese and Korean characters count two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def shorten(text: str, limit: int = 22) -> str:
    """A name cut to a width, in Latin letters, that an axis can carry."""
    if text_width(text) <= limit:
        return text
    kept = len(text)
    while kept and text_width(text[:kept]) > limit - 1:
        kept -= 1
    return f"{text[:kept]}…"
