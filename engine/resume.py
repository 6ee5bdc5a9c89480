"""``--resume``: finding a run, its options and its state.

A run goes on in its own folder with the options of its ``opt.yaml``; what the command line may change is listed here.
The state itself is put back by ``run_state``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.options.continued import continued_options
from engine.options.train import TrainOptions
from engine.run_files import RunFolder
from models.checkpoint import Checkpoint, read_checkpoint
from models.upstream_file import read_upstream
from utils.errors import CheckpointError, OptionError
from utils.log import LOGGER
from utils.paths import get_latest_run
from utils.yaml_io import yaml_load

# What may differ without making another training of it: where things are, how fast, how long, what is kept.
CHANGEABLE = frozenset(
    {
        *("epochs", "patience", "data", "download", "device", "workers", "cache"),
        *("nosave", "noval", "noplots", "save_period"),
    }
)
_ABOUT_THE_FOLDER = frozenset({"resume", "project", "name", "exist_ok"})  # a resumed run has its own
_NOT_OPTIONS = frozenset({"hyp", "save_dir"})  # what opt.yaml holds besides


@dataclass
class ResumedRun:
    """A run to go on with.

    Attributes:
        options: its own, with the permitted changes.
        hyp: its hyperparameters.
        folder: where it lives.
        last: file of its state.
        checkpoint: its state after its last whole epoch, until it is taken.
    """

    options: TrainOptions
    hyp: dict[str, Any]
    folder: RunFolder
    last: Path
    checkpoint: Checkpoint | None

    def take(self) -> Checkpoint:
        """Hand the state over, so that its memory is free again once it is put back."""
        checkpoint, self.checkpoint = self.checkpoint, None
        return checkpoint


def find_run(asked: TrainOptions) -> ResumedRun:
    """Find the run that ``--resume`` means, and what it needs to go on.

    Args:
        asked: the command's options; ``resume`` is True for the newest ``last*.pt`` below the current folder, or the
            path of a checkpoint or run folder.

    Raises:
        CheckpointError: when there is none, or it holds no training state.
        ConfigError: when its ``opt.yaml`` is missing or wrong.
        OptionError: when it has no epoch left.
    """
    last = _locate(asked.resume)
    checkpoint = read_checkpoint(last)
    if checkpoint.optimizer is None or not checkpoint.extra:
        raise CheckpointError(f"--resume {last}: {_why_it_cannot_go_on(last)}")
    inside = last.parent if last.parent.name else last.resolve().parent
    folder = RunFolder(inside.parent if inside.name == "weights" else inside)
    _refuse_older(checkpoint, last, folder)
    stored = {**checkpoint.opt, **yaml_load(folder.options)}  # a file that was cut short must not bring defaults back
    own = {name: value for name, value in stored.items() if name not in _NOT_OPTIONS}
    _tell_of_edits(own, checkpoint.opt, folder.options)
    options = continued_options(
        asked, own, changeable=CHANGEABLE, ignored=_ABOUT_THE_FOLDER, file=folder.options, what="run"
    )
    run = ResumedRun(options, _hyperparameters(stored, folder), folder, last, checkpoint)
    _require_epochs_left(run)
    return run


def _why_it_cannot_go_on(file: Path) -> str:
    """What a checkpoint without the state of a training is, and what to do with it."""
    instead = f"start a new training with --weights {file}"
    if read_upstream(file) is None:
        return f"holds weights only, no training state; give the run's last.pt, or {instead}"
    return (
        "a checkpoint that YOLOv5 has written; its training cannot be gone on with here bit for bit, as the file lacks "
        f"the states of the random numbers, of the schedule and of mixed precision; {instead}"
    )


def _refuse_older(checkpoint: Checkpoint, asked: Path, folder: RunFolder) -> None:
    """Keep a run's later epochs from being overwritten by going on with an earlier one."""
    if asked.name == folder.last.name or not folder.last.is_file():
        return
    newest = read_checkpoint(folder.last).epoch
    if checkpoint.epoch < newest:
        raise OptionError(
            f"--resume {asked}: is of epoch {checkpoint.epoch}, but {folder.last} of epoch {newest}: going on would "
            f"overwrite what came later; copy the run folder first, and put {asked.name} in place of its last.pt"
        )


def _locate(wanted: Any) -> Path:
    """The checkpoint that is meant."""
    if wanted is True:
        newest = get_latest_run()
        if not newest:
            raise CheckpointError(
                f"--resume: no last*.pt anywhere below {Path.cwd()}; give the path of a run's last.pt"
            )
        return Path(newest)
    path = Path(str(wanted))
    candidates = [path / "weights" / "last.pt", path / "last.pt"] if path.is_dir() else [path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise CheckpointError(f"--resume {wanted}: no such checkpoint; give the path of a run's last.pt")
    return found


def _tell_of_edits(stored: Mapping[str, Any], was: Mapping[str, Any], file: Path) -> None:
    """Warn of options in the run's file that are not what it was last trained with."""
    for name, value in was.items():
        if name in stored and name not in CHANGEABLE | _ABOUT_THE_FOLDER and stored[name] != value:
            LOGGER.warning(f"{file}: {name} is {stored[name]!r}, but the run was trained with {value!r}")


def _hyperparameters(stored: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    hyp = stored.get("hyp")
    if isinstance(hyp, Mapping):
        return dict(hyp)
    return yaml_load(folder.hyp)


def _require_epochs_left(run: ResumedRun) -> None:
    """Refuse a run that has nothing left to do; one that was cut off before its final check still has that."""
    done, wanted = run.checkpoint.epoch + 1, run.options.epochs
    stopping = run.checkpoint.extra["early_stopping"]
    waited = run.checkpoint.epoch - stopping["best_epoch"]
    out_of_patience = stopping["stopped"] and 0 < run.options.patience <= waited
    if (done < wanted and not out_of_patience) or (done <= wanted and run.folder.best_is_unchecked()):
        return
    if out_of_patience and done < wanted:
        raise OptionError(
            f"--resume {run.last}: this run ended after {done} epochs, {waited} of them without a better fitness; give "
            "--patience with a higher number (0 never stops) to go on"
        )
    raise OptionError(
        f"--resume {run.last}: this run has done its {done} epochs, and --epochs {wanted} asks for no more; give a "
        "higher number, or the folder of another run"
    )
