"""The flags of ``train.py``: one field is one flag, one keyword of ``train.run()`` and one line of ``opt.yaml``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from engine.options.base import Options, flag
from models.insertion import GRAMMAR, parse_insertion  # without torch
from utils.datasets.quad_group import require_group

CACHE_KINDS = ("ram", "disk", "none")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
_LARGEST_SIDE = 16384  # px; a batch of one such image fills most GPUs
_LARGEST_BATCH = 1 << 20
_LARGEST_SEED = (1 << 32) - 1


@dataclass
class TrainOptions(Options):
    """Options of a training run."""

    weights: str = flag("yolov5s.pt", "checkpoint to start from; '' trains from scratch")
    cfg: str = flag("", "model YAML; '' builds what the checkpoint was built from")
    insert: list[str] = flag(
        [],
        "rows to put into the network, each MODULE@after:PLACE, MODULE@before:PLACE or MODULE@replace:PLACE; MODULE "
        "may have values as in a YAML, such as BiFormerBlock[0,5,4,3]; PLACE is a layer number, a row's name, or a "
        "module in lower case, with its number where there are several: sppf, c3#2, detect. Example: "
        '--insert "BiFormerBlock@after:sppf"',
        action="extend",
        nargs="+",
        type=str,
        metavar="ROW",
    )
    data: str = flag("data/shapes.yaml", "data set YAML")
    download: bool = flag(
        False, "fetch the archive that the data set YAML's `download` entry names, when its images are not there"
    )
    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyperparameter YAML")
    epochs: int = flag(100, "passes over the training images")
    batch_size: int = flag(16, "images a batch; -1 measures what the GPU's memory takes")
    imgsz: int = flag(640, "training and validation image size, px", names=("--imgsz", "--img", "--img-size"))
    rect: bool = flag(False, "rectangular batches: less padding, no mosaic, no shuffling")
    resume: Any = flag(
        False, "go on with a run: its last.pt or folder, the newest one when no path follows", nargs="?", const=True
    )
    nosave: bool = flag(False, "save the last epoch's checkpoint only")
    noval: bool = flag(False, "validate after the last epoch only")
    noautoanchor: bool = flag(False, "keep the model's anchors whatever the labels")
    noplots: bool = flag(False, "draw nothing")
    evolve: int | None = flag(
        None,
        "search augmentation settings: the number of whole trainings to spend on it, 300 when no number follows",
        nargs="?",
        const=300,
        type=int,
    )
    evolve_population: str = flag(
        "data/hyps",
        "folder of hyperparameter YAMLs that --evolve begins with, beside --hyp",
        names=("--evolve_population",),
    )
    resume_evolve: str | None = flag(
        None, "evolve_population.yaml of a search to go on with; its own options apply", names=("--resume_evolve",)
    )
    cache: str | None = flag(
        None,
        "keep decoded images: ram (also when no word follows), disk or none; not given, small sets are kept in memory",
        nargs="?",
        const="ram",
        choices=CACHE_KINDS,
    )
    image_weights: bool = flag(False, "draw images with rare and badly found classes more often")
    device: str = flag("", "cpu, mps, or a GPU's number; '' takes the first GPU, else the CPU")
    multi_scale: bool = flag(False, "another image size for every batch, half to one and a half times --imgsz")
    single_cls: bool = flag(False, "treat all classes as one")
    optimizer: str | None = flag(None, "optimizer; SGD where the hyperparameters name none", choices=OPTIMIZERS)
    sync_bn: bool = flag(False, "batch norm over the images of all GPUs; without effect on a single one")
    workers: int = flag(8, "processes that load images")
    project: str = flag("runs/train", "folder of the runs")
    name: str = flag("exp", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")
    quad: bool = flag(False, "a quarter as many images a batch, each four times the area")
    cos_lr: bool = flag(False, "cosine instead of linear learning rate")
    label_smoothing: float = flag(0.0, "label smoothing epsilon, 0 to 1")
    patience: int = flag(100, "stop after this many epochs without a better fitness; 0 never stops")
    freeze: list[int] = flag([0], "N freezes the layers 0 to N-1; several numbers freeze those layers", type=int)
    save_period: int = flag(-1, "also keep the checkpoint of every n-th epoch; below 1 keeps none")
    seed: int = flag(0, "seed of everything random")
    nbs: int | None = flag(
        None,
        "nominal batch size that gradients are gathered up to before a step; 64 where the hyperparameters name none",
        type=int,
    )
    amp: bool = flag(
        True, "mixed precision on a GPU, after a check that it works there", action=argparse.BooleanOptionalAction
    )
    bf16: bool = flag(False, "mixed precision in bfloat16, also on a CPU; needs no loss scaling")
    deterministic: bool | None = flag(
        None,
        "insist on repeatable results, or do without; when neither is said, repeatable wherever torch can, and a "
        "warning names the operation where it cannot",
        action=argparse.BooleanOptionalAction,
    )
    compile: bool = flag(False, "compile the network with torch.compile: slow to start, faster on")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "epochs", "imgsz")
        self._require(self.nbs is None or self.nbs >= 1, "nbs", "a number from 1")
        self._require_from(0, "workers", "patience")
        self._require(0 <= self.seed <= _LARGEST_SEED, "seed", f"a number from 0 to {_LARGEST_SEED}")
        self._require(self.batch_size >= 1 or self.batch_size == -1, "batch_size", "a number from 1, or -1")
        self._require(0 <= self.label_smoothing < 1, "label_smoothing", "a number from 0 to below 1")
        self._require(all(number >= 0 for number in self.freeze), "freeze", "layer numbers from 0")
        self._require(self.cache in (None, *CACHE_KINDS), "cache", "ram, disk or none")
        self._require(self.optimizer in (None, *OPTIMIZERS), "optimizer", f"one of {', '.join(OPTIMIZERS)}")
        self._require(
            self.resume != "", "resume", "a run folder or checkpoint, or nothing behind it for the newest run"
        )
        self._require(self.imgsz <= _LARGEST_SIDE, "imgsz", f"a number up to {_LARGEST_SIDE}")
        self._require(self.batch_size <= _LARGEST_BATCH, "batch_size", f"a number up to {_LARGEST_BATCH}")
        for text in ("data", "hyp", "project", "name"):
            self._require(bool(getattr(self, text)), text, "something behind it")
        if self.resume:
            self._require(self.evolve is None, "evolve", "no --evolve together with --resume")
            self._require(self.resume_evolve is None, "resume_evolve", "no --resume_evolve together with --resume")
            return  # the rest is the resumed run's own
        self._require(all(isinstance(text, str) for text in self.insert), "insert", f"texts, each {GRAMMAR}")
        for text in self.insert:
            parse_insertion(text)
        self._require(bool(self.weights or self.cfg), "weights", "a checkpoint, or --cfg with a model YAML beside ''")
        self._require(self.evolve is None or self.evolve >= 1, "evolve", "a number from 1")
        self._require(self.amp or not self.bf16, "bf16", "no --bf16 together with --no-amp")
        if self.quad and self.batch_size != -1:
            require_group(self.batch_size)
