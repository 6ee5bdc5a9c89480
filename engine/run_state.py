"""The state of a training between two epochs: into a checkpoint, and out of it again without a trace.

What is taken along is all that the next epoch depends on: weights and their average, optimizer, loss scaler, counters,
the early-stopping rule, class figures that steer image weights, gradients that wait for their step, and the random
generators of every process. Order and augmentation of the images follow from seed and epoch and need no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from engine.precision import Precision
from engine.run_files import timestamp
from models.checkpoint import Checkpoint, ModelMeta
from utils.dist import all_gather, rank, world_size
from utils.errors import CheckpointError, first_line
from utils.log import LOGGER
from utils.seeding import random_state, restore_random_state

if TYPE_CHECKING:
    from engine.trainer import Trainer


_PRECISIONS = {None: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def precision_of(checkpoint: Checkpoint, device: torch.device) -> Precision | None:
    """The precision that a run has decided on, when it goes on on the same kind of device; else None."""
    extra = checkpoint.extra
    if extra.get("device") != device.type:
        LOGGER.warning(f"the run was on {extra.get('device')}, now on {device.type}: it goes on, but not exactly")
        return None
    dtypes = {name: dtype for dtype, name in _PRECISIONS.items()}
    return Precision(device, dtypes.get(extra.get("precision")))


def capture(trainer: Trainer) -> Checkpoint:
    """All that is needed to go on as if nothing had happened, after an epoch or in the middle of one.

    Every process must call it. The checkpoint's epoch is the last whole one.
    """
    progress, stopper = trainer.progress, trainer.stopper
    return Checkpoint(
        model=trainer.model.state_dict(),
        meta=ModelMeta.of(trainer.model),
        ema=trainer.ema.ema.state_dict(),
        epoch=progress.epoch - 1 if progress.batches else progress.epoch,
        best_fitness=progress.best_fitness,
        updates=trainer.ema.updates,
        optimizer=trainer.optimizer.state_dict(),
        opt={**trainer.options.to_dict(), "save_dir": str(trainer.folder.root)},
        date=timestamp(),
        extra={
            "last_step": progress.last_step,
            "unfinished": {"batches": progress.batches, "sums": all_gather(list(progress.sums))},
            "figures": list(progress.figures),
            "class_map": torch.from_numpy(progress.class_map),
            "early_stopping": {
                "best_fitness": float(stopper.best_fitness),
                "best_epoch": stopper.best_epoch,
                "possible_stop": stopper.possible_stop,
                "stopped": stopper.stopped,
            },
            "batch_size": trainer.batch_size,
            "device": trainer.device.type,
            "precision": _PRECISIONS[trainer.precision.dtype],
            "scaler": trainer.scaler.state_dict(),
            "balance": list(trainer.loss.balance),
            "random": all_gather(random_state()),
            "pending_gradients": _pending_gradients(trainer.model),
        },
    )


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Put a trainer, built and prepared with the options of the run, into the state after the checkpoint's epoch.

    Raises:
        CheckpointError: when model or optimizer are others than the checkpoint's.
    """
    extra = checkpoint.extra
    try:
        trainer.model.load_state_dict(checkpoint.model)
        trainer.ema.ema.load_state_dict(checkpoint.ema)
        for network in (trainer.model, trainer.ema.ema):
            network.model[-1].forget_grids()  # which hold the anchors that were there before
        trainer.optimizer.load_state_dict(_stepping_as(trainer.optimizer, checkpoint.optimizer))
        if extra["scaler"] and trainer.scaler.is_enabled():
            trainer.scaler.load_state_dict(extra["scaler"])
        trainer.ema.updates = int(checkpoint.updates)
        trainer.loss.balance = list(extra["balance"])
        _restore_progress(trainer, checkpoint)
        _restore_epoch(trainer, extra)
        _restore_gradients(trainer.model, extra["pending_gradients"])
        _restore_generators(extra["random"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint of {trainer.folder.root}: does not fit the run it lies in ({first_line(error)}); are "
            "opt.yaml and the data those that it was trained with?"
        ) from error


def _stepping_as(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state for another one, which goes on taking fused steps or not: not every device can."""
    groups = [
        {**group, "fused": own["fused"]} if "fused" in own else group
        for group, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {**state, "param_groups": groups}


def _restore_progress(trainer: Trainer, checkpoint: Checkpoint) -> None:
    extra, progress = checkpoint.extra, trainer.progress
    progress.epoch = checkpoint.epoch + 1
    progress.best_fitness = checkpoint.best_fitness
    progress.last_step = extra["last_step"]
    progress.figures = tuple(extra["figures"])
    progress.class_map = extra["class_map"].numpy().astype(np.float64)
    trainer.stopper.restore(**extra["early_stopping"], epoch=checkpoint.epoch)


def _restore_epoch(trainer: Trainer, extra: Mapping[str, Any]) -> None:
    """How far an epoch had come, where the checkpoint was written in the middle of one."""
    unfinished = extra.get("unfinished")
    if not unfinished or not unfinished["batches"]:
        return
    sums, place = unfinished["sums"], max(rank(), 0)
    trainer.progress.batches = min(unfinished["batches"], len(trainer.loaders.train))
    trainer.progress.sums = tuple(sums[min(place, len(sums) - 1)])


def _pending_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients that wait for their step when an epoch ends between two."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _restore_gradients(model: nn.Module, gradients: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, gradient in gradients.items():
        parameters[name].grad = torch.empty_like(parameters[name]).copy_(gradient)


def _restore_generators(states: list[dict[str, Any]]) -> None:
    """Each process takes its own generators' state; more processes than before start theirs from the seed."""
    if len(states) != world_size():
        LOGGER.warning(f"the run had {len(states)} process(es), now {world_size()}: it goes on, but not exactly")
    place = max(rank(), 0)
    if place < len(states):
        restore_random_state(states[place])
