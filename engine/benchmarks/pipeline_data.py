"""Training images a second of one core, beside the same augmentation as textbooks write it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from engine.benchmarks.figures import Figure, ratios
from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from engine.benchmarks.textbook import Textbook
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from utils.datasets.detection import LoadImagesAndLabels

_TARGET = 2.0
_MANNERS = {  # by what stands in the table: the cache that ours has, and whether the textbook's images are in memory
    "as `train.py` does it": ("auto", False),
    "images from their files": ("none", False),
    "images in memory": ("ram", True),
}


def measure_data(
    options: PipelineBenchmarkOptions, data: Mapping[str, Any], hyp: Mapping[str, Any]
) -> Iterator[Figure]:
    """How many times as many images a second come out: small sets decoded once, every image each time, all in memory.

    Args:
        options: the benchmark's.
        data: a checked data set.
        hyp: hyperparameters; every image is a mosaic, and none is mixed or pasted into.
    """
    recipe = {**hyp, "mosaic": 1.0, "mixup": 0.0, "copy_paste": 0.0}
    for manner, (cache, in_memory) in _MANNERS.items():
        dataset = LoadImagesAndLabels(
            data["train"], options.imgsz, augment=True, hyp=recipe, cache_images=cache, prefix="train: ",
            nc=data["nc"], names=data["names"],
        )  # fmt: skip
        count = min(len(dataset), options.images)
        runs = {
            "textbook": _making(Textbook(dataset, in_memory).__getitem__, count),
            "ours": _making(dataset.__getitem__, count),
        }
        for run in runs.values():
            run()
        rounds = Rounds(options.repeats, options.repeats, 0.0)
        seconds = interleaved_rounds(runs, torch.device("cpu"), rounds, time.thread_time)
        textbook, ours = (1e3 * statistics.median(taken) / count for taken in seconds.values())
        about = f"{textbook:.2f} ms of a core for an image as textbooks do it, {ours:.2f} ms as we do"
        yield Figure(f"data pipeline, {manner}", about, ratios(seconds), _TARGET, at_most=False)


def _making(make: Callable[[int], object], count: int) -> Callable[[], None]:
    """What makes the first so many items."""

    def run() -> None:
        for index in range(count):
            make(index)

    return run
