"""A training run from start to end: run folder, epochs, then the final check of the best weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from engine.callbacks import Callbacks
from engine.evaluator import EvalResult, Thresholds, evaluate
from engine.failures import explained, is_out_of_memory
from engine.options.train import TrainOptions
from engine.out_of_memory import advice
from engine.results import ResultsCsv, evaluation_header, evaluation_table
from engine.resume import ResumedRun, find_run
from engine.run_files import RunFolder, claimed_folder, locked
from engine.run_plots import EvalPlots
from engine.setup import load_data, load_hyperparameters
from engine.tensorboard import CurveLog
from engine.trainer import Trainer
from engine.val_outputs import is_coco
from models.loading import attempt_load
from utils.atomic import clear_leftovers
from utils.datasets.quad_group import require_group
from utils.devices import select_device
from utils.dist import from_main, is_main, local_rank, main_first, process_group, world_size
from utils.errors import BackendError, OptionError, ProjectError, TrainingError, first_line
from utils.log import LOGGER, at_level
from utils.paths import make_folder
from utils.stripping import strip_optimizer

COCO_IOU = 0.65  # NMS threshold that published COCO figures are measured with


def train_from_options(options: TrainOptions) -> Path:
    """Run the command; returns the run folder."""
    with nullcontext() if is_main() else at_level(logging.ERROR):  # what all would say, the main process says
        resumed = find_run(options) if options.resume else None
        chosen = options if resumed is None else resumed.options
        device = training_device(chosen)
        if resumed is not None:
            hyp = load_hyperparameters(resumed.hyp)
            _train(resumed.options, hyp, device, resumed.folder.root, resumed=resumed)
            return resumed.folder.root
        wanted = Path(chosen.project) / chosen.name
        with process_group(device), claimed_folder(wanted, chosen.exist_ok) as save_dir:
            train_run(chosen.hyp, chosen, device, save_dir)
            return save_dir


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
    if options.quad:
        require_group(options.batch_size, processes)
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
    with process_group(device), explained(options.compile):
        data = load_data(options)
        folder = RunFolder(save_dir)
        first_epoch = resumed.checkpoint.epoch + 1 if resumed else 0
        trainer = Trainer(options, hyp, data, device, folder, resumed=resumed.take() if resumed else None)
        trainer.build()
        if is_main():
            trainer.callbacks = Callbacks(CurveLog(folder.root, first_epoch=first_epoch) if curves else None, events)
            make_folder(folder.root)
        with trainer.lock as lock:
            if is_main():
                lock.enter_context(locked(folder.root))
            trainer.prepare()
            if is_main():
                _open_folder(folder, options, hyp, first_epoch if resumed else None, trainer.progress.batches)
                if options.insert:
                    folder.write_network(trainer.model.yaml, options.insert)
            final = _fit_and_check(trainer)
        LOGGER.info(f"results in {folder.root}")
        summary = final.summary if final is not None else trainer.progress.figures
        if is_main():
            trainer.callbacks.run("on_train_end", results=summary, save_dir=folder.root)
        return summary


def _fit_and_check(trainer: Trainer) -> EvalResult | None:
    """All epochs, then the final check; whoever ends them is told how to go on."""
    try:
        result = _fit(trainer)
        return check_best(trainer) or result
    except (KeyboardInterrupt, SystemExit):
        LOGGER.info(f"\n{_how_to_go_on(trainer.folder)}")
        raise
    except (ProjectError, OSError) as error:
        if trainer.spoiled is None:  # the same batch would give the same again
            error.add_note(_how_to_go_on(trainer.folder))
        raise


def _fit(trainer: Trainer) -> EvalResult | None:
    """All epochs; where memory runs out, the error says which batch size goes through."""
    try:
        return trainer.fit()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = first_line(error)
    # the error is gone, and with it all that its step held
    raise TrainingError(advice(trainer, said))


def _open_folder(
    folder: RunFolder, options: TrainOptions, hyp: Mapping[str, Any], resumed: int | None, batch: int
) -> None:
    """Make the run folder ready and write down the settings; a run goes on with the epoch ``resumed`` at ``batch``.

    Not before model, data and state stand: a mistake there should leave nothing behind, and an older run in the same
    folder as it was.
    """
    folder.create()
    for place in (folder.root, folder.weights):
        clear_leftovers(place)
    if resumed is None:
        folder.forget_other_run()
    folder.write_settings(options.to_dict(), hyp)
    if resumed is not None:
        ResultsCsv(folder.csv).trim(resumed - 1)
        LOGGER.info(f"going on with {folder.root} at epoch {resumed}" + (f", batch {batch}" if batch else ""))


def _how_to_go_on(folder: RunFolder) -> str:
    """After an early end: whether there is something to resume, and how."""
    if folder.last.exists():
        return f"to go on from what is saved: python train.py --resume {folder.root}"
    return f"nothing was saved yet: there is nothing to resume in {folder.root}"


def check_best(trainer: Trainer) -> EvalResult | None:
    """Strip ``best.pt`` and evaluate what is in the file, in float32; None when no epoch wrote one.

    The stripped file takes its place last of all: a run that is cut off before is recognised and gets its check later.
    """
    best, stripped = trainer.folder.best, trainer.folder.weights / ".best.stripped.tmp"
    with main_first():
        if is_main() and best.exists():
            strip_optimizer(best, stripped)
    if not from_main(best.exists()):
        return None
    LOGGER.info(f"\nchecking {best}")
    names = trainer.classes.names
    plots = EvalPlots(trainer.folder.root, names) if not trainer.options.noplots else None
    thresholds = Thresholds(iou=COCO_IOU) if is_coco(trainer.data) else Thresholds()
    result = evaluate(
        attempt_load(stripped, trainer.device),
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
    if plots:
        plots.finish(result)
    if is_main():
        stripped.replace(best)
    return result


def as_train_options(options: Any) -> TrainOptions:
    """Options from whatever has their names as attributes, such as an argparse Namespace."""
    if isinstance(options, TrainOptions):
        return options
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    return TrainOptions.from_kwargs(**{name: value for name, value in vars(options).items() if name in known})
