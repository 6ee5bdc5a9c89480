"""What a user is told when a training has asked for more memory than there is."""

from __future__ import annotations

from engine.autobatch import batch_that_fits
from engine.setup import optimizer_name, training_size
from engine.trainer import Trainer
from utils.dist import world_size

_MOMENTS = {"SGD": 1}  # tensors that an optimizer keeps of each parameter; two in all others


def advice(trainer: Trainer, said: str) -> str:
    """Which batch size goes through instead, by trying; the trainer's state is used up by that.

    Args:
        trainer: whose epoch has failed.
        said: the error's first line.
    """
    options, processes = trainer.options, world_size()
    size = int(1.5 * trainer.imgsz) if options.multi_scale else trainer.imgsz
    trainer.optimizer.zero_grad(set_to_none=True)
    moments = 0 if trainer.optimizer.state else _MOMENTS.get(optimizer_name(options, trainer.hyp), 2)
    fits = batch_that_fits(
        trainer.model,
        training_size(trainer.model, size),
        trainer.device,
        trainer.precision,
        below=min(trainer.batch_size // processes, len(trainer.loaders.dataset)),
        spare=moments * sum(parameter.nbytes for parameter in trainer.model.parameters()),
    )
    found = f"--batch-size {fits * processes} went through a trial here" if fits else "no smaller batch fits either"
    kept = f"; {trainer.folder.last} is from before" if trainer.folder.last.exists() else ""
    return f"--batch-size {trainer.batch_size} at {size} px: out of memory ({said}); {found}, or lower --imgsz{kept}"
