"""Growth of the loader: an epoch of augmented training batches, by worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch

from engine.benchmarks.growth_curves import MEMORY, TIME, Curve, Point
from engine.benchmarks.interleaved import Rounds, interleaved
from engine.setup import load_hyperparameters
from utils.datasets.batching import EpochLoader, create_dataloader
from utils.datasets.shapes import draw_shapes

_BATCH, _STRIDE = 16, 32
_CPU = torch.device("cpu")


def measure_loader(
    counts: Iterable[int], scratch: Path, *, images: int, imgsz: int, repeats: int, processes: Path = Path("/proc")
) -> list[Curve]:
    """Measure loaders with so many workers; their epochs take turns.

    Args:
        counts: worker processes of each loader; 0 loads in this process.
        scratch: where the images are drawn, in a folder of its own.
        images: of an epoch.
        imgsz: px that they are loaded at.
        repeats: rounds.
        processes: where Linux tells about processes.

    Returns:
        Seconds of an epoch once the workers run, and the bytes that all workers have for themselves alone, which is
        left out where the system does not tell. Loaders that get fewer workers than asked for are left out.
    """
    folder = scratch / "shapes"
    draw_shapes(folder, {"train": images})
    hyp = load_hyperparameters("hyp.scratch-low.yaml")
    loaders: dict[int, EpochLoader] = {}
    own: dict[int, int | None] = {}
    left_out = []
    for count in sorted(set(counts)):
        loader, _ = create_dataloader(
            folder / "images" / "train", imgsz, _BATCH, _STRIDE, hyp=hyp, augment=True, workers=count, shuffle=True
        )
        if loader.num_workers < count:
            left_out.append(f"{count}, as there are processors for {loader.num_workers}")
            continue
        before = {child.pid for child in multiprocessing.active_children()}
        _load(loader)  # starts the workers
        started = [child.pid for child in multiprocessing.active_children() if child.pid not in before]
        loaders[count], own[count] = loader, private_bytes(started, processes)
    runs = {count: partial(_load, loader) for count, loader in loaders.items()}
    times = interleaved(runs, _CPU, Rounds(repeats, repeats, 0.0))
    seconds = tuple(Point(count, taken, images / max(count, 1)) for count, taken in times.items())
    held = tuple(Point(count, figure, max(count, 1)) for count, figure in own.items() if figure is not None)
    return [
        Curve("workers", TIME, "an epoch", "images a process", seconds, tuple(left_out)),
        Curve("workers", MEMORY, "all workers", "workers", held, tuple(left_out)),
    ]


def private_bytes(pids: Iterable[int], processes: Path = Path("/proc")) -> int | None:
    """Memory that processes share with nobody, all together; None where the system does not tell.

    Args:
        pids: numbers of the processes.
        processes: where Linux tells about them.
    """
    total = 0
    for pid in pids:
        try:
            text = (processes / str(pid) / "smaps_rollup").read_text(encoding="utf-8")
        except OSError:
            return None
        fields = [line.split() for line in text.splitlines() if line.startswith("Private_")]
        total += sum(1024 * int(field[1]) for field in fields)
    return total


def _load(loader: EpochLoader) -> int:
    """One epoch; returns its images."""
    return sum(len(images) for images, _, _, _ in loader)
