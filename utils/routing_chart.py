"""A picture of what bi-level routing attention looks at: a panel a layer, a heat map of regions over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.drawing import Annotator
from utils.figures import blank_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

_QUERY = "#00E5FF"  # a colour that the heat map does not have
_HEAT = "inferno"
_FAINTEST, _LOUDEST = 0.08, 0.65  # opacity of the regions that fit least and best
_COLUMNS = 4  # panels a row
_PANEL = 3.0  # inches, longer side of a panel
_SHOWN = 480  # px of the image's longer side in a panel
_DPI = 120
_CAPTION = (
    "Cyan: the region that asks, around the cross. Colour: how well each region's keys fit its queries, from the worst"
    " to the best of the panel. White frames: the regions looked at, with the % of attention that each gets."
)


@dataclass(frozen=True)
class RoutingPanel:
    """What one layer does for one query.

    Attributes:
        title: of the panel, plain Latin text.
        row_edges: (rows + 1,) upper edges of the regions and the last one's lower, px of the image.
        column_edges: (columns + 1,) likewise from the left.
        affinity: (rows, columns) how well each region fits the one that asks; what the layer chooses by.
        shares: (rows, columns) attention that each region gets, 0..1; NaN where a region is not looked at.
        query: row and column of the region that asks.
    """

    title: str
    row_edges: np.ndarray
    column_edges: np.ndarray
    affinity: np.ndarray
    shares: np.ndarray
    query: tuple[int, int]


@dataclass(frozen=True)
class RoutingView:
    """A place on the image, and what each layer does for it.

    Attributes:
        x: px of the image from the left.
        y: px of the image from the top.
        panels: one a layer.
        box: x1 y1 x2 y2 of the object there, px of the image.
        label: its label, in any language.
        colour: its colour, BGR.
    """

    x: float
    y: float
    panels: Sequence[RoutingPanel]
    box: Sequence[float] | None = None
    label: str = ""
    colour: tuple[int, int, int] = (255, 255, 255)


def plot_routing(image: np.ndarray, views: Sequence[RoutingView], file: str | Path) -> None:
    """Draw what layers look at from some places of an image, each place in rows of its own.

    Args:
        image: (H, W, 3) uint8 BGR.
        views: the places, at least one, all with equally many panels.
        file: where to; its suffix is the format.
    """
    count = len(views[0].panels)
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns) * len(views)
    extents = _extents(views[0].panels[0])
    aspect = (extents[2] - extents[3]) / (extents[1] - extents[0])  # height over width
    wide, high = _PANEL * min(1, 1 / aspect), _PANEL * min(1, aspect)
    figure = blank_figure(columns * (wide + 0.15) + 0.8, rows * (high + 0.45) + 0.45)
    axes = figure.subplots(rows, columns, squeeze=False)
    heat = None
    for number, view in enumerate(views):
        shown = _annotated(image, view)
        own = list(axes[number * rows // len(views) : (number + 1) * rows // len(views)].flat)
        for place, panel in zip(own, view.panels, strict=False):
            heat = _draw(place, shown, image.shape[:2], view, panel)
        for empty in own[count:]:
            empty.set_axis_off()
    bar = figure.colorbar(heat, ax=axes, fraction=0.05, pad=0.01, aspect=30, ticks=[0, 1])
    bar.ax.set_yticklabels(["fits worst", "best"], rotation=90, va="center", fontsize=7)
    bar.outline.set_visible(False)
    figure.supxlabel(_CAPTION, fontsize=7)
    save_figure(figure, file, dpi=_DPI)


def _extents(panel: RoutingPanel) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the network's input in px of the image, letterbox included."""
    return panel.column_edges[0], panel.column_edges[-1], panel.row_edges[-1], panel.row_edges[0]


def _annotated(image: np.ndarray, view: RoutingView) -> np.ndarray:
    """The image at the size of a panel with the object's box, (h, w, 3) RGB; pale, as the heat lies over it."""
    height, width = image.shape[:2]
    gain = _SHOWN / max(height, width)
    size = (max(round(width * gain), 1), max(round(height * gain), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    pale = np.ascontiguousarray(cv2.addWeighted(small, 0.5, grey, 0.5, 0))
    annotator = Annotator(pale, line_width=2, font_size=18, example=view.label or "abc")
    if view.box is not None:
        annotator.box_label([side * gain for side in view.box], view.label, color=view.colour)
    return annotator.result()[..., ::-1]


def _draw(axes: Axes, shown: np.ndarray, image_hw: tuple[int, int], view: RoutingView, panel: RoutingPanel) -> QuadMesh:
    """One panel; returns what the colour bar explains."""
    height, width = image_hw
    left, right, bottom, top = _extents(panel)
    axes.imshow(shown, extent=(0, width, height, 0), aspect="equal", interpolation="bilinear")
    level = _levels(panel.affinity)
    opacity = _FAINTEST + (_LOUDEST - _FAINTEST) * level
    mesh = (panel.column_edges, panel.row_edges, level)
    heat = axes.pcolormesh(*mesh, cmap=_HEAT, vmin=0, vmax=1, alpha=opacity, linewidth=0)
    edges = {"color": "white", "linewidth": 0.3, "alpha": 0.5}
    axes.hlines(panel.row_edges, left, right, **edges)
    axes.vlines(panel.column_edges, top, bottom, **edges)
    for row, column in np.argwhere(np.isfinite(panel.shares)):
        _frame_region(axes, panel, row, column, "white", 1.2)
        _write_share(axes, panel, row, column)
    if view.box is not None:
        _frame(axes, view.box, tuple(value / 255 for value in view.colour[::-1]), 1.5)
    _frame_region(axes, panel, *panel.query, _QUERY, 2.0)
    axes.plot(view.x, view.y, "+", color=_QUERY, markersize=9, markeredgewidth=1.6)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="0.85")
    axes.set_title(panel.title, fontsize=7, loc="left")
    axes.spines[:].set_visible(False)
    return heat


def _levels(affinity: np.ndarray) -> np.ndarray:
    """Affinities on a scale from 0, the lowest, to 1, the highest; all 1 where they are equal."""
    low, high = affinity.min(), affinity.max()
    return (affinity - low) / (high - low) if high > low else np.ones_like(affinity)


def _frame_region(axes: Axes, panel: RoutingPanel, row: int, column: int, colour: str, width: float) -> None:
    rows, columns = panel.row_edges[row : row + 2], panel.column_edges[column : column + 2]
    _frame(axes, (columns[0], rows[0], columns[1], rows[1]), colour, width)


def _frame(axes: Axes, corners: Sequence[float], colour: str | tuple[float, ...], width: float) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - slow, and only charts need it

    left, top, right, bottom = corners
    order = 2.5 + width / 10  # wide frames over narrow ones, which share edges with them
    style = {"fill": False, "edgecolor": colour, "linewidth": width, "clip_on": False, "zorder": order}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **style))


def _write_share(axes: Axes, panel: RoutingPanel, row: int, column: int) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 - slow, and only charts need it

    x, y = panel.column_edges[column : column + 2].mean(), panel.row_edges[row : row + 2].mean()
    text = axes.text(x, y, f"{100 * panel.shares[row, column]:.0f}", ha="center", va="center", fontsize=7)
    text.set(color="white", path_effects=[withStroke(linewidth=1.5, foreground="black")], zorder=4)
