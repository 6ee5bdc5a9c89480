"""The flags of ``train.py``: one field is one flag, one keyword of ``train.run()`` and one line of ``opt.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.options.base import Options, flag

CACHE_KINDS = ("ram", "disk")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
_LARGEST_SEED = (1 << 32) - 1


@dataclass
class TrainOptions(Options):
    """Options of a training run."""

    weights: str = flag("yolov5s.pt", "checkpoint to start from; '' trains from scratch")
    cfg: str = flag("", "model YAML; '' builds what the checkpoint was built from")
    data: str = flag("data/shapes.yaml", "data set YAML")
    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyperparameter YAML")
    epochs: int = flag(100, "passes over the training images")
    batch_size: int = flag(16, "images a batch; -1 measures what the GPU's memory takes")
    imgsz: int = flag(640, "training and validation image size, px", names=("--imgsz", "--img", "--img-size"))
    rect: bool = flag(False, "rectangular batches: less padding, no mosaic, no shuffling")
    resume: Any = flag(
        False, "go on with an interrupted run", nargs="?", const=True, later="going on with an interrupted run"
    )
    nosave: bool = flag(False, "save the last epoch's checkpoint only")
    noval: bool = flag(False, "validate after the last epoch only")
    noautoanchor: bool = flag(False, "keep the model's anchors whatever the labels")
    noplots: bool = flag(False, "draw nothing")
    evolve: int | None = flag(
        None, "search hyperparameters for this many generations", nargs="?", const=300, type=int, later="evolution"
    )
    evolve_population: str = flag(
        "data/hyps", "folder with the first population", names=("--evolve_population",), later="evolution"
    )
    resume_evolve: str | None = flag(
        None, "population file to go on from", names=("--resume_evolve",), later="evolution"
    )
    cache: str | None = flag(
        None, "keep decoded images: ram or disk (ram when no word follows)", nargs="?", const="ram", choices=CACHE_KINDS
    )
    image_weights: bool = flag(False, "draw hard images more often", later="drawing images by weight")
    device: str = flag("", "cpu, mps, or a GPU's number; '' takes the first GPU, else the CPU")
    multi_scale: bool = flag(False, "another image size for every batch, half to one and a half times --imgsz")
    single_cls: bool = flag(False, "treat all classes as one")
    optimizer: str = flag("SGD", "optimizer", choices=OPTIMIZERS)
    sync_bn: bool = flag(False, "batch norm over all processes; without effect in a single one")
    workers: int = flag(8, "processes that load images")
    project: str = flag("runs/train", "folder of the runs")
    name: str = flag("exp", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")
    quad: bool = flag(False, "batches of images four times the area", later="quad batches")
    cos_lr: bool = flag(False, "cosine instead of linear learning rate")
    label_smoothing: float = flag(0.0, "label smoothing epsilon, 0 to 1")
    patience: int = flag(100, "stop after this many epochs without a better fitness; 0 never stops")
    freeze: list[int] = flag([0], "N freezes the layers 0 to N-1; several numbers freeze those layers", type=int)
    save_period: int = flag(-1, "also keep the checkpoint of every n-th epoch; below 1 keeps none")
    seed: int = flag(0, "seed of everything random")
    nbs: int = flag(64, "nominal batch size that gradients are gathered up to before a step")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "epochs", "imgsz", "nbs")
        self._require_from(0, "workers", "patience")
        self._require(0 <= self.seed <= _LARGEST_SEED, "seed", f"a number from 0 to {_LARGEST_SEED}")
        self._require(self.batch_size >= 1 or self.batch_size == -1, "batch_size", "a number from 1, or -1")
        self._require(0 <= self.label_smoothing < 1, "label_smoothing", "a number from 0 to below 1")
        self._require(all(number >= 0 for number in self.freeze), "freeze", "layer numbers from 0")
        self._require(self.cache in (None, *CACHE_KINDS), "cache", "ram or disk")
        self._require(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
        self._require(bool(self.weights or self.cfg), "weights", "a checkpoint, or --cfg with a model YAML beside ''")
