"""An epoch of training, beside forward and backward alone on as many batches of noise."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from engine.benchmarks.figures import Figure, ratios
from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.options.train import TrainOptions
from engine.run_files import RunFolder
from engine.setup import load_hyperparameters
from engine.trainer import Trainer
from utils.network_input import memory_format

_LIMIT = 1.15


class TrainingBench:
    """A training run whose epochs are timed; leaving it ends the loader's processes.

    Args:
        options: the benchmark's.
        data: a checked data set.
        device: where to train.
        scratch: folder for the run.

    Attributes:
        trainer: the run.
    """

    def __init__(
        self, options: PipelineBenchmarkOptions, data: Mapping[str, Any], device: torch.device, scratch: Path
    ) -> None:
        self._rounds = options.epochs
        settings = TrainOptions.from_kwargs(
            weights="",
            cfg=options.cfg,
            data=options.data,
            epochs=options.epochs + 1,
            batch_size=options.batch_size,
            imgsz=options.imgsz,
            device=options.device,
            workers=options.workers,
            noplots=True,
        )
        hyp = load_hyperparameters(settings.hyp)
        self.trainer = Trainer(settings, hyp, data, device, RunFolder(scratch / "train"))
        self.trainer.build()
        self.trainer.prepare()
        self._bare = copy.deepcopy(self.trainer.model).train()
        self._epoch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.trainer.loaders

    def measure(self) -> Figure:
        """Time epochs and bare passes by turns."""
        batches = len(self.trainer.loaders.train)
        runs = {"epoch": self._train, "bare": self._pass_noise}
        for run in runs.values():
            run()
        device = self.trainer.device
        seconds = interleaved_rounds(runs, device, Rounds(self._rounds, self._rounds, 0.0))
        epoch, bare = (1e3 * statistics.median(taken) / batches for taken in seconds.values())
        about = f"{epoch:.0f} ms a batch, forward and backward alone {bare:.0f} ms; {batches} batches"
        return Figure("training: an epoch", about, ratios(seconds), _LIMIT)

    def _train(self) -> None:
        self.trainer.train_epoch(self._epoch)
        self.trainer.progress.end_epoch()
        self._epoch += 1

    def _pass_noise(self) -> None:
        trainer = self.trainer
        left = len(trainer.loaders.dataset)
        while left > 0:
            count = min(left, trainer.batch_size)
            left -= count
            noise = torch.rand(count, 3, trainer.imgsz, trainer.imgsz, device=trainer.device)
            images = noise.contiguous(memory_format=memory_format(trainer.device))
            with trainer.precision.autocast():
                levels = self._bare(images)
            sum(level.float().mean() for level in levels).backward()
            self._bare.zero_grad(set_to_none=True)
