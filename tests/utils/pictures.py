"""Looking at pictures by their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.image_io import read_image


def ink(file: Path) -> float:
    """Share of pixels that are not white."""
    return float((read_image(file).min(2) < 250).mean())


def cut_off(file: Path) -> bool:
    """Whether something reaches the picture's edge, as a text does that has no room."""
    dark = read_image(file).min(2) < 200
    return bool(dark[:2].any() or dark[-2:].any() or dark[:, :2].any() or dark[:, -2:].any())


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether a pixel has a colour, both in the same order of channels."""
    return bool(np.abs(pixel.astype(int) - np.array(colour)).max() < 12)


def pixels_of(image: np.ndarray, colour: tuple[int, int, int], within: int = 12) -> int:
    """Number of pixels of a BGR picture that have a colour given in RGB."""
    return int((np.abs(image.astype(int) - np.array(colour)[::-1]).max(2) < within).sum())
