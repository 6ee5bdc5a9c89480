"""``--evolve``: a genetic search for augmentation hyperparameters, in which every individual is a whole training.

``--evolve N`` pays for N trainings (300 when no number follows) of ``--epochs`` epochs each; ``utils.genetics`` says by
which rule they are chosen. The first one has the hyperparameters of ``--hyp``, so that the best is never worse than
these; then come the files of ``--evolve_population``, then random values. The fitness is the mAP50 of a training's last
epoch, as every training is validated at its end only. All trainings have the same seed: what differs between two of
them is their hyperparameters.

After every training all of the evolution is on disk. A process that is killed loses the training it was in, and
``--resume_evolve`` goes on as if it had never ended.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from engine.evolution_files import EvolutionFolder, Search, read_search
from engine.options.continued import continued_options
from engine.options.train import TrainOptions
from engine.population import Individual, Population
from engine.setup import load_hyperparameters
from engine.training import train_run
from utils.errors import ConfigError, OptionError, TrainingError
from utils.genetics import LIMITS, Genes, misfits, population_size
from utils.log import LOGGER, at_level
from utils.paths import PROJECT_ROOT, increment_path
from utils.wording import counted, duration
from utils.yaml_io import yaml_load

EVOLVE_PROJECT = "runs/evolve"  # instead of the default of --project
# What may differ between the trainings of one evolution: where things are, how fast, how many.
CHANGEABLE = frozenset({"data", "device", "workers", "cache", "noplots", "evolve"})
_ABOUT_THE_FOLDER = frozenset({"resume_evolve", "evolve_population", "project", "name", "exist_ok"})
_NO_RESULTS = (0.0, 0.0, 0.0, 0.0, math.nan, math.nan, math.nan)  # of a training that failed

Train = Callable[[Mapping[str, float]], tuple[float, ...]]


def evolve(options: TrainOptions, device: torch.device) -> Path:
    """Run the search that ``--evolve`` or ``--resume_evolve`` asks for.

    Args:
        options: the command's options.
        device: where to train, as of :func:`engine.training.training_device`, which refuses several processes.

    Returns:
        The run folder.

    Raises:
        OptionError: when the run folder holds another evolution.
        ConfigError: when a folder or file that the options name cannot be used.
        TrainingError: when every training of the first generation fails.
    """
    if options.resume_evolve:
        search, options, folder = _resume(options)
    else:
        search, folder = _start(options)
    if options.batch_size == -1:
        LOGGER.warning("--batch-size -1 measures anew for each training; give a number to make the trainings alike")
    settings = training_options(options)

    def train(hyp: Mapping[str, Any]) -> tuple[float, ...]:
        with at_level(logging.WARNING), folder.workshop() as place:  # its lines are about a folder that does not stay
            return train_run(hyp, settings, device, place, curves=False)

    Evolution(search, folder, train, plots=not options.noplots).run()
    return folder.root


def training_options(options: TrainOptions) -> TrainOptions:
    """Options of one training inside an evolution: validated at its end, nothing drawn, nothing kept."""
    return dataclasses.replace(
        options, evolve=None, resume_evolve=None, noval=True, nosave=True, noplots=True, save_period=-1
    )


class Evolution:
    """The loop: next individual, its training, its place on disk.

    Args:
        search: where the evolution stands; it grows with every training.
        folder: where it is written.
        train: trains with all hyperparameters and returns P, R, mAP50, mAP50-95, box, obj and cls loss. It may leave
            files in a workshop of the folder; they are removed afterwards.
        plots: draw a picture after each generation.
    """

    def __init__(self, search: Search, folder: EvolutionFolder, train: Train, plots: bool = True) -> None:
        self.search, self.population, self.folder, self.train = search, search.population, folder, train
        self.plots = plots
        self._spent: list[float] = []  # seconds of each training in this process

    def run(self) -> None:
        """Train until the search is over.

        Raises:
            TrainingError: when every training of the first generation fails.
        """
        if self.population.trained:
            self.folder.begin(self.search)
        if self.population.is_over:
            LOGGER.warning(
                f"{self.folder.population}: all {counted(self.population.trainings, 'training')} are over; "
                "a higher --evolve goes on"
            )
        else:
            self._announce()
        while not self.population.is_over:
            self._refuse_failure()
            self._train(self.population.upcoming())
            if self.population.at_end_of_generation and not self.population.is_over:
                self._draw()
        self._refuse_failure()
        self._draw()
        best = self.population.best
        LOGGER.info(f"best: mAP50 {best.fitness:.4g} in training {best.number}; use it with --hyp {self.folder.best}")

    def _announce(self) -> None:
        trainings, epochs = self.population.trainings, self.search.options["epochs"]
        LOGGER.info(
            f"--evolve {trainings}: {counted(trainings, 'training')} of {counted(epochs, 'epoch')} each, "
            f"{len(self.population.trained)} of them done; a population of {population_size(trainings)}, "
            f"files in {self.folder.root}\n"
            f"after an interruption go on with --resume_evolve {self.folder.population}"
        )

    def _train(self, individual: Individual) -> None:
        LOGGER.info(
            f"\ntraining {individual.number} of {self.population.trainings}, "
            f"generation {individual.generation}, {individual.origin}: "
            + ", ".join(f"{name} {value:.5g}" for name, value in individual.genes.items())
        )
        started, results, failure = time.monotonic(), _NO_RESULTS, ""
        try:
            results = self.train(self.search.hyperparameters(individual))
        except TrainingError as error:
            failure = str(error)
            LOGGER.warning(f"this training failed and counts as 0: {failure}")
        done = self.population.record(individual, results, failure)
        self.folder.add(self.search, done)
        self._spent.append(time.monotonic() - started)
        self._report(done)

    def _report(self, done: Individual) -> None:
        best, left = self.population.best, self.population.trainings - len(self.population.trained)
        rest = f"; about {duration(left * sum(self._spent) / len(self._spent))} to go" if left else ""
        LOGGER.info(f"mAP50 {done.fitness:.4g}, best so far {best.fitness:.4g} (training {best.number}){rest}")

    def _refuse_failure(self) -> None:
        """End when a whole first generation has failed: then it is not the augmentation that is wrong."""
        first = [one for one in self.population.individuals if one.generation == 1]
        if all(one.failure for one in first):
            raise TrainingError(f"every training of the first generation failed; the last one: {first[-1].failure}")

    def _draw(self) -> None:
        if self.plots:
            self.folder.draw(self.search)


# Where an evolution begins -------------------------------------------------------------------------------------------


def _start(options: TrainOptions) -> tuple[Search, EvolutionFolder]:
    """A new evolution in a folder of its own."""
    project = EVOLVE_PROJECT if options.project == TrainOptions.project else options.project
    folder = EvolutionFolder(increment_path(Path(project) / options.name, options.exist_ok))
    if folder.population.exists():
        raise OptionError(
            f"--exist-ok: {folder.root} holds an evolution; go on with it by --resume_evolve {folder.population}, or "
            "choose another --name"
        )
    start = load_hyperparameters(options.hyp)
    known = [(f"--hyp {options.hyp}" if isinstance(options.hyp, str) else "--hyp", _genes(start))]
    known += _members(Path(options.evolve_population), known[0][1])
    population = Population.found(options.evolve, options.seed, known)
    unused = [origin for origin, _ in known[len(population.individuals) :]]
    if unused:
        size = len(population.individuals)
        LOGGER.warning(f"--evolve {options.evolve}: a population of {size} has no room for {', '.join(unused)}")
    return Search(population, start, options.to_dict()), folder


def _genes(values: Mapping[str, Any]) -> Genes:
    return {name: float(values[name]) for name in LIMITS}


def _members(folder: Path, first: Genes) -> Iterator[tuple[str, Genes]]:
    """Name and values of each hyperparameter file of a folder that brings something new.

    Raises:
        ConfigError: when there is no such folder.
    """
    found = next((place for place in (folder, PROJECT_ROOT / folder) if place.is_dir()), None)
    if found is None:
        raise ConfigError(f"--evolve_population {folder}: no such folder; give one with hyperparameter YAMLs")
    seen = [first]
    for file in sorted(found.glob("*.y*ml"), key=lambda path: path.name.lower()):
        try:
            values = yaml_load(file)
        except ConfigError as error:
            LOGGER.warning(f"--evolve_population: left out: {error}")
            continue
        wrong = misfits(values)
        if wrong:
            LOGGER.warning(f"--evolve_population: {file} left out: missing or beyond the limits: {', '.join(wrong)}")
        elif _genes(values) not in seen:
            seen.append(_genes(values))
            yield file.name, seen[-1]


def _resume(asked: TrainOptions) -> tuple[Search, TrainOptions, EvolutionFolder]:
    """The evolution of a population file, with its own options; those that make no other training may change."""
    path = Path(asked.resume_evolve)
    file = EvolutionFolder(path).population if path.is_dir() else path
    search = read_search(file)
    options = continued_options(
        asked, search.options, changeable=CHANGEABLE, ignored=_ABOUT_THE_FOLDER, file=file, what="evolution"
    )
    search.options |= {name: getattr(options, name) for name in asked.given & CHANGEABLE}
    search.population.trainings = options.evolve
    return search, options, EvolutionFolder(file.parent)
