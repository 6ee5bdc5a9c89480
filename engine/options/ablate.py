"""The flags of ``ablate.py``: one field is one flag and one keyword of ``ablate.run()``."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from engine.options.base import Options, flag
from engine.options.train import TrainOptions
from utils.errors import OptionError

SPLITS = ("val", "test")
_NAME = re.compile(r"\w[\w.+-]{0,59}")  # it also names a folder


@dataclass(frozen=True)
class ModelChoice:
    """A model as the command line names it; ``engine.ablation_models`` turns it into a network's description.

    Attributes:
        name: in tables and of folders.
        file: model YAML.
    """

    name: str
    file: str

    def __str__(self) -> str:
        """The text that :meth:`parse` reads."""
        return f"{self.name}={self.file}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME=FILE``, or ``FILE``, whose stem is then the name.

        Raises:
            OptionError: when the name could not be that of a folder, or there is no file.
        """
        name, separator, file = text.partition("=")
        if not separator:
            name, file = Path(text).stem, text
        if not file or not _NAME.fullmatch(name):
            raise OptionError(
                f"model {text!r}: expected a YAML, or NAME=YAML with a name of letters, digits and _ . + -"
            )
        return cls(name, file)


def _of_train(name: str, **changes: Any) -> Any:
    """The flag of that name of ``train.py``, where it is explained; at most its default is another."""
    field = TrainOptions.__dataclass_fields__[name]
    return dataclasses.field(default=changes.get("default", field.default), metadata=field.metadata)


@dataclass
class AblateOptions(Options):
    """Options of an ablation; of ``train.py``'s, those that are the same for all trainings and leave them equal."""

    baseline: str = flag("yolov5n.yaml", "model that the others are compared with: a YAML, or NAME=YAML")
    variants: list[str] = flag([], "models to compare with it, each a YAML, or NAME=YAML", type=str)
    seeds: list[int] = flag([0, 1, 2], "seeds; every model is trained once with each")
    split: str = flag("val", "images that the trained models are measured on", choices=SPLITS)
    resume: Any = flag(
        False,
        "go on with an ablation: its folder, the newest one when no path follows; seeds and variants may be added",
        nargs="?",
        const=True,
    )
    data: str = _of_train("data")
    weights: str = _of_train("weights", default="")
    hyp: str = _of_train("hyp")
    epochs: int = _of_train("epochs")
    batch_size: int = flag(16, "images a batch")
    imgsz: int = _of_train("imgsz")
    optimizer: str | None = _of_train("optimizer")
    nbs: int | None = _of_train("nbs")
    cos_lr: bool = _of_train("cos_lr")
    label_smoothing: float = _of_train("label_smoothing")
    rect: bool = _of_train("rect")
    quad: bool = _of_train("quad")
    multi_scale: bool = _of_train("multi_scale")
    image_weights: bool = _of_train("image_weights")
    single_cls: bool = _of_train("single_cls")
    noautoanchor: bool = _of_train("noautoanchor")
    noval: bool = _of_train("noval")
    amp: bool = _of_train("amp")
    bf16: bool = _of_train("bf16")
    cache: str | None = _of_train("cache")
    device: str = _of_train("device")
    workers: int = _of_train("workers")
    project: str = flag("runs/ablate", "folder of the runs")
    name: str = flag("exp", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require(self.split in SPLITS, "split", f"one of {', '.join(SPLITS)}")
        self._require(bool(self.seeds) and len(set(self.seeds)) == len(self.seeds), "seeds", "numbers that differ")
        self._require(self.batch_size >= 1, "batch_size", "a number from 1, the same for all trainings")
        self._require(self.resume != "", "resume", "a run folder, or nothing behind it for the newest")
        for text in ("project", "name"):
            self._require(bool(getattr(self, text)), text, "something behind it")
        self._require(bool(self.variants or self.resume), "variants", "one model or more")
        self.choices()
        for seed in self.seeds:
            self.training(self.baseline, self.hyp, seed, Path(self.project))

    def choices(self) -> list[ModelChoice]:
        """All models, the baseline first; of a command that goes on, only those that it names.

        Raises:
            OptionError: when one cannot be understood, or two have the same name.
        """
        first = [] if self.resume and "baseline" not in self.given else [self.baseline]
        choices = [ModelChoice.parse(text) for text in (*first, *self.variants)]
        seen: set[str] = set()
        for choice in choices:
            if choice.name.casefold() in seen:
                raise OptionError(
                    f"--variants: two models are called {choice.name}; give one another name: NAME={choice.file}"
                )
            seen.add(choice.name.casefold())
        return choices

    def training(self, cfg: str, hyp: Any, seed: int, folder: Path) -> TrainOptions:
        """Options of one training: an equal budget for all, so none ends early, and its state on disk every epoch.

        Args:
            cfg: model YAML.
            hyp: hyperparameters or their file.
            seed: of everything random.
            folder: for its files.

        Raises:
            OptionError: when ``train.py`` would refuse them.
        """
        shared = {name: getattr(self, name) for name in TRAINING_FLAGS if name != "hyp"}
        place = {"project": str(folder.parent), "name": folder.name or "exp", "exist_ok": True}
        return TrainOptions.from_kwargs(**shared, **place, cfg=cfg, hyp=hyp, seed=seed, patience=0, noplots=True)


_OWN = {"baseline", "variants", "seeds", "split", "resume", "project", "name", "exist_ok"}
TRAINING_FLAGS = tuple(field.name for field in dataclasses.fields(AblateOptions) if field.name not in _OWN)
