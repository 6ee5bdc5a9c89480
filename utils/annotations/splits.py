"""Dividing a data set into training, validation and test images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

from utils.annotations.record import SPLITS, AnnotatedImage, AnnotatedSet
from utils.errors import OptionError

_OFF_BY = 1e-6  # how far shares may be from 1 together


def read_shares(text: str) -> tuple[float, ...]:
    """Read what ``--split`` says: two or three shares that make 1, of train, val and test.

    Raises:
        OptionError: when it says something else.
    """
    try:
        shares = tuple(float(word) for word in text.split(","))
    except ValueError:
        shares = ()
    fitting = len(shares) in (2, 3) and all(0 <= share <= 1 for share in shares)
    if not fitting or abs(sum(shares) - 1) > _OFF_BY or shares[0] == 0:
        raise OptionError(f"--split {text}: expected shares of train, val and test that make 1, such as 0.8,0.1,0.1")
    return shares


def divide(content: AnnotatedSet, shares: Sequence[float], seed: int) -> AnnotatedSet:
    """Give each image a split by its name and the seed alone: neither order nor machine matter.

    Args:
        content: its own splits are forgotten.
        shares: of train, val and test, as :func:`read_shares` gives them.
        seed: another one divides otherwise.
    """
    order = sorted(range(len(content.images)), key=lambda row: _lot(content.images[row], seed))
    ends = [round(math.fsum(shares[: place + 1]) * len(order)) for place in range(len(shares))]
    split_of_row = {}
    for place, row in enumerate(order):
        split_of_row[row] = next(split for split, end in zip(SPLITS, ends, strict=False) if place < end)
    images = [replace(image, split=split_of_row[row]) for row, image in enumerate(content.images)]
    return replace(content, images=images)


def keep_splits(content: AnnotatedSet) -> AnnotatedSet:
    """The source's splits; images of none are for training."""
    return replace(content, images=[replace(image, split=image.split or SPLITS[0]) for image in content.images])


def _lot(image: AnnotatedImage, seed: int) -> tuple[bytes, str]:
    digest = hashlib.sha256(f"{seed}\n{image.name}".encode(errors="surrogateescape")).digest()
    return digest, image.split or ""
