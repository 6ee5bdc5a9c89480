"""The folder of an evolution: the population, the table, the best hyperparameters, the picture.

``evolve_population.yaml`` is what counts: it is replaced in one step after each training, and everything else can be
written anew from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.population import Individual, Population
from engine.results import CSV_COLUMNS
from engine.run_plots import drawing
from utils.atomic import clear_leftovers, replacing
from utils.errors import ConfigError
from utils.evolution_chart import plot_evolution
from utils.genetics import LIMITS, misfits
from utils.paths import make_folder
from utils.yaml_io import yaml_load

RESULTS = CSV_COLUMNS[4:11]
_FORMAT = 1  # raise it whenever the meaning of the population file changes
_WIDTH = 20
_WORKSHOP = ".training-"  # beginning of the name of the folder of a training that is under way
_HEAD = "# Written after each training of train.py --evolve; python train.py --resume_evolve <this file> goes on\n"


@dataclass
class Search:
    """All that an evolution is: what the population file holds.

    Attributes:
        population: its individuals.
        start: hyperparameters that the trainings begin with; those that do not evolve keep these values.
        options: of the command.
    """

    population: Population
    start: dict[str, float]
    options: dict[str, Any]

    def hyperparameters(self, individual: Individual) -> dict[str, float]:
        """All hyperparameters of an individual."""
        return {**self.start, **individual.genes}


@dataclass(frozen=True)
class EvolutionFolder:
    """Paths inside ``runs/evolve/exp``, and what is written there."""

    root: Path

    @property
    def population(self) -> Path:
        """Everything about the evolution; it can go on from this file alone."""
        return self.root / "evolve_population.yaml"

    @property
    def csv(self) -> Path:
        """A row a training: results, then hyperparameters."""
        return self.root / "evolve.csv"

    @property
    def best(self) -> Path:
        """Hyperparameters of the best training."""
        return self.root / "hyp_evolve.yaml"

    @property
    def picture(self) -> Path:
        """Each hyperparameter's values against the fitness."""
        return self.root / "evolve.png"

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """A folder for the files of one training, which goes with them afterwards."""
        made = [path for path in (self.root, *self.root.parents) if not path.exists()]
        make_folder(self.root)
        folder = Path(tempfile.mkdtemp(prefix=_WORKSHOP, dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            for path in made:  # a mistake in the first training leaves no empty folder behind
                with contextlib.suppress(OSError):
                    path.rmdir()

    def begin(self, search: Search) -> None:
        """Write the files of an evolution so far, and take away what an interruption has left."""
        make_folder(self.root)
        clear_leftovers(self.root)
        for folder in self.root.glob(f"{_WORKSHOP}*"):
            shutil.rmtree(folder, ignore_errors=True)
        _write_in_one_step(self.csv, _table(search))
        self._write_best(search)

    def add(self, search: Search, individual: Individual) -> None:
        """Put a training that is over on disk.

        Args:
            search: which has it already.
            individual: the one that was trained.
        """
        make_folder(self.root)
        _write_in_one_step(self.population, _HEAD + _as_yaml(_plain(search)))
        rows = [] if self.csv.exists() else [_header(search)]
        with self.csv.open("a", encoding="utf-8") as stream:
            stream.write("".join([*rows, _row(search, individual)]))
            stream.flush()
            os.fsync(stream.fileno())
        self._write_best(search)

    def draw(self, search: Search) -> None:
        """Draw the trainings that did not fail, where there are any."""
        shown = [one for one in search.population.trained if not one.failure]
        if not shown:
            return
        values = {name: [one.genes[name] for one in shown] for name in LIMITS}
        with drawing(self.picture):
            plot_evolution(values, [one.fitness for one in shown], [one.number for one in shown], self.picture, "mAP50")

    def _write_best(self, search: Search) -> None:
        if search.population.trained:
            _write_in_one_step(self.best, _describe_best(search))


def read_search(file: Path) -> Search:
    """Read a population file.

    Raises:
        ConfigError: when it cannot be read, or is not what :class:`EvolutionFolder` writes.
    """
    content = yaml_load(file)
    if content.get("format") != _FORMAT:
        raise ConfigError(f"{file}: expected the evolve_population.yaml of an evolution, with `format: {_FORMAT}`")
    try:
        individuals = [_individual(entry) for entry in content["individuals"]]
        options, start = dict(content["options"]), dict(content["start"])
        population = Population(int(options["evolve"]), int(options["seed"]), individuals)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: damaged, or changed by hand ({type(error).__name__}: {error})") from error
    if not individuals or not isinstance(options.get("epochs"), int):
        raise ConfigError(f"{file}: damaged, or changed by hand (no individuals, or no number of epochs)")
    in_order = population.trained == individuals[: len(population.trained)]
    if not in_order or [one.number for one in individuals] != list(range(1, len(individuals) + 1)):
        raise ConfigError(f"{file}: the individuals are not in the order of their trainings")
    return Search(population, start, options)


def _individual(entry: Mapping[str, Any]) -> Individual:
    known = {field.name for field in dataclasses.fields(Individual)}
    one = Individual(**{name: value for name, value in entry.items() if name in known})
    genes = {name: float(one.genes[name]) for name in LIMITS}
    outside = misfits(genes)
    if outside:
        raise ValueError(f"individual {one.number} is out of range in {', '.join(map(str, outside))}")
    results = None if one.results is None else tuple(map(float, one.results))
    if results is not None and len(results) != len(RESULTS):
        raise ValueError(f"individual {one.number} has {len(results)} results instead of {len(RESULTS)}")
    return dataclasses.replace(one, genes=genes, results=results)


def _plain(search: Search) -> dict[str, Any]:
    individuals = [dataclasses.asdict(one) for one in search.population.individuals]
    for entry in individuals:
        entry["results"] = None if entry["results"] is None else list(entry["results"])
    return {
        "format": _FORMAT,
        "options": {**search.options, "evolve": search.population.trainings},
        "start": search.start,
        "individuals": individuals,
    }


def _as_yaml(content: Mapping[str, Any]) -> str:
    """Lists and mappings of plain values in a line each; PyYAML's C part, where it is there, takes a tenth the time."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(
        dict(content), Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def _describe_best(search: Search) -> str:
    """The best hyperparameters as a YAML file with a head that says where they come from."""
    best, count = search.population.best, len(search.population.trained)
    figures = ", ".join(f"{name} {value:.5g}" for name, value in zip(RESULTS, best.results, strict=True))
    head = (
        f"# The best of {count} trainings of train.py --evolve, by mAP50; use it with --hyp <this file>.\n"
        f"# Training {best.number}, generation {best.generation}, {best.origin}\n"
        f"# {figures}\n"
    )
    return head + yaml.safe_dump(search.hyperparameters(best), sort_keys=False)


def _table(search: Search) -> str:
    return _header(search) + "".join(_row(search, one) for one in search.population.trained)


def _header(search: Search) -> str:
    return ",".join(f"{name:>{_WIDTH}}" for name in (*RESULTS, *search.start)) + "\n"


def _row(search: Search, individual: Individual) -> str:
    figures = (*individual.results, *search.hyperparameters(individual).values())
    return ",".join(_cell(figure) for figure in figures) + "\n"


def _cell(figure: float | str) -> str:
    """Seven digits show every evolved value in full; a recipe's optimizer is a word."""
    return f"{figure:>{_WIDTH}}" if isinstance(figure, str) else f"{figure:>{_WIDTH}.7g}"


def _write_in_one_step(file: Path, text: str) -> None:
    with replacing(file) as stream:
        stream.write(text)
