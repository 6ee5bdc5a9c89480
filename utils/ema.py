"""A moving average of a model's weights, and the rule that ends training when nothing improves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection

import torch
from torch import nn

from utils.devices import de_parallel


def ramped_decay(decay: float, tau: float) -> Callable[[int], float]:
    """Decay as a function of the number of updates: small at first, when the weights still change fast."""
    return lambda updates: decay * (1 - math.exp(-updates / tau))


class ModelEMA:
    """Exponential moving average of everything in a model's state that is floating point.

    Args:
        model: the model in training; may be wrapped in DDP. It is copied, the copy is in eval mode without gradients.
        decay: share of the old average in each update, once ramped up.
        tau: updates after which the decay has come to 63 %.
        updates: updates already made, when going on from a checkpoint.

    Attributes:
        ema: the averaged copy.
        updates: number of updates so far.
        decay: function from the number of updates to the decay.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000, updates: int = 0):
        self.ema = copy.deepcopy(de_parallel(model)).eval()
        self.ema.requires_grad_(False)
        self.updates = updates
        self.decay = ramped_decay(decay, tau)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average toward the model's present state; whole-number entries stay as they are."""
        self.updates += 1
        current = de_parallel(model).state_dict()
        averaged, latest = [], []
        for name, value in self.ema.state_dict().items():
            if value.is_floating_point():
                averaged.append(value)
                latest.append(current[name].detach().to(value.device, value.dtype))
        # One fused call; a step toward the new value leaves entries that never change (anchors, frozen layers) exact.
        torch._foreach_lerp_(averaged, latest, 1 - self.decay(self.updates))

    def update_attr(
        self, model: nn.Module, include: Collection[str] = (), exclude: Collection[str] = ("process_group", "reducer")
    ) -> None:
        """Copy plain attributes of the model to the average.

        Args:
            model: where they are read.
            include: only these names; all when empty.
            exclude: never these, nor names with a leading underscore.
        """
        for name, value in vars(de_parallel(model)).items():
            wanted = name in include if include else True
            if wanted and name not in exclude and not name.startswith("_"):
                setattr(self.ema, name, value)


class EarlyStopping:
    """Tells when fitness has not risen for a number of epochs.

    Args:
        patience: epochs to wait; 0 waits for ever.
        best_fitness: the best so far, when going on from a checkpoint.
        best_epoch: the epoch it was reached in.

    Attributes:
        best_fitness: highest fitness seen.
        best_epoch: first epoch that reached it.
        possible_stop: the next epoch may be the last.
        stopped: patience has run out.
    """

    def __init__(self, patience: int = 30, *, best_fitness: float = 0.0, best_epoch: int = 0):
        self.patience = patience or math.inf
        self.best_fitness = best_fitness
        self.best_epoch = best_epoch
        self.possible_stop = False
        self.stopped = False

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Note an epoch's fitness and say whether to stop.

        Args:
            epoch: its number.
            fitness: only a strictly higher one counts as better.
        """
        if fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
        waited = epoch - self.best_epoch
        self.possible_stop = waited >= self.patience - 1
        self.stopped = waited >= self.patience
        return self.stopped

    def restore(self, best_fitness: float, best_epoch: int, possible_stop: bool, stopped: bool, epoch: int) -> None:
        """Go on from where another one stood, with a patience of one's own.

        Args:
            best_fitness: as its attribute was.
            best_epoch: likewise.
            possible_stop: likewise.
            stopped: likewise.
            epoch: the last one it had noted.
        """
        self.best_fitness, self.best_epoch = best_fitness, best_epoch
        waited = epoch - best_epoch
        self.possible_stop = possible_stop and waited >= self.patience - 1
        self.stopped = stopped and waited >= self.patience
