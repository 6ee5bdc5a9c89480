"""Class names in charts, in any language.

Where no single installed font has all the characters, as with Chinese names on a bare server, matplotlib would print
boxes. The names then come as small pictures from ``utils/fonts.py``, which finds a font for each name, or OpenCV's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.fonts import find_font, text_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.offsetbox import OffsetBox

_SHARPNESS = 4  # px of a drawn name per point of its size
_GAP = 4  # points between an axis and its names


def class_ticks(axes: Axes, side: str, names: Sequence[str], size: float, upright: bool = False) -> None:
    """Write the names of classes 0, 1, ... along an axis.

    Args:
        axes: the panel.
        side: "x" or "y".
        names: one for each whole number from 0 on.
        size: of the text, in points.
        upright: turn the text by a quarter, for many names along x.
    """
    axis = axes.xaxis if side == "x" else axes.yaxis
    path, complete = _font_for(names)
    if complete:
        from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - matplotlib is loaded when drawing

        turn = {"rotation": 90} if upright else {}
        font = FontProperties(fname=path, size=size)
        axis.set_ticks(range(len(names)), names, fontproperties=font, parse_math=False, **turn)
        return
    axis.set_ticks(range(len(names)), [""] * len(names))
    axis.labelpad = _GAP + max(
        (_pin_name(axes, side, place, name, size, upright) for place, name in enumerate(names)), default=0.0
    )


def legend(axes: Axes, lines: Sequence[Line2D], texts: Sequence[str], size: float = 8) -> None:
    """Write a legend at the right of a panel, where it hides nothing.

    Args:
        axes: the panel.
        lines: samples to show.
        texts: what they are, equally many.
        size: of the text, in points.
    """
    path, complete = _font_for(texts)
    if complete:
        from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - matplotlib is loaded when drawing

        box = axes.legend(
            lines, texts, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False,
            prop=FontProperties(fname=path, size=size), borderaxespad=0.0,
        )  # fmt: skip
        for text in box.get_texts():
            text.set_parse_math(False)
        return
    from matplotlib.offsetbox import AnchoredOffsetbox, VPacker  # noqa: PLC0415 - as above

    rows = [_legend_row(line, text, size) for line, text in zip(lines, texts, strict=True)]
    column = VPacker(children=rows, sep=0.35 * size, pad=0, align="left")
    place = {"bbox_to_anchor": (1.01, 1), "bbox_transform": axes.transAxes, "borderpad": 0.5, "pad": 0}
    axes.add_artist(AnchoredOffsetbox("upper left", child=column, frameon=False, **place))


def _font_for(texts: Sequence[str]) -> tuple[str, bool]:
    """A font file for all texts together, and whether it has every character."""
    return find_font("".join(sorted(set("".join(texts)))))


def _name_picture(text: str, size: float, upright: bool = False) -> tuple[OffsetBox, np.ndarray]:
    """A name as something that matplotlib can place, and its (width, height) in points."""
    from matplotlib.offsetbox import OffsetImage  # noqa: PLC0415 - as above

    mask = text_mask(text, round(size * _SHARPNESS))
    mask = np.rot90(mask) if upright else mask
    picture = np.zeros((*mask.shape, 4), np.uint8)  # black, as opaque as the mask says
    picture[..., 3] = mask
    return OffsetImage(picture, zoom=1 / _SHARPNESS), np.array(mask.shape[::-1]) / _SHARPNESS


def _pin_name(axes: Axes, side: str, place: int, text: str, size: float, upright: bool) -> float:
    """Put a name beside its place on an axis; returns how far it reaches away from the axis, in points."""
    from matplotlib.offsetbox import AnnotationBbox  # noqa: PLC0415 - as above

    box, extent = _name_picture(text, size, upright)
    below = side == "x"
    pinned = AnnotationBbox(
        box,
        (place, 0) if below else (0, place),
        xycoords=axes.get_xaxis_transform() if below else axes.get_yaxis_transform(),
        xybox=(0, -_GAP) if below else (-_GAP, 0),
        boxcoords="offset points",
        box_alignment=(0.5, 1) if below else (1, 0.5),
        frameon=False,
        pad=0,
        annotation_clip=False,
    )
    axes.add_artist(pinned)
    pinned.set_clip_on(False)
    return float(extent[1] if below else extent[0])


def _legend_row(line: Line2D, text: str, size: float) -> OffsetBox:
    from matplotlib.lines import Line2D  # noqa: PLC0415 - as above
    from matplotlib.offsetbox import DrawingArea, HPacker  # noqa: PLC0415 - as above

    sample = DrawingArea(2 * size, size)
    style = {"color": line.get_color(), "linewidth": line.get_linewidth(), "linestyle": line.get_linestyle()}
    sample.add_artist(Line2D([0, 2 * size], [size / 2, size / 2], **style))
    return HPacker(children=[sample, _name_picture(text, size)[0]], sep=0.8 * size, pad=0, align="center")
