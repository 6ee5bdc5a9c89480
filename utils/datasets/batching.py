"""The loader: items of a data set, joined to batches by worker processes.

Nothing depends on the number of workers: what is asked for names the epoch, so workers may live on between epochs.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.items import Batch, collate
from utils.datasets.quad_group import GROUP, require_group
from utils.datasets.sampling import EpochBatches
from utils.datasets.worker_faults import collate_shared, explained_faults, outlive_ctrl_c, quiet_deaths
from utils.dist import local_world_size, world_size
from utils.errors import OptionError
from utils.log import LOGGER


class EpochLoader(DataLoader):
    """A DataLoader whose epochs can be named; without naming, each pass is the next epoch."""

    _workers: Sequence[BaseProcess] = ()

    def __iter__(self) -> Iterator[Batch]:
        """The batches; what goes wrong in a worker process is raised as if it had happened here.

        Raises:
            ProjectError: when an image cannot be read, a worker has died, or memory has run out.
        """
        with explained_faults(self._workers), quiet_deaths():
            batches = super().__iter__()
        self._workers = self._workers or multiprocessing.active_children()
        while True:
            with explained_faults(self._workers):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Name the epoch of the next pass; order and augmentation follow from it.

        Args:
            epoch: from 0.
            first: number of the batch that the pass begins with.
        """
        self.batch_sampler.set_epoch(epoch, first)

    def draw_by(self, weights: np.ndarray | None) -> None:
        """From the next epoch on, draw images with replacement; see :meth:`EpochBatches.draw_by`.

        Args:
            weights: (N,) one for each image of the data set, the same in every rank; None goes back to each once.
        """
        self.batch_sampler.draw_by(weights)


def _start_worker(_: int) -> None:
    """Workers share the processor among themselves, one thread each, and the memory they start with."""
    outlive_ctrl_c()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    gc.freeze()  # a full pass of the collector would write to all that came over, and so copy some 90 MB


def _worker_count(batch_size: int, wanted: int, rank: int) -> int:
    """Worker processes: no more than are asked for, than this process's share of processors, than a batch has images.

    Single images are not worth a process: they would be waited for one by one all the same.
    """
    if batch_size == 1:
        return 0
    neighbours = local_world_size() if rank >= 0 else max(torch.cuda.device_count(), 1)
    return max(0, min(wanted, batch_size, _processors() // neighbours))


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    names: Mapping[int, str] | None = None,
    repeat: bool = True,
) -> tuple[EpochLoader, LoadImagesAndLabels]:
    """Make the loader of one split and its data set.

    Args:
        path: folder, ``.txt`` list, COCO's ``.json``, or a list of these.
        imgsz: long side of an image, pixels.
        batch_size: images per batch (per rank), at most the data set.
        stride: sides of rectangular batches are multiples of it.
        single_cls: every class becomes 0.
        hyp: hyperparameters; the augmentation keys are read when ``augment``.
        augment: training.
        cache: "ram", "disk", "auto" or nothing, as of the data set; worker processes that begin without this one's
            memory would each get a copy, so "auto" keeps nothing then.
        pad: extra strides around rectangles: 0.5 for validation.
        rect: rectangular batches: no mosaics and no shuffling.
        rank: of this process among several, all of which make the same loader at the same time; -1 alone.
        workers: most worker processes; 0 loads in this one.
        image_weights: images will be drawn by weight: ``rect`` off, and shuffled until
            :meth:`EpochLoader.draw_by` is called.
        quad: join each four images to one of twice the side, half the time by enlarging the first instead. A batch then
            has a quarter as many; ``batch_size`` is rounded down to fours, and what makes no four at the end of an
            epoch is left out. The images of a rectangular batch have one shape, so ``rect`` works as well.
        prefix: text in front of messages.
        shuffle: a new order each epoch.
        seed: of order and augmentation, the same in every rank.
        nc: class count; labels beyond it are reported and left out. None does not check.
        names: of the classes, to which those of a ``.json`` belong.
        repeat: with several ranks each gets equally many images (rectangular: batches), the first ones again where
            they do not divide. False gives every batch to one rank, as validation needs it: rank r gets the batches
            r, r + ranks, ... of a single process, maybe one fewer than others, or none.

    Returns:
        The loader, whose batches are uint8 images (B, 3, H, W) RGB, targets (n, 6), paths, shapes; and the data set.

    Raises:
        DatasetError: see :class:`utils.datasets.detection.LoadImagesAndLabels`.
        OptionError: when ``quad`` has too few images for a group of four, or there is no such rank.
    """
    ranks = _process_count(rank)
    batch_size = _in_whole_groups(batch_size, ranks) if quad else batch_size
    if rank <= 0:
        _warn(prefix, rect, shuffle, image_weights)
    if cache == "auto" and _worker_count(batch_size, workers, rank) and not _workers_share_memory():
        cache = False
    dataset = LoadImagesAndLabels(
        path, imgsz, batch_size, augment, hyp, rect, image_weights, cache, single_cls, int(stride), pad,
        prefix=prefix, nc=nc, names=names, seed=seed, rank=rank,
    )  # fmt: skip
    largest = min(batch_size, len(dataset))
    batches = EpochBatches(
        dataset,
        largest,
        shuffle=shuffle or image_weights,
        seed=seed,
        rank=max(rank, 0),
        ranks=ranks,
        repeat=repeat,
        quad=quad,
    )
    if quad and repeat and not len(batches):
        raise OptionError(f"--quad joins {GROUP} images to one: {prefix}{len(dataset)} images are too few")
    return _loader(dataset, batches, _worker_count(largest, workers, rank), seed), dataset


def _workers_share_memory() -> bool:
    """Whether worker processes begin with this one's memory; asking does not settle how they are started."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    return (chosen or multiprocessing.get_all_start_methods()[0]) == "fork"


def _process_count(rank: int) -> int:
    """How many processes share the images, this one included; 1 for the rank -1."""
    ranks = world_size() if rank >= 0 else 1
    if rank >= ranks:
        raise OptionError(f"rank {rank} of {ranks} processes: ranks count from 0; start several with torchrun")
    return ranks


def _in_whole_groups(batch_size: int, ranks: int) -> int:
    """A rank's batch size, rounded down to what ``--quad`` can join; an error where that is nothing."""
    require_group(batch_size * ranks, ranks)
    return batch_size - batch_size % GROUP


def _loader(dataset: LoadImagesAndLabels, batches: EpochBatches, workers: int, seed: int) -> EpochLoader:
    """The loader of a data set's batches, with so many worker processes."""
    return EpochLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate_shared if workers else collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed & 0xFFFFFFFF),  # leaves torch's own stream alone
    )


def _warn(prefix: str, rect: bool, shuffle: bool, image_weights: bool) -> None:
    """Say which of the wishes lose against others."""
    if rect and image_weights:
        LOGGER.warning(f"{prefix}images drawn by weight have no fixed batches: --rect is off")
    elif rect and shuffle:
        LOGGER.warning(f"{prefix}rectangular batches are not shuffled")
