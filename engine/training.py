"""A training run from start to end: run folder, epochs, then the final check of the best weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.callbacks import Callbacks
from engine.evaluator import EvalResult, Thresholds, evaluate
from engine.failures import explained
from engine.options.train import TrainOptions
from engine.results import evaluation_header, evaluation_table
from engine.resume import ResumedRun, find_run, trim_results
from engine.run_files import RunFolder
from engine.run_plots import EvalPlots
from engine.setup import load_data, load_hyperparameters
from engine.tensorboard import CurveLog
from engine.trainer import Trainer
from engine.val_outputs import is_coco
from models.loading import attempt_load
from utils.devices import select_device
from utils.dist import from_main, is_main, local_rank, main_first, process_group, world_size
from utils.errors import BackendError, OptionError
from utils.log import LOGGER
from utils.paths import increment_path
from utils.stripping import strip_optimizer

COCO_IOU = 0.65  # NMS threshold that published COCO figures are measured with


def train_from_options(options: TrainOptions) -> Path:
    """Run the command; returns the run folder."""
    with _main_speaks():
        resumed = find_run(options) if options.resume else None
        chosen = options if resumed is None else resumed.options
        device = training_device(chosen)
        with process_group(device):
            if resumed is not None:
                hyp = load_hyperparameters(resumed.hyp)
                _train(resumed.options, hyp, device, resumed.folder.root, resumed=resumed)
                return resumed.folder.root
            save_dir = from_main(increment_path(Path(chosen.project) / chosen.name, exist_ok=chosen.exist_ok))
            train_run(chosen.hyp, chosen, device, save_dir)
            return save_dir


@contextmanager
def _main_speaks() -> Iterator[None]:
    """Keep all processes but the main one from saying the same things once more; errors they still report."""
    before = LOGGER.level
    if not is_main():
        LOGGER.setLevel("ERROR")
    try:
        yield
    finally:
        LOGGER.setLevel(before)


def training_device(options: TrainOptions) -> torch.device:
    """The device of this process.

    Raises:
        OptionError: when the batch cannot be shared out, or the options make no sense for several processes.
        BackendError: when there are more processes than GPUs on this machine.
    """
    processes = world_size()
    device = select_device(options.device, batch_size=max(options.batch_size, 0) if processes == 1 else 0)
    if processes == 1:
        if "," in options.device:
            LOGGER.warning(
                f"--device {options.device}: one process trains on one GPU, here {device}; for several start "
                "torchrun --nproc_per_node N train.py ..."
            )
        return device
    if options.evolve is not None or options.resume_evolve is not None:
        raise OptionError("--evolve works in a single process: start python train.py without torchrun")
    if options.batch_size == -1:
        raise OptionError(f"--batch-size -1 measures one GPU; give the total for the {processes} processes")
    if options.batch_size % processes:
        raise OptionError(f"--batch-size {options.batch_size}: expected a multiple of the {processes} processes")
    if options.quad and options.batch_size // processes < 4:
        raise OptionError(f"--batch-size {options.batch_size}: --quad needs 4 images or more in each process")
    if device.type != "cuda":
        return device
    if local_rank() >= torch.cuda.device_count():
        raise BackendError(
            f"torch sees {torch.cuda.device_count()} CUDA devices here, but torchrun started process {local_rank()}: "
            "give --nproc_per_node the number of GPUs"
        )
    own = torch.device("cuda", max(local_rank(), 0))
    torch.cuda.set_device(own)
    return own


def train_run(
    hyp: str | Path | Mapping[str, Any],
    options: TrainOptions,
    device: torch.device,
    save_dir: str | Path,
    events: Any = None,
    *,
    curves: bool = True,
) -> tuple[float, ...]:
    """Train, then check the best weights with plots.

    Args:
        hyp: hyperparameters or their file.
        options: the command's options.
        device: where to train.
        save_dir: the run folder.
        events: called as ``events.run(name, **facts)``, see ``engine.callbacks``; None calls nobody.
        curves: write TensorBoard events where TensorBoard is installed.

    Returns:
        P, R, mAP50, mAP50-95, box, obj and cls loss of the best weights.
    """
    return _train(options, load_hyperparameters(hyp), device, Path(save_dir), events=events, curves=curves)


def _train(
    options: TrainOptions,
    hyp: Mapping[str, float],
    device: torch.device,
    save_dir: Path,
    *,
    resumed: ResumedRun | None = None,
    events: Any = None,
    curves: bool = True,
) -> tuple[float, ...]:
    """A new run, or the rest of one; see :func:`train_run`."""
    data = load_data(options)
    folder = RunFolder(save_dir)
    trainer = Trainer(options, hyp, data, device, folder, resumed.checkpoint if resumed else None)
    trainer.build()
    first_epoch = resumed.checkpoint.epoch + 1 if resumed else 0
    if is_main():
        folder.create()  # not before the model stands: a mistake in its files should leave no empty run behind
        folder.write_settings(options.to_dict(), hyp)
        trim_results(folder.csv, first_epoch - 1)  # with --exist-ok another run may have left all of its own
        if resumed:
            LOGGER.info(f"going on with {folder.root} after epoch {first_epoch - 1}")
        trainer.callbacks = Callbacks(CurveLog(folder.root, first_epoch=first_epoch) if curves else None, events)
    trainer.prepare()
    result = trainer.fit()
    final = check_best(trainer) or result
    LOGGER.info(f"results in {folder.root}")
    summary = final.summary if final is not None else trainer.progress.figures
    if is_main():
        trainer.callbacks.run("on_train_end", results=summary, save_dir=folder.root)
    return summary


def check_best(trainer: Trainer) -> EvalResult | None:
    """Strip ``best.pt`` and evaluate what is in the file, in float32; None when no epoch wrote one."""
    best = trainer.folder.best
    with main_first():
        if is_main() and best.exists():
            strip_optimizer(best)
    if not best.exists():
        return None
    LOGGER.info(f"\nchecking {best}")
    names = trainer.classes.names
    plots = EvalPlots(trainer.folder.root, names) if not trainer.options.noplots else None
    thresholds = Thresholds(iou=COCO_IOU) if is_coco(trainer.data) else Thresholds()
    with explained():
        result = evaluate(
            attempt_load(best, trainer.device),
            trainer.loaders.val,
            device=trainer.device,
            nc=trainer.classes.nc,
            names=names,
            thresholds=thresholds,
            single_cls=trainer.options.single_cls,
            compute_loss=trainer.loss,
            confusion=plots is not None,
            observers=[plots] if plots else [],
            progress=evaluation_header(),
        )
    for row in evaluation_table(result, names, every_class=True):
        LOGGER.info(row)
    if plots and is_main():  # the batches' pictures come from every process, each of its own batches
        plots.finish(result)
    return result


def as_train_options(options: Any) -> TrainOptions:
    """Options from whatever has their names as attributes, such as an argparse Namespace."""
    if isinstance(options, TrainOptions):
        return options
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    return TrainOptions.from_kwargs(**{name: value for name, value in vars(options).items() if name in known})
