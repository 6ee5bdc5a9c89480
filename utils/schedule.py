"""Learning rate, momentum and gradient accumulation as functions of the iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch.optim import Optimizer

NOMINAL_BATCH = 64  # the batch size that hyperparameters are written for
MIN_WARMUP = 100  # iterations


class StepSettings(NamedTuple):
    """What one iteration runs with."""

    lr: tuple[float, float, float]  # of biases, weights with decay, norm weights
    momentum: float
    accumulate: int  # batches whose gradients make one optimizer step


def linear_factor(lrf: float, epochs: int) -> Callable[[float], float]:
    """Share of the first learning rate at an epoch, falling evenly from 1 to ``lrf``."""
    return lambda epoch: lrf + (1 - lrf) * (1 - epoch / epochs)


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Half a cosine wave from ``y1`` at 0 to ``y2`` at ``steps``."""
    return lambda step: y1 + (y2 - y1) * (1 - math.cos(math.pi * step / steps)) / 2


class WarmupSchedule:
    """The training schedule: warm-up, then a straight or cosine fall of the learning rate, epoch by epoch.

    In the warm-up the biases' learning rate falls from ``warmup_bias_lr`` and the others' rise from 0, both to what the
    epoch asks for; momentum rises, and gradients are accumulated over ever more batches.

    Args:
        hyp: hyperparameters with ``lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr``.
        epochs: length of the training.
        batches_per_epoch: iterations in an epoch.
        batch_size: images in a batch, over all ranks.
        cosine: fall along a cosine instead of a straight line.
        nominal_batch: batch size that accumulation aims at.

    Attributes:
        warmup: number of warm-up iterations.
        accumulate: batches per optimizer step after the warm-up.
        weight_decay: decay, scaled to the images that really make a step.
    """

    def __init__(
        self,
        hyp: Mapping[str, Any],
        epochs: int,
        batches_per_epoch: int,
        batch_size: int,
        cosine: bool = False,
        nominal_batch: int = NOMINAL_BATCH,
    ):
        self.hyp = hyp
        self.batches_per_epoch = batches_per_epoch
        self.warmup = max(round(hyp["warmup_epochs"] * batches_per_epoch), MIN_WARMUP)
        self.factor = one_cycle(1.0, hyp["lrf"], epochs) if cosine else linear_factor(hyp["lrf"], epochs)
        self._batches_per_step = nominal_batch / batch_size
        self.accumulate = max(round(self._batches_per_step), 1)
        self.weight_decay = hyp["weight_decay"] * batch_size * self.accumulate / nominal_batch

    def at(self, iteration: int) -> StepSettings:
        """Settings of an iteration, counted from 0 over all epochs."""
        hyp = self.hyp
        target = hyp["lr0"] * self.factor(iteration // self.batches_per_epoch)
        if iteration > self.warmup:
            return StepSettings((target, target, target), hyp["momentum"], self.accumulate)
        progress = iteration / self.warmup
        rising = _between(0.0, target, progress)
        return StepSettings(
            lr=(_between(hyp["warmup_bias_lr"], target, progress), rising, rising),
            momentum=_between(hyp["warmup_momentum"], hyp["momentum"], progress),
            accumulate=max(1, round(_between(1, self._batches_per_step, progress))),
        )

    def apply(self, optimizer: Optimizer, iteration: int) -> StepSettings:
        """Set an optimizer up for an iteration and return what was set.

        Args:
            optimizer: with the three groups of :func:`utils.optim.smart_optimizer`; momentum is set where it has one.
            iteration: counted from 0 over all epochs.
        """
        settings = self.at(iteration)
        for group, lr in zip(optimizer.param_groups, settings.lr, strict=True):
            group["lr"] = lr
            if "momentum" in group:
                group["momentum"] = settings.momentum
        return settings


def _between(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress
