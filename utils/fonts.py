"""Fonts for class names in any language, from what is installed; nothing is downloaded."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# A system without such a font still shows Chinese in pictures with OpenCV 5, which carries one.
_PREFERRED = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", "Heiti SC",
              "Hiragino Sans GB", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
              "Arial Unicode MS")  # fmt: skip
_UNDRAWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLACEHOLDER_FONT = "Last Resort"  # claims every character and draws boxes


@functools.lru_cache(maxsize=256)
def find_font(sample: str = "", wanted: str = "") -> tuple[str, bool]:
    """Find an installed font that can draw a text.

    Args:
        sample: the characters needed.
        wanted: a font file's path or name to try first.

    Returns:
        The font file's path, and whether it has every character of the sample. Where no font has, the DejaVu Sans that
        comes with matplotlib.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, needed only when text is drawn

    needed = frozenset(ord(character) for character in sample if not character.isspace())
    fallback = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    for path in (wanted, fallback):
        if path and Path(path).is_file() and _covers(path, needed):
            return path, True
    from matplotlib import font_manager  # noqa: PLC0415 - lists the system's fonts, which takes a while

    fonts = [font for font in font_manager.fontManager.ttflist if not font.name.startswith(_PLACEHOLDER_FONT)]
    rank = {name: position for position, name in enumerate(_PREFERRED)}
    fonts.sort(key=lambda font: (rank.get(font.name, len(rank)), font.style != "normal", font.name, font.fname))
    found = next((font.fname for font in fonts if _covers(font.fname, needed)), None)
    return (found, True) if found else (fallback, False)


def drawable(text: str) -> str:
    """The text with question marks for what is no character: Pillow and matplotlib fail on some, crash on others."""
    return _UNDRAWABLE.sub("?", text)


def text_mask(text: str, height: int, font: str = "") -> np.ndarray:
    """Render one line of text.

    Args:
        text: any characters; those that no font has are drawn as boxes, line breaks and what is no character at all,
            as in file names that are not UTF-8, as question marks.
        height: font size in px.
        font: a font file to prefer.

    Returns:
        (h, w) uint8 coverage, 0 where there is nothing and 255 where there is text; not to be written to.
    """
    return _rendered(drawable(text), height, font)


@functools.lru_cache(maxsize=1024)  # in a video the same labels come again and again
def _rendered(text: str, height: int, font: str) -> np.ndarray:
    path, complete = find_font(text, font)
    by_opencv = not complete and int(cv2.__version__.split(".")[0]) >= 5
    mask = _mask_by_opencv(text, height) if by_opencv else _mask_by_pillow(text, height, path)
    mask.setflags(write=False)
    return mask


def _mask_by_pillow(text: str, height: int, path: str) -> np.ndarray:
    face = _load_font(path, height)
    left, top, right, bottom = face.getbbox(text)
    ascent, descent = face.getmetrics()
    size = (max(int(np.ceil(right - min(left, 0))), 1), max(ascent + descent, int(np.ceil(bottom)), 1))
    canvas = Image.new("L", size, 0)
    ImageDraw.Draw(canvas).text((-min(left, 0), -min(top, 0)), text, fill=255, font=face)
    return np.array(canvas)


def _mask_by_opencv(text: str, height: int) -> np.ndarray:
    """OpenCV 5's own font, which has the common Chinese characters."""
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, max(round(0.85 * height), 4), 1)  # it runs small
    (width, ascent), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    margin = height // 4  # ideographs rise above the Latin letters that the size is measured on
    canvas = np.zeros((ascent + descent + 2 * margin, max(width, 1)), np.uint8)
    cv2.putText(canvas, text, (0, ascent + margin), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    return canvas


@functools.lru_cache(maxsize=64)
def _load_font(path: str, height: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, height)


@functools.lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[int]:
    """Code points a font file has a glyph for; none when it cannot be read."""
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 - as above

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


def _covers(path: str, needed: frozenset[int]) -> bool:
    return needed <= _characters(path)
