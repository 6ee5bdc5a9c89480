"""Rectangular batches: which images share one, and how large it is."""

from __future__ import annotations

import numpy as np


def rectangle_shapes(ratio_bounds: np.ndarray, img_size: int, stride: int, pad: float) -> np.ndarray:
    """Smallest rectangle, in whole strides, around images of given aspect ratios.

    Args:
        ratio_bounds: (G, 2) smallest and largest height / width of each group.
        img_size: the images' long side.
        stride: sides are multiples of it.
        pad: extra strides.

    Returns:
        (G, 2) int64 height and width.
    """
    smallest, largest = np.asarray(ratio_bounds, dtype=np.float64).T
    heights = np.where(largest < 1, largest, 1.0)  # all wider than high: as high as the highest
    widths = np.where(smallest > 1, 1 / smallest, 1.0)  # all higher than wide: as wide as the widest
    sides = np.stack([heights, widths], axis=1) * img_size
    return (np.ceil(sides / stride + pad) * stride).astype(np.int64)


def rectangle_groups(
    shapes_wh: np.ndarray, batch_size: int, img_size: int, stride: int, pad: float, own_shapes: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order images by aspect ratio and put neighbours into rectangular batches.

    Args:
        shapes_wh: (N, 2) width and height of the images.
        batch_size: most images of a batch.
        img_size: the images' long side.
        stride: sides of rectangles are multiples of it.
        pad: extra strides.
        own_shapes: each image gets the rectangle it would get alone, and only equal rectangles share a batch;
            otherwise every ``batch_size`` neighbours share the rectangle around them all.

    Returns:
        Order (N,) of the images, batch (N,) of each image in that order, and height and width (batches, 2).
    """
    ratios = shapes_wh[:, 1] / shapes_wh[:, 0]
    order = np.argsort(ratios, kind="stable")
    ratios = ratios[order]
    if not own_shapes:
        batch = np.arange(len(order)) // batch_size
        starts = np.arange(0, len(order), batch_size)
        bounds = np.stack([np.minimum.reduceat(ratios, starts), np.maximum.reduceat(ratios, starts)], axis=1)
        return order, batch, rectangle_shapes(bounds, img_size, stride, pad)
    own = rectangle_shapes(np.stack([ratios, ratios], axis=1), img_size, stride, pad)
    # by rectangle, then by place in the data set: the order within a batch says nothing about ratios
    regroup = np.lexsort((order, own[:, 1], own[:, 0]))
    order, own = order[regroup], own[regroup]
    changes = np.flatnonzero((own[1:] != own[:-1]).any(axis=1)) + 1
    starts = np.concatenate(
        [np.arange(a, b, batch_size) for a, b in zip([0, *changes], [*changes, len(own)], strict=True)]
    )
    batch = np.searchsorted(starts, np.arange(len(own)), side="right") - 1
    return order, batch, own[starts]
