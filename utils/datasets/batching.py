"""The order of items, their grouping into batches, and the loader.

Every image of a data set appears once an epoch, the last batch may be smaller, and nothing depends on the number of
workers: items carry the epoch in their key, so workers may live on between epochs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.items import ItemKey, collate
from utils.dist import world_size
from utils.errors import OptionError
from utils.log import LOGGER


class EpochBatches(Sampler[list]):
    """The batches of an epoch, as lists of item keys (index, epoch).

    Each pass is the next epoch, unless :meth:`set_epoch` names it. With several ranks each gets every ``ranks``-th
    item, or batch of a rectangular set, the first ones again where they do not divide evenly.
    """

    def __init__(self, dataset: LoadImagesAndLabels, batch_size: int, shuffle: bool, seed: int, rank: int, ranks: int):
        self._batch = dataset.batch if dataset.rect else None
        self._count, self._batch_size = len(dataset), batch_size
        self._shuffle, self._seed = shuffle, seed & 0xFFFFFFFF
        self._rank, self._ranks = max(rank, 0), max(ranks, 1)
        self._next_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass."""
        self._next_epoch = epoch

    def _own_share(self, everything: np.ndarray) -> np.ndarray:
        missing = -len(everything) % self._ranks
        return np.append(everything, np.resize(everything, missing))[self._rank :: self._ranks]

    def __len__(self) -> int:
        if self._batch is not None:
            return math.ceil((int(self._batch[-1]) + 1) / self._ranks)
        return math.ceil(math.ceil(self._count / self._ranks) / self._batch_size)

    def __iter__(self) -> Iterator[list[ItemKey]]:
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        if self._batch is not None:
            starts = np.searchsorted(self._batch, np.arange(int(self._batch[-1]) + 2))  # and one past the last
            groups = (np.arange(starts[b], starts[b + 1]) for b in self._own_share(np.arange(len(starts) - 1)))
        else:
            order = np.arange(self._count)
            if self._shuffle:
                order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            own = self._own_share(order)
            groups = (own[start : start + self._batch_size] for start in range(0, len(own), self._batch_size))
        for group in groups:
            yield [ItemKey(index, epoch) for index in group.tolist()]


class EpochLoader(DataLoader):
    """A DataLoader whose epochs can be named; without naming, each pass is the next epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass; order and augmentation follow from it."""
        self.batch_sampler.set_epoch(epoch)


def _start_worker(_: int) -> None:
    """Workers share the processor among themselves: one thread each."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _worker_count(batch_size: int, wanted: int) -> int:
    """The least of processors per GPU, batch size (none for a batch of one) and what is asked for."""
    processors = (os.cpu_count() or 1) // max(torch.cuda.device_count(), 1)
    return max(min(processors, batch_size if batch_size > 1 else 0, wanted), 0)


def create_dataloader(
    path: str | Path | Sequence[str | Path],
    imgsz: int,
    batch_size: int,
    stride: int,
    single_cls: bool = False,
    hyp: Mapping[str, Any] | None = None,
    augment: bool = False,
    cache: bool | str | None = False,
    pad: float = 0.0,
    rect: bool = False,
    rank: int = -1,
    workers: int = 8,
    image_weights: bool = False,
    quad: bool = False,
    prefix: str = "",
    shuffle: bool = False,
    seed: int = 0,
    *,
    nc: int | None = None,
) -> tuple[EpochLoader, LoadImagesAndLabels]:
    """Make the loader of one split and its data set.

    Args:
        path: folder, ``.txt`` list, or a list of these.
        imgsz: long side of an image, pixels.
        batch_size: images per batch (per rank), at most the data set.
        stride: sides of rectangular batches are multiples of it.
        single_cls: every class becomes 0.
        hyp: hyperparameters; the augmentation keys are read when ``augment``.
        augment: training.
        cache: "ram", "disk" or nothing.
        pad: extra strides around rectangles: 0.5 for validation.
        rect: rectangular batches: no mosaics and no shuffling.
        rank: of this process among several; -1 alone.
        workers: most worker processes; 0 loads in this one.
        image_weights: not available yet.
        quad: not available yet.
        prefix: text in front of messages.
        shuffle: a new order each epoch.
        seed: of order and augmentation.
        nc: class count; labels beyond it are reported and left out. None does not check.

    Returns:
        The loader, whose batches are uint8 images (B, 3, H, W) RGB, targets (n, 6), paths, shapes; and the data set.

    Raises:
        DatasetError: see :class:`utils.datasets.detection.LoadImagesAndLabels`.
        OptionError: for what is not available yet.
    """
    for wanted, flag in ((quad, "--quad"), (image_weights, "--image-weights")):
        if wanted:
            raise OptionError(f"{flag} is not available yet")
    if rect and shuffle:
        LOGGER.warning(f"{prefix}rectangular batches are not shuffled")
    dataset = LoadImagesAndLabels(
        path, imgsz, batch_size, augment, hyp, rect, image_weights, cache, single_cls, int(stride), pad,
        prefix=prefix, nc=nc, seed=seed,
    )  # fmt: skip
    batch_size = min(batch_size, len(dataset))
    batches = EpochBatches(dataset, batch_size, shuffle, seed, rank, world_size() if rank >= 0 else 1)
    count = _worker_count(batch_size, workers)
    loader = EpochLoader(
        dataset,
        batch_sampler=batches,
        num_workers=count,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available() and os.environ.get("PIN_MEMORY", "true").lower() == "true",
        persistent_workers=count > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed & 0xFFFFFFFF),  # leaves torch's own stream alone
    )
    return loader, dataset
