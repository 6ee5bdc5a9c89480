"""Boxes and labels on pictures: the colour palette, the Annotator, crops and feature maps. OpenCV and Pillow only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.fonts import text_mask
from utils.image_io import write_image
from utils.paths import increment_path

_PALETTE_HEX = (
    "D7263D 1B6CA8 2E933C F46036 7B2D8B 0FA3B1 B5651D E0479E 8A9A00 3D348B "
    "00A878 C81D77 5C6B73 F0A202 4F9DDE 8C1C13 6A994E 9B5DE5 006D77 FF6B6B"
)
_HERSHEY = cv2.FONT_HERSHEY_SIMPLEX
_LABEL_PAD = 2  # px between a label's text and the edge of its plate

Colour = Sequence[int]


class Palette:
    """A fixed cycle of colours that stay apart from each other; call it with a class index."""

    def __init__(self, hex_codes: str = _PALETTE_HEX) -> None:
        self.palette = [tuple(bytes.fromhex(code)) for code in hex_codes.split()]
        self.n = len(self.palette)

    def __call__(self, i: int, bgr: bool = False) -> tuple[int, int, int]:
        """Colour number ``i`` modulo the palette's length, as three ints 0..255 in RGB, or BGR, order."""
        red, green, blue = self.palette[int(i) % self.n]
        return (blue, green, red) if bgr else (red, green, blue)


colors = Palette()


def ink_on(color: Colour) -> tuple[int, int, int]:
    """Black or white, whichever can be read better on a colour in RGB order."""
    red, green, blue = (int(value) for value in color)
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else (255, 255, 255)


class Annotator:
    """Draws boxes and labels into one picture.

    A plain array is drawn on with OpenCV, in place. With ``pil``, or when ``example`` has characters beyond ASCII, the
    drawing happens on a Pillow copy, which :meth:`result` turns back into an array. Colours are in the picture's own
    channel order; nothing is converted.

    Attributes:
        im: the array or Pillow image drawn on.
        lw: line width in px.
        pil: whether ``im`` is a Pillow image.
    """

    def __init__(
        self,
        im: np.ndarray | Image.Image,
        line_width: int | None = None,
        font_size: int | None = None,
        font: str = "Arial.ttf",
        pil: bool = False,
        example: str = "abc",
    ) -> None:
        """Take the picture to draw on.

        Args:
            im: contiguous (H, W, 3) uint8 array, or a Pillow image.
            line_width: px; 0.3 % of the mean side, at least 2, when None or 0.
            font_size: text height in px; follows the line width when None.
            font: font file to prefer for text drawn by Pillow; an installed one is taken when it is not there.
            pil: draw on a Pillow image.
            example: text of the kind to come, such as the class names.

        Raises:
            ValueError: when the array is not contiguous, and drawing in place would go into a copy.
        """
        given_pil = isinstance(im, Image.Image)
        self.pil = bool(pil) or given_pil or not str(example).isascii()
        if not given_pil and not im.flags["C_CONTIGUOUS"]:
            raise ValueError("Annotator needs a contiguous array; pass np.ascontiguousarray(image)")
        width, height = im.size if given_pil else (im.shape[1], im.shape[0])
        self.lw = int(line_width) if line_width else max(round(0.003 * (width + height) / 2), 2)
        self.text_px = font_size or 5 * self.lw + 4
        self.font = font
        self._take(im)

    def _take(self, im: np.ndarray | Image.Image) -> None:
        if self.pil:
            self.im = im if isinstance(im, Image.Image) else Image.fromarray(im)
            self.draw = ImageDraw.Draw(self.im)
        else:
            self.im = im

    def box_label(
        self,
        box: Sequence[float],
        label: str | None = "",
        color: Colour = (128, 128, 128),
        txt_color: Colour = (255, 255, 255),
    ) -> None:
        """Draw one box, and its label above it, or inside where there is no room above.

        Args:
            box: x1, y1, x2, y2 in px.
            label: text; nothing when empty or None.
            color: of the frame and the label's plate.
            txt_color: of the text.
        """
        left, top, right, bottom = (round(float(value)) for value in box)
        tint = tuple(int(value) for value in color)
        if self.pil:
            corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
            self.draw.rectangle(corners, outline=tint, width=self.lw)
        else:
            cv2.rectangle(self.im, (left, top), (right, bottom), tint, self.lw, cv2.LINE_AA)
        if label:
            self.label(str(label), left, top, tint, txt_color)

    def label(
        self, label: str, x: float, y: float, color: Colour = (128, 128, 128), txt_color: Colour = (255, 255, 255)
    ) -> None:
        """Write a label without its box: a filled plate with the text, shifted so that it stays inside the picture.

        Args:
            label: one line of text.
            x: of the box's left side, px.
            y: of the box's upper side, px; the label stands on it, or hangs from it where there is no room above.
            color: of the plate.
            txt_color: of the text.
        """
        left, top = round(float(x)), round(float(y))
        plate, ink = (tuple(int(value) for value in tint) for tint in (color, txt_color))
        plain = not self.pil and label.isascii()
        mask = None if plain else text_mask(label, self.text_px, self.font)
        text_w, text_h, descent = self._plain_size(label) if plain else (mask.shape[1], mask.shape[0], 0)
        plate_w, plate_h = text_w + 2 * _LABEL_PAD, text_h + descent + 2 * _LABEL_PAD
        picture_w = self.im.size[0] if self.pil else self.im.shape[1]
        left = max(min(left, picture_w - plate_w), 0)
        top = top - plate_h if top >= plate_h else max(top, 0)
        self._fill(left, top, left + plate_w, top + plate_h, plate)
        if plain:
            origin = (left + _LABEL_PAD, top + _LABEL_PAD + text_h)
            thickness = max(self.lw - 1, 1)
            cv2.putText(self.im, label, origin, _HERSHEY, self._scale(), ink, thickness, cv2.LINE_AA)
        else:
            self._paste(mask, left + _LABEL_PAD, top + _LABEL_PAD, ink)

    def _scale(self) -> float:
        """OpenCV's font scale; capital letters are about 0.72 of a font's size."""
        return cv2.getFontScaleFromHeight(_HERSHEY, max(round(0.72 * self.text_px), 4), 1)

    def _plain_size(self, label: str) -> tuple[int, int, int]:
        (width, ascent), descent = cv2.getTextSize(label, _HERSHEY, self._scale(), max(self.lw - 1, 1))
        return width, ascent, descent

    def _fill(self, left: int, top: int, right: int, bottom: int, color: Colour) -> None:
        if self.pil:
            self.draw.rectangle((left, top, right - 1, bottom - 1), fill=tuple(color))
        else:
            cv2.rectangle(self.im, (left, top), (right - 1, bottom - 1), tuple(color), -1)

    def _paste(self, mask: np.ndarray, left: int, top: int, ink: Colour) -> None:
        """Lay text of one colour over the picture; what lies outside is cut off."""
        if self.pil:
            self.im.paste(tuple(ink), (left, top), Image.fromarray(mask))
            return
        height, width = self.im.shape[:2]
        top_cut, left_cut = max(-top, 0), max(-left, 0)
        part = mask[top_cut : max(height - top, 0), left_cut : max(width - left, 0), None] / 255.0
        area = self.im[max(top, 0) :, max(left, 0) :][: part.shape[0], : part.shape[1]]
        area[:] = np.rint(area * (1 - part) + np.asarray(ink, dtype=np.float64) * part).astype(np.uint8)

    def rectangle(
        self, xy: Sequence[float], fill: Colour | None = None, outline: Colour | None = None, width: int = 1
    ) -> None:
        """Draw a plain rectangle; ``xy`` is x1, y1, x2, y2 in px."""
        left, top, right, bottom = (round(float(value)) for value in xy)
        if self.pil:
            self.draw.rectangle((left, top, right, bottom), fill=fill, outline=outline, width=width)
            return
        if fill is not None:
            cv2.rectangle(self.im, (left, top), (right, bottom), tuple(fill), -1)
        if outline is not None:
            cv2.rectangle(self.im, (left, top), (right, bottom), tuple(outline), width)

    def text(self, xy: Sequence[float], text: str, txt_color: Colour = (255, 255, 255), anchor: str = "top") -> None:
        """Write text without a plate.

        Args:
            xy: x of its left side, and y of its upper side, or of its lower side with ``anchor="bottom"``, in px.
            text: one line.
            txt_color: its colour.
            anchor: "top" or "bottom".
        """
        mask = text_mask(str(text), self.text_px, self.font)
        top = round(float(xy[1])) - (mask.shape[0] if anchor == "bottom" else 0)
        self._paste(mask, round(float(xy[0])), top, tuple(txt_color))

    def fromarray(self, im: np.ndarray) -> None:
        """Go on with another picture."""
        self._take(im)

    def result(self) -> np.ndarray:
        """The annotated picture as an (H, W, 3) uint8 array."""
        return np.array(self.im) if self.pil else self.im


def save_one_box(
    xyxy: Any,
    im: np.ndarray,
    file: str | Path = Path("im.jpg"),
    gain: float = 1.02,
    pad: float = 10,
    square: bool = False,
    BGR: bool = False,
    save: bool = True,
) -> np.ndarray:
    """Cut one box out of a picture, with a little margin.

    Args:
        xyxy: x1, y1, x2, y2 in px; a list, an array or a tensor.
        im: (H, W, 3) picture.
        file: where to; its suffix becomes ``.jpg`` and the name is counted up when it is taken.
        gain: factor on the box's width and height.
        pad: px added to its width and height.
        square: make the longer side count for both.
        BGR: the picture's channels are in BGR order, else RGB.
        save: write the file; False only returns the crop.

    Returns:
        The crop as (h, w, 3) BGR; it has no pixels when the box lies outside of the picture.
    """
    plain = xyxy.reshape(-1).tolist() if hasattr(xyxy, "reshape") else xyxy
    left, top, right, bottom = (float(value) for value in plain[:4])
    sides = [right - left, bottom - top]
    if square:
        sides = [max(sides)] * 2
    half_w, half_h = (0.5 * (side * gain + pad) for side in sides)
    mid_x, mid_y = 0.5 * (left + right), 0.5 * (top + bottom)
    height, width = im.shape[:2]
    x_from, x_to = (int(min(max(value, 0), width)) for value in (mid_x - half_w, mid_x + half_w))
    y_from, y_to = (int(min(max(value, 0), height)) for value in (mid_y - half_h, mid_y + half_h))
    crop = im[y_from:y_to, x_from:x_to]
    crop = np.ascontiguousarray(crop if BGR else crop[..., ::-1])
    if save and crop.size:
        target = Path(file).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(increment_path(target), crop)
    return crop


def tile_channels(features: np.ndarray, limit: int = 32, columns: int = 8, side: int = 160) -> np.ndarray:
    """Lay the channels of a feature map out as one picture, each stretched to its own range.

    Args:
        features: (C, H, W) floating-point values; the first ``limit`` channels are shown.
        limit: most channels shown.
        columns: tiles a row.
        side: px of a tile's longer side.

    Returns:
        (rows * h, columns * w, 3) uint8 BGR, dark blue for the lowest and yellow for the highest value.
    """
    shown = np.nan_to_num(np.asarray(features[:limit], dtype=np.float32))
    count, height, width = shown.shape
    columns = max(min(columns, count), 1)
    rows = math.ceil(count / columns)
    scale = side / max(height, width)
    tile_h, tile_w, gap = max(round(height * scale), 1), max(round(width * scale), 1), 4
    canvas = np.full((rows * (tile_h + gap) + gap, columns * (tile_w + gap) + gap, 3), 255, np.uint8)
    for index, channel in enumerate(shown):
        low, high = float(channel.min()), float(channel.max())
        grey = np.uint8(255 * (channel - low) / (high - low)) if high > low else np.zeros_like(channel, np.uint8)
        tile = cv2.resize(
            cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), (tile_w, tile_h), interpolation=cv2.INTER_NEAREST
        )
        y, x = gap + index // columns * (tile_h + gap), gap + index % columns * (tile_w + gap)
        canvas[y : y + tile_h, x : x + tile_w] = tile
    return canvas
