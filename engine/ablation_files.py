"""The folder of an ablation, and what is known at any moment: models, outcomes of trainings.

``ablation.yaml`` is what counts: it is replaced in one step after each training, and every report can be written anew
from it. Beside it lie the models and hyperparameters that the trainings read, so that a file which is edited later
changes nothing here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.options.ablate import AblateOptions
from engine.run_files import RunFolder
from models.rows import read_rows
from models.yaml_text import model_yaml_text
from utils.atomic import clear_leftovers, replacing
from utils.errors import ConfigError, OptionError
from utils.paths import make_folder
from utils.slices import SliceResult
from utils.yaml_io import yaml_load, yaml_save

FIGURES = ("P", "R", "mAP50", "mAP50-95")  # of a training, in the order of EvalResult.summary
_FORMAT = 1  # raise it whenever the meaning of the file changes


@dataclass(frozen=True)
class Candidate:
    """One of the models that are compared.

    Attributes:
        name: in tables and of folders.
        file: as the command named it, with the rows put into it.
        content: of the resulting YAML.
        parameters: number of its weights, before batch norms are folded.
        flops: for one image of the ablation's size.
        latency_ms: lower quartile, median and upper quartile of one image's way through the network.
    """

    name: str
    file: str
    content: dict[str, Any]
    parameters: int = 0
    flops: int = 0
    latency_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    Attributes:
        model: name of the candidate.
        seed: of the training.
        figures: P, R, mAP50 and mAP50-95 of its best weights, by these names; empty where it failed.
        slices: AP of parts of the images.
        failure: why it came to nothing, else "".
    """

    model: str
    seed: int
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    slices: tuple[SliceResult, ...] = ()
    failure: str = ""


@dataclass
class Ablation:
    """All that an ablation is.

    Attributes:
        options: of the command.
        hyp: hyperparameters of all trainings.
        machine: where it runs.
        candidates: the models; the first is the baseline.
        outcomes: of the trainings that are over.
    """

    options: AblateOptions
    hyp: dict[str, Any]
    machine: str
    candidates: list[Candidate]
    outcomes: list[Outcome]

    @property
    def baseline(self) -> Candidate:
        """What the others are compared with."""
        return self.candidates[0]

    @property
    def trainings(self) -> int:
        """How many there are in all."""
        return len(self.candidates) * len(self.options.seeds)

    def outcome(self, model: str, seed: int) -> Outcome | None:
        """How a training went, None where it is not over."""
        return next((one for one in self.outcomes if (one.model, one.seed) == (model, seed)), None)

    def left(self) -> Iterator[tuple[Candidate, int]]:
        """Trainings that are not over. Seed by seed, so that an interruption leaves pairs to compare."""
        for seed in self.options.seeds:
            for candidate in self.candidates:
                if self.outcome(candidate.name, seed) is None:
                    yield candidate, seed


@dataclass(frozen=True)
class AblationFolder:
    """Paths inside ``runs/ablate/exp``, and the state there."""

    root: Path

    @property
    def state(self) -> Path:
        """Everything about the ablation; it can go on from this file and the folders of half-done trainings."""
        return self.root / "ablation.yaml"

    @property
    def hyp(self) -> Path:
        """Hyperparameters that every training reads."""
        return self.root / "hyp.yaml"

    @property
    def report(self) -> Path:
        """Tables and verdicts."""
        return self.root / "ablation.md"

    @property
    def csv(self) -> Path:
        """A row a model, unrounded."""
        return self.root / "ablation.csv"

    @property
    def trainings_csv(self) -> Path:
        """A row a training, unrounded."""
        return self.root / "trainings.csv"

    @property
    def picture(self) -> Path:
        """Figures of all seeds, differences with their intervals, latency."""
        return self.root / "ablation.png"

    def model(self, name: str) -> Path:
        """Model YAML that the trainings of a candidate read."""
        return self.root / "models" / f"{name}.yaml"

    def training(self, name: str, seed: int) -> RunFolder:
        """Run folder of a training."""
        return RunFolder(self.root / "trainings" / f"{name}-seed{seed}")

    def refuse_other(self) -> None:
        """Refuse to begin an ablation where one is, or where its trainings would go on with those of another.

        Raises:
            OptionError: naming the folder.
        """
        if self.state.exists():
            raise OptionError(
                f"--exist-ok: {self.root} holds an ablation; go on with it by --resume {self.root}, or choose another "
                "--name"
            )
        if (self.root / "trainings").exists():
            raise OptionError(
                f"--exist-ok: {self.root / 'trainings'} holds trainings of another ablation, whose ablation.yaml is "
                "gone; choose another --name"
            )

    def begin(self, ablation: Ablation) -> None:
        """Write what trainings read, take away what an interruption has left, and put the ablation on disk."""
        make_folder(self.root / "models")
        clear_leftovers(self.root)
        yaml_save(self.hyp, ablation.hyp)
        for candidate in ablation.candidates:
            with replacing(self.model(candidate.name)) as stream:
                stream.write(model_yaml_text(candidate.content, candidate.file))
        self.save(ablation)
        for outcome in ablation.outcomes:
            self._forget_state(outcome)

    def add(self, ablation: Ablation, outcome: Outcome) -> None:
        """Put a training that is over on disk, then drop what only its going on would need."""
        ablation.outcomes.append(outcome)
        self.save(ablation)
        self._forget_state(outcome)

    def save(self, ablation: Ablation) -> None:
        """Replace the state in one step."""
        plain = dataclasses.asdict(ablation)
        content = {"format": _FORMAT, "options": plain["options"], "machine": ablation.machine, "hyp": ablation.hyp}
        yaml_save(self.state, {**content, "models": plain["candidates"], "trainings": plain["outcomes"]})

    def _forget_state(self, outcome: Outcome) -> None:
        """Take ``last.pt`` away, which is many times as large as ``best.pt``; a failed training keeps it."""
        if not outcome.failure:
            self.training(outcome.model, outcome.seed).last.unlink(missing_ok=True)


def read_ablation(file: Path) -> Ablation:
    """Read the state of an ablation.

    Raises:
        ConfigError: when it cannot be read, or is not what :class:`AblationFolder` writes.
    """
    content = yaml_load(file)
    if content.get("format") != _FORMAT:
        raise ConfigError(f"{file}: expected the ablation.yaml of an ablation, with `format: {_FORMAT}`")
    try:
        known = {field.name for field in dataclasses.fields(AblateOptions)}
        options = {name: value for name, value in dict(content["options"]).items() if name in known}
        ablation = Ablation(
            AblateOptions.from_kwargs(**options),
            dict(content["hyp"]),
            str(content["machine"]),
            [_candidate(entry) for entry in content["models"]],
            [_outcome(entry) for entry in content["trainings"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError, OptionError) as error:
        raise ConfigError(f"{file}: damaged, or changed by hand ({type(error).__name__}: {error})") from error
    _check(ablation, file)
    return ablation


def _check(ablation: Ablation, file: Path) -> None:
    """Refuse a state whose parts do not belong together."""
    names = [candidate.name for candidate in ablation.candidates]
    if names != [choice.name for choice in ablation.options.choices()]:
        raise ConfigError(f"{file}: damaged, or changed by hand (models and options name different ones)")
    ran = [(outcome.model, outcome.seed) for outcome in ablation.outcomes]
    wanted = {(name, seed) for name in names for seed in ablation.options.seeds}
    if len(set(ran)) < len(ran) or not set(ran) <= wanted:
        raise ConfigError(f"{file}: damaged, or changed by hand (a training is there twice, or is none of this one's)")


def _candidate(entry: Mapping[str, Any]) -> Candidate:
    read_rows(entry["content"], f"models: {entry['name']}")
    low, middle, high = map(float, entry["latency_ms"])
    costs = {"parameters": int(entry["parameters"]), "flops": int(entry["flops"]), "latency_ms": (low, middle, high)}
    return Candidate(**{**entry, "content": dict(entry["content"]), **costs})


def _outcome(entry: Mapping[str, Any]) -> Outcome:
    figures = {name: float(value) for name, value in entry["figures"].items()}
    if (not entry["failure"] and tuple(figures) != FIGURES) or not all(map(math.isfinite, figures.values())):
        raise ValueError(f"figures of {entry['model']}, seed {entry['seed']}: expected finite {', '.join(FIGURES)}")
    slices = tuple(SliceResult(**part) for part in entry["slices"])
    for value in (value for part in slices for value in (part.map50, part.map)):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"slices of {entry['model']}, seed {entry['seed']}: {value} is no figure")
    return Outcome(**{**entry, "figures": figures, "slices": slices})
