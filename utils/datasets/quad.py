"""``--quad``: batches of images of twice the side, each made of four items.

Half the time all four are laid out as tiles, else the first one is enlarged and the other three do not appear.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from utils.datasets.items import Batch, Item, collate
from utils.datasets.quad_group import GROUP

_TILE_OFFSETS_XY = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5))  # in shares of the whole: down the columns


def join_quad(members: Sequence[Item]) -> Item:
    """One item of twice the height and width.

    Args:
        members: one item, which is enlarged, or four of one size, which become the tiles upper left, lower left, upper
            right, lower right.

    Returns:
        Image (3, 2h, 2w) uint8, labels (n, 6) normalised by it, the first one's path, and its shapes; None for tiles.
    """
    return _enlarged(members[0]) if len(members) == 1 else _tiled(members)


def _enlarged(item: Item) -> Item:
    image, rows, path, shapes = item
    _, height, width = image.shape
    channels = [cv2.resize(plane, (2 * width, 2 * height)) for plane in image.numpy()]
    if shapes is not None:
        original_hw, (ratio_hw, pad_wh) = shapes
        shapes = (original_hw, (tuple(2 * ratio for ratio in ratio_hw), tuple(2 * pad for pad in pad_wh)))
    return torch.from_numpy(np.stack(channels)), rows, path, shapes


def _tiled(members: Sequence[Item]) -> Item:
    images, labels, paths, _ = zip(*members, strict=True)
    upper_left, lower_left, upper_right, lower_right = (image.numpy() for image in images)
    columns = [np.concatenate(pair, axis=1) for pair in ((upper_left, lower_left), (upper_right, lower_right))]
    placed = [_shrunk_into(rows, offset) for rows, offset in zip(labels, _TILE_OFFSETS_XY, strict=True)]
    return torch.from_numpy(np.concatenate(columns, axis=2)), torch.cat(placed), paths[0], None


def _shrunk_into(rows: torch.Tensor, offset_xy: tuple[float, float]) -> torch.Tensor:
    """Labels (n, 6) of a tile as labels of the whole."""
    halved = torch.cat([rows[:, :2], rows[:, 2:] / 2], dim=1)
    halved[:, 2:4] += halved.new_tensor(offset_xy)
    return halved


def collate_quad(items: Sequence[Item]) -> Batch:
    """Join each four items to one and these to a batch, for loaders that ask for single items.

    Our own loader asks for :class:`utils.datasets.items.QuadKey` instead. Here the choice between tiles and
    enlargement follows from the four's paths and labels, so it needs no random stream and no knowledge of the epoch.

    Args:
        items: at least four; up to three at the end that make no group are left out.

    Returns:
        As :func:`utils.datasets.items.collate`, with a quarter as many images of twice the side.

    Raises:
        ValueError: for fewer than four items.
    """
    if len(items) < GROUP:
        raise ValueError(f"{len(items)} items: quad batches are made of groups of {GROUP}")
    groups = (items[start : start + GROUP] for start in range(0, len(items) - GROUP + 1, GROUP))
    return collate([join_quad(group[:1] if _toss(group) else group) for group in groups])


def _toss(group: Sequence[Item]) -> bool:
    """A coin that shows the same side whenever the same items come together."""
    checksum = 0
    for _, rows, path, _ in group:
        checksum = zlib.crc32(rows.numpy().tobytes(), zlib.crc32(path.encode(errors="surrogateescape"), checksum))
    return bool(checksum & 1)
