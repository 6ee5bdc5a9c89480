"""What a data set is asked for, and how its answers become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

Item = tuple[torch.Tensor, torch.Tensor, str, tuple | None]
Batch = tuple[torch.Tensor, torch.Tensor, tuple[str, ...], tuple]


class ItemKey(NamedTuple):
    """What an item depends on besides the data set and its seed; loaders ask for items by it.

    Attributes:
        index: number of the image.
        epoch: number of the pass.
        draw: how often the pass had this image before, where images are drawn with replacement.
    """

    index: int
    epoch: int
    draw: int = 0


class QuadKey(NamedTuple):
    """Four items that become one of twice the size, or one that is enlarged to it; see ``quad.py``."""

    members: tuple[ItemKey, ...]


def collate(items: Sequence[Item]) -> Batch:
    """Join items to a batch.

    Returns:
        Images (B, 3, H, W) uint8; targets (n, 6) float32 rows image index, class, x, y, w, h normalised; paths; shapes.
    """
    images, labels, paths, shapes = zip(*items, strict=True)
    numbered = [torch.cat([torch.full_like(rows[:, :1], place), rows[:, 1:]], 1) for place, rows in enumerate(labels)]
    # torch.stack would start threads, which costs more than the copying
    pixels = torch.from_numpy(np.stack([image.numpy() for image in images]))
    return pixels, torch.cat(numbered), paths, shapes
