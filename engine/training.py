"""A training run from start to end: run folder, epochs, then the final check of the best weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.evaluator import EvalResult, Thresholds, evaluate
from engine.options.train import TrainOptions
from engine.results import evaluation_header, evaluation_table
from engine.run_files import RunFolder
from engine.run_plots import EvalPlots
from engine.setup import load_data, load_hyperparameters
from engine.tensorboard import CurveLog
from engine.trainer import Trainer
from engine.val_outputs import is_coco
from models.loading import attempt_load
from utils.devices import select_device
from utils.dist import refuse_distributed
from utils.log import LOGGER
from utils.paths import increment_path
from utils.stripping import strip_optimizer

COCO_IOU = 0.65  # NMS threshold that published COCO figures are measured with


def train_from_options(options: TrainOptions) -> Path:
    """Run the command; returns the run folder."""
    refuse_distributed()
    device = select_device(options.device, batch_size=max(options.batch_size, 0))
    if "," in options.device:
        LOGGER.warning(f"--device {options.device}: one process trains on one GPU, here {device}")
    save_dir = increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok)
    train_run(options.hyp, options, device, save_dir)
    return save_dir


def train_run(
    hyp: str | Path | Mapping[str, Any],
    options: TrainOptions,
    device: torch.device,
    save_dir: str | Path,
    events: Any = None,
) -> tuple[float, ...]:
    """Train, then check the best weights with plots.

    Args:
        hyp: hyperparameters or their file.
        options: the command's options.
        device: where to train.
        save_dir: the run folder.
        events: called as ``events.run(name, **facts)``; None calls nobody.

    Returns:
        P, R, mAP50, mAP50-95, box, obj and cls loss of the best weights.
    """
    settings = load_hyperparameters(hyp)
    data = load_data(options)
    folder = RunFolder(Path(save_dir))
    trainer = Trainer(options, settings, data, device, folder)
    trainer.build()
    folder.create()  # not before the model stands: a mistake in its files should leave no empty run behind
    folder.write_settings(options.to_dict(), settings)
    log = CurveLog(folder.root)
    trainer.listeners += [listener for listener in (log, events) if listener is not None]
    trainer.prepare()
    result = trainer.fit()
    log.close()
    final = check_best(trainer) or result
    LOGGER.info(f"results in {folder.root}")
    summary = final.summary if final is not None else trainer.progress.figures
    if events is not None:
        events.run("on_train_end", results=summary, save_dir=folder.root)
    return summary


def check_best(trainer: Trainer) -> EvalResult | None:
    """Strip ``best.pt`` and evaluate what is in the file; None when no epoch wrote one."""
    best = trainer.folder.best
    if not best.exists():
        return None
    strip_optimizer(best)
    LOGGER.info(f"\nchecking {best}")
    names = trainer.classes.names
    plots = EvalPlots(trainer.folder.root, names) if not trainer.options.noplots else None
    thresholds = Thresholds(iou=COCO_IOU) if is_coco(trainer.data) else Thresholds()
    result = evaluate(
        attempt_load(best, trainer.device),
        trainer.loaders.val,
        device=trainer.device,
        nc=trainer.classes.nc,
        names=names,
        half=trainer.amp,
        thresholds=thresholds,
        single_cls=trainer.options.single_cls,
        compute_loss=trainer.loss,
        confusion=plots is not None,
        observers=[plots] if plots else [],
        progress=evaluation_header(),
    )
    for row in evaluation_table(result, names, every_class=True):
        LOGGER.info(row)
    if plots:
        plots.finish(result)
    return result


def as_train_options(options: Any) -> TrainOptions:
    """Options from whatever has their names as attributes, such as an argparse Namespace."""
    if isinstance(options, TrainOptions):
        return options
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    return TrainOptions.from_kwargs(**{name: value for name, value in vars(options).items() if name in known})
