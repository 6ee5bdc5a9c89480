"""``ablate.py``: a baseline and its variants, each trained once with every seed, and what the differences are worth.

All trainings have the same data, epochs, batches, recipe and, seed by seed, the same random draws; none ends early.
After every training all of the ablation is on disk. A process that is killed loses the epoch it was in, and
``--resume`` goes on as if it had never ended.
"""

from __future__ import annotations

import logging
import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from engine.ablation_files import FIGURES, Ablation, AblationFolder, Candidate, Outcome
from engine.ablation_report import csv_text, report, trainings_csv_text
from engine.ablation_start import begin_ablation, find_ablation, resume_ablation
from engine.ablation_summary import ModelSummary, summarise
from engine.evaluator import EvalResult
from engine.options.ablate import AblateOptions
from engine.options.train import TrainOptions
from engine.options.val import ValOptions
from engine.run_files import RunFolder, claimed_folder, locked
from engine.run_plots import drawing
from engine.training import train_from_options
from engine.validator import Given, validate
from models.checkpoint import read_checkpoint
from models.loading import attempt_load
from utils.ablation_chart import plot_ablation
from utils.atomic import replacing
from utils.devices import select_device
from utils.dist import world_size
from utils.errors import CheckpointError, OptionError, TrainingError
from utils.log import LOGGER, at_level
from utils.wording import counted, duration


@dataclass(frozen=True)
class AblationResult:
    """What an ablation found.

    Attributes:
        folder: where ``ablation.md``, ``ablation.csv``, ``trainings.csv``, ``ablation.png`` and the trainings are.
        models: a summary of each model, the baseline first.
        text: the report, Markdown.
    """

    folder: Path
    models: list[ModelSummary]
    text: str


def ablate(options: AblateOptions) -> AblationResult:
    """Begin or go on with an ablation, and finish it.

    Args:
        options: the command's options.

    Raises:
        OptionError: when the folder holds another ablation, or an option differs from those of the one to go on with.
        ConfigError: when a model, a recipe or the state on disk cannot be used.
        TrainingError: when every training with the first seed fails.
    """
    if world_size() > 1:
        raise OptionError(f"ablate.py works in a single process, torchrun started {world_size()}: start it without")
    if options.resume:
        folder = find_ablation(options.resume)
        with locked(folder.root):  # before its state is read: the process that has it may still add to it
            return _Run(resume_ablation(options, folder), folder).finish()
    with claimed_folder(Path(options.project) / options.name, options.exist_ok) as root, locked(root):
        folder = AblationFolder(root)
        folder.refuse_other()
        return _Run(begin_ablation(options), folder).finish()


class _Run:
    """The loop: next training, its figures, its place on disk."""

    def __init__(self, ablation: Ablation, folder: AblationFolder) -> None:
        self.ablation, self.folder, self.options = ablation, folder, ablation.options
        with at_level(logging.WARNING):
            self.device = select_device(self.options.device)
        self._to_go_on = f"python ablate.py --resume {shlex.quote(str(folder.root))}"
        self._spent: list[float] = []  # seconds of each training in this process

    def finish(self) -> AblationResult:
        """Run what is left, and write the reports."""
        self.folder.begin(self.ablation)
        self._announce()
        try:
            for candidate, seed in self.ablation.left():
                self._train(candidate, seed)
        except (KeyboardInterrupt, SystemExit):
            LOGGER.info(f"\nto go on: {self._to_go_on}")
            raise
        models, text = self._write(draw=True)
        LOGGER.info(f"\n{text.partition('## By slice')[0]}results in {self.folder.root}")
        return AblationResult(self.folder.root, models, text)

    def _announce(self) -> None:
        done, count = len(self.ablation.outcomes), self.ablation.trainings
        LOGGER.info(
            f"{counted(count, 'training')} of {counted(self.options.epochs, 'epoch')} each, {done} of them done; files "
            f"in {self.folder.root}\nafter an interruption go on with: {self._to_go_on}"
        )

    def _train(self, candidate: Candidate, seed: int) -> None:
        number = len(self.ablation.outcomes) + 1
        LOGGER.info(f"\ntraining {number} of {self.ablation.trainings}: {candidate.name}, seed {seed}")
        started = time.monotonic()
        outcome = self._outcome(candidate.name, seed)
        self.folder.add(self.ablation, outcome)
        self._spent.append(time.monotonic() - started)
        left = [one for one, other in self.ablation.left() if other == seed]
        self._write(draw=not left and number < self.ablation.trainings)
        said = outcome.failure or ", ".join(f"{name} {value:.4g}" for name, value in outcome.figures.items())
        rest = self.ablation.trainings - number
        to_go = f"; about {duration(rest * sum(self._spent) / len(self._spent))} to go" if rest else ""
        LOGGER.info(f"{candidate.name}, seed {seed}: {said}{to_go}")
        if not left and seed == self.options.seeds[0]:
            self._refuse_failure(outcome)

    def _refuse_failure(self, last: Outcome) -> None:
        """End when every model fails with the first seed: then it is not the models that are wrong."""
        if all(outcome.failure for outcome in self.ablation.outcomes if outcome.seed == last.seed):
            raise TrainingError(f"every training with seed {last.seed} failed; the last one: {last.failure}")

    def _outcome(self, name: str, seed: int) -> Outcome:
        """Train, or go on with a training that was cut off, and measure."""
        place = self.folder.training(name, seed)
        settings = self.options.training(str(self.folder.model(name)), str(self.folder.hyp), seed, place.root)
        try:
            train_to_the_end(settings, place)
            with at_level(logging.WARNING):
                result = self._measure(place)
        except TrainingError as error:
            LOGGER.warning(f"{name}, seed {seed}: this training failed: {error}")
            return Outcome(name, seed, failure=str(error))
        figures = dict(zip(FIGURES, map(float, result.summary), strict=False))
        if not all(map(math.isfinite, figures.values())):
            return Outcome(name, seed, failure=f"its figures are no numbers: {figures}")
        return Outcome(name, seed, figures, tuple(result.slices or ()))

    def _measure(self, place: RunFolder) -> EvalResult:
        """What ``val.py --slices`` says about the best weights."""
        options = self.options
        settings = ValOptions.from_kwargs(
            data=options.data,
            weights=[],
            batch_size=2 * options.batch_size,
            imgsz=options.imgsz,
            task=options.split,
            workers=options.workers,
            single_cls=options.single_cls,
            slices=True,
        )
        return validate(settings, Given(attempt_load(place.best, self.device), save_dir=place.root, plots=False))

    def _write(self, draw: bool) -> tuple[list[ModelSummary], str]:
        """Bring all reports up to date; the picture only when there is time for it."""
        models = summarise(self.ablation)
        text = report(self.ablation, models)
        _replace(self.folder.report, text)
        _replace(self.folder.csv, csv_text(models))
        _replace(self.folder.trainings_csv, trainings_csv_text(self.ablation))
        if draw:
            with drawing(self.folder.picture):
                plot_ablation([model.drawn() for model in models], self.folder.picture)
        return models, text


def train_to_the_end(settings: TrainOptions, folder: RunFolder) -> None:
    """Train; what was cut off goes on after its last whole epoch, what is over stays as it is.

    Args:
        settings: of the training, of which one that goes on takes what may change.
        folder: its run folder.
    """
    epochs = _epochs_done(folder)
    if epochs >= settings.epochs and not folder.best_is_unchecked():
        return
    if epochs:
        LOGGER.info(f"going on after epoch {epochs - 1} of {folder.root}")
        changes = {"workers": settings.workers, "cache": settings.cache}
        settings = TrainOptions.from_kwargs(resume=str(folder.root), **changes)
    with at_level(logging.WARNING):
        train_from_options(settings)


def _epochs_done(folder: RunFolder) -> int:
    """Whole epochs that a training has behind it; none when what it left is of no use."""
    if not folder.last.exists():
        return 0
    try:
        return read_checkpoint(folder.last).epoch + 1
    except CheckpointError as error:
        LOGGER.warning(f"{error}; this training begins anew")
        return 0


def _replace(file: Path, text: str) -> None:
    with replacing(file) as stream:
        stream.write(text)
