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
_LONGEST_NAME = 60  # it also names a folder
_NAME = re.compile(rf"\w[\w.+-]{{0,{_LONGEST_NAME - 1}}}")
_WITH_ROWS = re.compile(r"(.*?\.ya?ml|)\+(.*)", re.DOTALL)
_NEXT_ROW = re.compile(r"\+(?![^\[\]]*\])")  # no plus of a number within [...]
_NO_NAME = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class ModelChoice:
    """A model as the command line names it; ``engine.ablation_start`` turns it into a network's description.

    Attributes:
        name: in tables and of folders.
        file: model YAML; "" stands for the baseline.
        rows: put into it, each as ``train.py --insert`` takes it.
    """

    name: str
    file: str
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The text that :meth:`parse` reads."""
        return f"{self.name}={self.source}"

    @property
    def source(self) -> str:
        """What the network comes from."""
        return "+".join((self.file, *self.rows))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``FILE``, ``FILE+ROW``, or ``+ROW`` for the baseline with a row more; all with ``NAME=`` before or not.

        Without a name, it is made from the file's stem and the rows.

        Raises:
            OptionError: when the name could not be that of a folder, or there is no file.
        """
        name, separator, source = text.partition("=")
        if not separator:
            source = text
        found = _WITH_ROWS.fullmatch(source)
        file, rows = (found[1], tuple(map(str.strip, _NEXT_ROW.split(found[2])))) if found else (source, ())
        if not separator:
            parts = (_NO_NAME.sub("-", part).strip(".+-") for part in (Path(file).stem, *rows))
            name = "+".join(part for part in parts if part)[:_LONGEST_NAME].rstrip(".+-")
        if not (file or rows) or not _NAME.fullmatch(name):
            raise OptionError(
                f"model {text!r}: expected a YAML, YAML+ROW or +ROW, or NAME= before one of these, the name of up to "
                f"{_LONGEST_NAME} letters, digits and _ . + -"
            )
        return cls(name, file, rows)


def _of_train(name: str, **changes: Any) -> Any:
    """The flag of that name of ``train.py``, where it is explained; at most its default is another."""
    field = TrainOptions.__dataclass_fields__[name]
    return dataclasses.field(default=changes.get("default", field.default), metadata=field.metadata)


@dataclass
class AblateOptions(Options):
    """Options of an ablation; of ``train.py``'s, those that are the same for all trainings and leave them equal."""

    baseline: str = flag("yolov5n.yaml", "model that the others are compared with: YAML, YAML+ROW, or NAME= before it")
    variants: list[str] = flag(
        [],
        "models to compare with it, each a YAML, or +ROW: the baseline with a row more, which is what train.py's "
        "--insert takes, such as +BiFormerBlock@after:sppf; also YAML+ROW, +ROW+ROW, and NAME= before any of these",
        type=str,
    )
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
        self._require(not first or bool(choices[0].file), "baseline", "a YAML, or YAML+ROW")
        seen: set[str] = set()
        for choice in choices:
            if choice.name.casefold() in seen:
                raise OptionError(
                    f"--variants: two models are called {choice.name}; give one another name: NAME={choice.source}"
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
