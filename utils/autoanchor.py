"""Anchors that fit a data set: how well the present ones do, k-means, and a short evolution.

All maths is on plain arrays; :func:`check_anchors` alone touches a model, and says so in the log. A side ratio means
min(a / b, b / a): 1 for equal sides, smaller the more they differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.errors import DatasetError
from utils.log import LOGGER, colorstr

GOOD_RECALL = 0.98  # best possible recall above which anchors are left alone
MIN_SIDE = 2.0  # px: smaller boxes are not clustered, and no anchor gets smaller
SIZE_JITTER = (0.9, 1.1)  # images are shown a little smaller and larger while training
KMEANS_ITERATIONS = 30
KMEANS_RESTARTS = 5
KMEANS_SAMPLE = 20_000  # boxes; more do not move the centres, but take time
MUTATION_CHANCE = 0.9
MUTATION_SIGMA = 0.1
MUTATION_LIMITS = (0.3, 3.0)
_BLOCK = 32_768  # boxes at a time, as many as stay in the cache: a million at once take twice as long each
_PREFIX = f"{colorstr('AutoAnchor')}: "


# Fit of anchors ------------------------------------------------------------------------------------------------------


def best_ratios(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """How well the best anchor fits each box.

    Args:
        sizes: (N, 2) box widths and heights in pixels, above 0.
        anchors: (K, 2) anchor widths and heights in pixels.

    Returns:
        (N,) the worse of the two side ratios, for the anchor where it is best; 0..1.
    """
    return _best_ratios_of_logs(_log_sides(sizes), anchors)


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray, thr: float) -> float:
    """Share of the boxes that at least one anchor may answer for.

    Args:
        sizes: (N, 2) pixels.
        anchors: (K, 2) pixels.
        thr: largest ratio between a side and the anchor's (``anchor_t``).
    """
    return float((best_ratios(sizes, anchors) > 1 / thr).mean()) if len(sizes) else 0.0


def anchor_fitness(sizes: np.ndarray, anchors: np.ndarray, thr: float) -> float:
    """Mean over the boxes of the best ratio, where it passes the threshold; see :func:`best_possible_recall`."""
    return _fitness_of_logs(_log_sides(sizes), anchors, thr)


def _log_sides(sizes: np.ndarray) -> np.ndarray:
    """(2, N) logarithms of widths and heights: there a ratio of sides is a distance."""
    return np.log(np.ascontiguousarray(np.asarray(sizes, np.float32).T))


def _best_ratios_of_logs(log_sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """:func:`best_ratios` on (2, N) logarithms; one exponential a box keeps the evolution fast."""
    with np.errstate(divide="ignore"):  # a placeholder anchor of side 0 is infinitely far away
        log_anchors = np.log(np.asarray(anchors, np.float32))
    ratios = np.empty(log_sides.shape[1], np.float32)
    for start in range(0, len(ratios), _BLOCK):
        log_widths, log_heights = log_sides[:, start : start + _BLOCK]
        nearest = np.full(len(log_widths), np.inf, np.float32)
        for log_width, log_height in log_anchors:
            apart = np.maximum(np.abs(log_widths - log_width), np.abs(log_heights - log_height))
            np.minimum(nearest, apart, out=nearest)
        np.exp(-nearest, out=ratios[start : start + _BLOCK])
    return ratios


def _fitness_of_logs(log_sides: np.ndarray, anchors: np.ndarray, thr: float) -> float:
    ratios = _best_ratios_of_logs(log_sides, anchors)
    ratios *= ratios > 1 / thr
    return float(ratios.mean(dtype=np.float64))


# Finding anchors -----------------------------------------------------------------------------------------------------


def kmeans(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centres of the clusters with the least squared distances, out of a few random starts.

    Args:
        points: (N, D), N at least ``count``.
        count: number of clusters.
        rng: draws the starting centres, far apart from each other.

    Returns:
        (count, D).
    """
    runs = [_kmeans_once(points, _spread_start(points, count, rng)) for _ in range(KMEANS_RESTARTS)]
    return min(runs, key=lambda run: run[1])[0]


def _spread_start(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Starting centres, each drawn with a chance that grows with the squared distance from those before it."""
    centres = [points[rng.integers(len(points))]]
    nearest = np.full(len(points), np.inf)
    while len(centres) < count:
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(1))
        total = nearest.sum()
        chance = nearest / total if total > 0 else None  # all points taken already: any will do
        centres.append(points[rng.choice(len(points), p=chance)])
    return np.array(centres)


def _kmeans_once(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Refine starting centres; returns them with the mean squared distance. An empty cluster keeps its centre."""
    distortion = np.inf
    for _ in range(KMEANS_ITERATIONS):
        distance = ((points[:, None] - centres[None]) ** 2).sum(-1)  # (N, count)
        member = distance.argmin(1)
        population = np.bincount(member, minlength=len(centres))
        sums = [np.bincount(member, weights=column, minlength=len(centres)) for column in points.T]
        means = np.stack(sums, 1) / np.maximum(population, 1)[:, None]
        centres = np.where(population[:, None] > 0, means, centres)
        before, distortion = distortion, float(distance.min(1).mean())
        if before - distortion <= 1e-9 * distortion:
            break
    return centres, distortion


def evolve_anchors(
    sizes: np.ndarray, anchors: np.ndarray, thr: float, generations: int, rng: np.random.Generator
) -> np.ndarray:
    """Improve anchors by random changes, keeping each change that raises :func:`anchor_fitness`.

    Args:
        sizes: (N, 2) pixels.
        anchors: (K, 2) pixels.
        thr: largest ratio between a side and the anchor's.
        generations: number of changes tried.
        rng: draws the changes.

    Returns:
        (K, 2), no side below 2 px.
    """
    log_sides = _log_sides(sizes)
    best = np.maximum(anchors, MIN_SIDE)
    best_fitness = _fitness_of_logs(log_sides, best, thr)
    for _ in range(generations):
        changed = np.maximum(best * _mutation(best.shape, rng), MIN_SIDE)
        fitness = _fitness_of_logs(log_sides, changed, thr)
        if fitness > best_fitness:
            best, best_fitness = changed, fitness
    return best


def _mutation(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Factors around 1; at least one of them is not 1."""
    while True:
        touched = rng.random(shape) < MUTATION_CHANCE
        noise = rng.standard_normal(shape) * rng.random() * MUTATION_SIGMA
        factors = (1 + touched * noise).clip(*MUTATION_LIMITS)
        if (factors != 1).any():
            return factors


def find_anchors(sizes: np.ndarray, count: int, thr: float, generations: int, rng: np.random.Generator) -> np.ndarray:
    """Anchors for a set of boxes: whitened k-means, then evolution.

    Args:
        sizes: (N, 2) pixels at training size, N at least 1.
        count: number of anchors.
        thr: largest ratio between a side and the anchor's.
        generations: length of the evolution.
        rng: source of all randomness.

    Returns:
        (count, 2) float32 pixels, by rising area.

    Raises:
        DatasetError: when there are no boxes.
    """
    if len(sizes) == 0:
        raise DatasetError("anchors cannot be fitted: the data set has no labelled boxes")
    large = sizes[(sizes >= MIN_SIDE).any(1)]
    points = np.asarray(large if len(large) else sizes, np.float64)
    if len(points) < count:  # too few to cluster: spread anchors around them
        drawn = points[rng.integers(len(points), size=count)]
        start = drawn * rng.uniform(0.5, 2.0, (count, 2))
    else:
        if len(points) > KMEANS_SAMPLE:
            points = points[rng.choice(len(points), KMEANS_SAMPLE, replace=False)]
        spread = points.std(0)
        spread[spread == 0] = 1
        start = kmeans(points / spread, count, rng) * spread
    anchors = evolve_anchors(large if len(large) else sizes, start, thr, generations, rng)
    return anchors[anchors.prod(1).argsort(kind="stable")].astype(np.float32)


# Data sets and models ------------------------------------------------------------------------------------------------


def label_sizes(dataset: Any, imgsz: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Widths and heights of all labels when the images' longer side is ``imgsz``.

    Args:
        dataset: with ``shapes`` (images, 2) width and height, and ``labels``, per image (n, 5) class and normalised
            centre x, y, width, height.
        imgsz: pixels.
        rng: draws how much each image is enlarged, 0.9 to 1.1; none is when omitted.

    Returns:
        (N, 2) float32 pixels; boxes without extent are left out.
    """
    shapes = np.asarray(dataset.shapes, np.float64).reshape(-1, 2)
    shown = imgsz * shapes / shapes.max(1, keepdims=True)
    if rng is not None:
        shown = shown * rng.uniform(*SIZE_JITTER, (len(shown), 1))
    sizes = [np.zeros((0, 2)), *(rows[:, 3:5] * size for rows, size in zip(dataset.labels, shown, strict=True))]
    flat = np.concatenate(sizes).astype(np.float32)
    return flat[(flat > 0).all(1)]


def kmean_anchors(
    dataset: Any,
    n: int = 9,
    img_size: int = 640,
    thr: float = 4.0,
    gen: int = 1000,
    verbose: bool = True,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Find anchors for a data set.

    Args:
        dataset: a data set (see :func:`label_sizes`) or the path of a data set YAML, whose ``train`` part counts.
        n: number of anchors.
        img_size: training image size in pixels.
        thr: largest ratio between a side and the anchor's (``anchor_t``).
        gen: generations of evolution.
        verbose: log the result.
        rng: source of all randomness; a fixed one when omitted, so that equal data gives equal anchors.

    Returns:
        (n, 2) float32 widths and heights in pixels, by rising area.

    Raises:
        DatasetError: when there are no boxes.
    """
    if isinstance(dataset, (str, Path)):
        dataset = _open_dataset(dataset, img_size)
    sizes = label_sizes(dataset, img_size)
    anchors = find_anchors(sizes, n, thr, gen, np.random.default_rng(0) if rng is None else rng)
    if verbose:
        listing = ", ".join(f"{width:.0f},{height:.0f}" for width, height in anchors)
        recall = best_possible_recall(sizes, anchors, thr)
        LOGGER.info(f"{_PREFIX}{n} anchors for {len(sizes)} boxes, best possible recall {recall:.4f}: {listing}")
    return anchors


def check_anchors(
    dataset: Any, model: nn.Module, thr: float = 4.0, imgsz: int = 640, rng: np.random.Generator | None = None
) -> None:
    """Replace a model's anchors by better ones when they fit the data badly; logs what it does.

    Args:
        dataset: see :func:`label_sizes`.
        model: its head is changed: ``model.model[-1]``, inside a DDP wrapper too.
        thr: largest ratio between a side and the anchor's (``anchor_t``).
        imgsz: training image size in pixels.
        rng: source of all randomness; a fixed one when omitted.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    head = getattr(model, "module", model).model[-1]
    sizes = label_sizes(dataset, imgsz, rng)
    if len(sizes) == 0:
        LOGGER.warning(f"{_PREFIX}the data set has no labelled boxes; anchors stay as they are")
        return
    stride = head.stride.to(head.anchors).view(-1, 1, 1)
    present = (head.anchors * stride).reshape(-1, 2).detach().cpu().numpy()
    recall = best_possible_recall(sizes, present, thr)
    if recall > GOOD_RECALL:
        LOGGER.info(f"{_PREFIX}best possible recall {recall:.4f}: the anchors fit the data")
        return
    LOGGER.info(f"{_PREFIX}best possible recall {recall:.4f}: the anchors fit the data badly, looking for better ones")
    found = kmean_anchors(dataset, len(present), imgsz, thr, gen=1000, verbose=True, rng=rng)
    found_recall = best_possible_recall(sizes, found, thr)
    if found_recall <= recall:
        LOGGER.info(f"{_PREFIX}recall {found_recall:.4f} is no better; anchors stay as they are")
        return
    install_anchors(head, found)
    LOGGER.info(f"{_PREFIX}new anchors replace those that the model started with; checkpoints carry them along")


def install_anchors(head: nn.Module, anchors: np.ndarray) -> None:
    """Write anchors into a head, in place: smallest to the level of the smallest stride.

    Args:
        head: with ``anchors`` (levels, A, 2) in cells and ``stride`` (levels,).
        anchors: (levels * A, 2) pixels, by rising area.
    """
    with torch.no_grad():
        head.anchors.copy_(torch.as_tensor(anchors).view_as(head.anchors))
        check_anchor_order(head)
        head.anchors.div_(head.stride.to(head.anchors).view(-1, 1, 1))


def check_anchor_order(head: nn.Module) -> None:
    """Reverse the levels' anchors, in place, when they grow against the strides.

    Args:
        head: with ``anchors`` (levels, A, 2) in pixels and ``stride`` (levels,).
    """
    area = head.anchors.prod(-1).mean(-1)  # (levels,)
    growth, stride_growth = area[-1] - area[0], head.stride[-1] - head.stride[0]
    if growth != 0 and (growth > 0) != (stride_growth > 0):
        LOGGER.info(f"{_PREFIX}anchors reversed, so that larger ones go with larger strides")
        with torch.no_grad():
            head.anchors.copy_(head.anchors.flip(0))


def _open_dataset(path: str | Path, img_size: int) -> Any:
    """The training part of a data set YAML."""
    from utils.datasets.config import check_dataset  # noqa: PLC0415 - arrays alone need no OpenCV
    from utils.datasets.detection import LoadImagesAndLabels  # noqa: PLC0415 - as above

    return LoadImagesAndLabels(check_dataset(path)["train"], img_size=img_size)
