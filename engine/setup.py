"""From options to the parts of a training run: hyperparameters, model, starting weights, loaders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.options.train import OPTIMIZERS, TrainOptions
from models.checkpoint import Checkpoint, read_checkpoint
from models.config import load_model_yaml
from models.insertion import insert_rows
from models.released_file import RELEASED_SUFFIX, read_released
from models.transfer import transfer_weights
from models.yolo import DetectionModel
from utils.autoanchor import check_anchors
from utils.class_weights import labels_to_image_weights
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset, fetch_dataset
from utils.dist import is_main, main_first, rank, tensors_from_main
from utils.errors import ConfigError, DatasetError
from utils.log import LOGGER
from utils.paths import check_yaml, find_weights
from utils.schedule import NOMINAL_BATCH
from utils.sizes import check_img_size, grid_size
from utils.yaml_io import yaml_load

HYPERPARAMETERS = (
    *("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
    *("box", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "fl_gamma"),
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective"),
    *("flipud", "fliplr", "mosaic", "mixup", "copy_paste"),
)
OPTIONAL_HYPERPARAMETERS = ("anchors", "nbs")
_OPTIMIZER = "optimizer"  # a recipe may name its own: learning rates mean little without it
_ABOVE_ZERO = ("anchor_t", "anchors", "nbs")
_BELOW_ONE = ("momentum", "warmup_momentum")  # from 0; at 1 nothing old is ever forgotten
_SHARES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste")  # 0 to 1


@dataclass(frozen=True)
class Names:
    """The classes of a run."""

    nc: int
    names: dict[int, str]

    @classmethod
    def of(cls, data: Mapping[str, Any], single_cls: bool) -> Names:
        """Classes of a data set, or the one class ``item``."""
        if single_cls:
            return cls(1, {0: "item"})
        return cls(int(data["nc"]), dict(data["names"]))


def load_hyperparameters(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Read and check hyperparameters: numbers, and at most the name of an optimizer.

    Args:
        source: a YAML file (found by name below ``data/``) or a mapping.

    Raises:
        ConfigError: naming the file and the entries that are missing, no numbers, or out of range.
    """
    if isinstance(source, Mapping):
        title, values = "hyperparameters", dict(source)
    else:
        title = check_yaml(str(source))
        values = yaml_load(title)
    missing = [name for name in HYPERPARAMETERS if name not in values]
    if missing:
        raise ConfigError(f"{title}: missing {', '.join(missing)}; copy data/hyps/hyp.scratch-low.yaml and change that")
    if values.get(_OPTIMIZER, OPTIMIZERS[0]) not in OPTIMIZERS:
        raise ConfigError(f"{title}: optimizer: {values[_OPTIMIZER]!r}: expected one of {', '.join(OPTIMIZERS)}")
    wrong = [name for name, value in values.items() if name != _OPTIMIZER and not _is_number(value)]
    if wrong:
        raise ConfigError(f"{title}: {', '.join(f'{name}: {values[name]!r}' for name in wrong)}: expected numbers")
    _check_ranges(values, title)
    unknown = [name for name in values if name not in (*HYPERPARAMETERS, *OPTIONAL_HYPERPARAMETERS, _OPTIMIZER)]
    if unknown:
        LOGGER.warning(f"{title}: nothing reads {', '.join(unknown)}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_ranges(values: Mapping[str, float], title: str) -> None:
    """Refuse what no training can work with; nothing that any works with."""
    for name in (name for name in HYPERPARAMETERS + OPTIONAL_HYPERPARAMETERS if name in values):
        value, holds, expected = values[name], values[name] >= 0, "from 0"
        if name in _ABOVE_ZERO:
            holds, expected = value > 0, "above 0"
        elif name in _BELOW_ONE:
            holds, expected = 0 <= value < 1, "from 0 to below 1"
        elif name in _SHARES:
            holds, expected = 0 <= value <= 1, "from 0 to 1"
        if not (holds and math.isfinite(value)):
            raise ConfigError(f"{title}: {name}: {value}: expected a number {expected}")


def load_start(weights: str) -> Checkpoint | None:
    """The checkpoint to start from, None for ''.

    Raises:
        ConfigError: when there is no such file or it is neither a ``.pt`` nor a published BiFormer's ``.pth``.
    """
    if not weights:
        return None
    path = find_weights(weights)
    if path.suffix == RELEASED_SUFFIX:
        return read_released(path)
    if path.suffix != ".pt":
        raise ConfigError(f"--weights {weights}: training starts from a .pt checkpoint, or a published BiFormer's .pth")
    return read_checkpoint(path)


def build_model(
    options: TrainOptions, classes: Names, hyp: Mapping[str, float], resumed: Checkpoint | None = None
) -> DetectionModel:
    """Build what ``--cfg`` or the checkpoint says, with ``--insert``'s rows, and put the checkpoint's weights in.

    The layers of both are aligned, see :mod:`models.transfer`. The anchors come along when the levels' strides agree: a
    block inserted into a trained network then changes nothing until the first step. AutoAnchor may replace them later.

    Args:
        options: the command's options.
        classes: of the data.
        hyp: hyperparameters; ``anchors`` is read.
        resumed: the state of a run to go on with: its network is built, and its weights are put in later.
    """
    if resumed is not None:
        return _rebuild(resumed, classes)
    start = load_start(options.weights)
    if not options.cfg and (start is None or not start.meta.yaml):
        raise ConfigError("nothing to build: give --cfg with a model YAML, or --weights with a checkpoint")
    config = _description(check_yaml(options.cfg) if options.cfg else start.meta.yaml, options.insert)
    anchors = hyp.get("anchors")
    model = DetectionModel(config, ch=3, nc=classes.nc, anchors=round(anchors) if anchors else None)
    if start is not None:
        exclude = () if _same_strides(start, model) else (".anchors",)
        report = transfer_weights(start.model, model, exclude, description=start.meta.yaml)
        LOGGER.info(f"{options.weights}: {report}")
        if f"model.{len(model.model) - 1}.anchors" in report.filled:
            model.anchors_from = options.weights
    model.names = dict(classes.names)
    model.info()
    return model


def _description(cfg: str | Mapping[str, Any], insertions: Sequence[str]) -> str | Mapping[str, Any]:
    """The network's description, with the rows that ``--insert`` puts into it."""
    if not insertions:
        return cfg
    content, title = load_model_yaml(cfg)
    return insert_rows(content, insertions, title)


def _rebuild(resumed: Checkpoint, classes: Names) -> DetectionModel:
    """The network of a run that goes on.

    Raises:
        ConfigError: when the data has other classes than the run.
    """
    meta = resumed.meta
    if meta.nc != classes.nc:
        raise ConfigError(
            f"the run to go on with knows {meta.nc} classes, its data now has {classes.nc}: --data names another set"
        )
    if meta.names != classes.names:
        LOGGER.warning(f"the data's class names were {meta.names} and now are {classes.names}: is it the same set?")
    model = DetectionModel(meta.yaml, ch=3, nc=meta.nc)
    model.names = dict(classes.names)
    model.info()
    return model


def _same_strides(start: Checkpoint, model: DetectionModel) -> bool:
    """Whether anchors, which are kept in units of their level's stride, mean the same in both."""
    return [float(stride) for stride in start.meta.stride] == [float(stride) for stride in model.stride]


def freeze_layers(model: DetectionModel, freeze: Sequence[int]) -> list[str]:
    """Take layers out of training.

    Args:
        model: changed in place.
        freeze: one number N means the layers 0 to N-1, several mean those layers.

    Returns:
        Names of the frozen parameters.

    Raises:
        ConfigError: when the model has no such layer.
    """
    last = freeze[0] - 1 if len(freeze) == 1 else max(freeze, default=-1)
    if last >= len(model.model):
        raise ConfigError(f"--freeze {freeze}: the model has the layers 0 to {len(model.model) - 1}")
    prefixes = tuple(f"model.{number}." for number in (range(freeze[0]) if len(freeze) == 1 else freeze))
    frozen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(prefixes) if prefixes else True)
        if not parameter.requires_grad:
            frozen.append(name)
    if len(frozen) == sum(1 for _ in model.parameters()):
        raise ConfigError(f"--freeze {freeze} leaves nothing to train")
    if frozen:
        LOGGER.info(f"--freeze {freeze}: {len(frozen)} tensors are not trained")
    return frozen


def training_size(model: nn.Module, imgsz: int) -> int:
    """Image size that the model can work with, px: a multiple of its grid and at least two cells."""
    grid = grid_size(model.stride)
    return check_img_size(imgsz, grid, floor=grid * 2)


@dataclass
class Loaders:
    """What a run reads: batches to train on, the data set behind them, batches to validate on."""

    train: Any
    dataset: Any
    val: Any


def build_loaders(
    options: TrainOptions,
    data: Mapping[str, Any],
    hyp: Mapping[str, float],
    *,
    imgsz: int,
    stride: int,
    batch_size: int,
) -> Loaders:
    """Make the loaders of a run; validation takes batches twice as large, as it keeps no gradients.

    Args:
        options: the command's options.
        data: a checked data set.
        hyp: hyperparameters.
        imgsz: px.
        stride: px, what sides of rectangles divide by.
        batch_size: images of a training batch in this process.
    """
    train, dataset = create_dataloader(
        data["train"],
        imgsz,
        batch_size,
        stride,
        single_cls=options.single_cls,
        hyp=hyp,
        augment=True,
        cache=options.cache or "auto",
        rect=options.rect,
        workers=options.workers,
        prefix="train: ",
        shuffle=not options.rect,
        seed=options.seed,
        nc=data["nc"],
        names=data["names"],
        rank=rank(),
        image_weights=options.image_weights,
        quad=options.quad,
    )
    val, _ = create_dataloader(
        data["val"],
        imgsz,
        batch_size * 2,
        stride,
        single_cls=options.single_cls,
        hyp=hyp,
        cache="none" if options.noval else options.cache or "auto",
        rect=True,
        pad=0.5,
        workers=options.workers,
        prefix="val: ",
        nc=data["nc"],
        names=data["names"],
        rank=rank(),
        repeat=False,
    )
    return Loaders(train, dataset, val)


def load_data(options: TrainOptions) -> dict[str, Any]:
    """Read the data set's YAML and find its images.

    Raises:
        DatasetError: also when the training images are not there, before a run folder is made for them.
    """
    if options.download:
        with main_first():
            fetch_dataset(options.data)
    data = check_dataset(options.data)
    listed = data["train"] if isinstance(data["train"], list) else [data["train"]]
    lost = [path for path in listed if not Path(path).exists()]
    if lost:
        raise DatasetError(f"{options.data}: training images not found at {', '.join(lost)}; nothing is downloaded")
    return data


def fit_anchors(model: DetectionModel, dataset: Any, hyp: Mapping[str, float], imgsz: int, enabled: bool) -> None:
    """Let AutoAnchor check the anchors, then round all of the model through float16, as saving will.

    Args:
        model: changed in place.
        dataset: the training images' labels and sizes.
        hyp: for the threshold ``anchor_t``.
        imgsz: training size, px.
        enabled: False leaves the anchors alone.

    Raises:
        ConfigError: when the anchors are placeholders and stay so.
    """
    if enabled:
        before = model.model[-1].anchors.clone()
        if is_main():
            check_anchors(dataset, model, thr=hyp["anchor_t"], imgsz=imgsz)
        tensors_from_main([model.model[-1].anchors])
        if not torch.equal(before, model.model[-1].anchors.to(before)):
            model.model[-1].forget_grids()
            _tell_of_lost_anchors(model)
    if float(model.model[-1].anchors.min()) <= 0:
        reason = "AutoAnchor found none that fit" if enabled else "--noautoanchor keeps it from getting some"
        raise ConfigError(
            f"the model has no anchors (its YAML or hyperparameters give only their number) and {reason}: give anchors "
            "in the YAML, or more labels"
        )
    model.half().float()


def _tell_of_lost_anchors(model: DetectionModel) -> None:
    """Say that boxes do not start where the checkpoint had them, when its anchors have been replaced."""
    if model.anchors_from:
        LOGGER.warning(
            f"AutoAnchor replaced the anchors of {model.anchors_from}, which fit this data badly: the first "
            "predictions are not the checkpoint's; --noautoanchor keeps its anchors"
        )
        model.anchors_from = ""


def optimizer_name(options: TrainOptions, hyp: Mapping[str, Any]) -> str:
    """The optimizer: what the command line says, else the hyperparameter file, else SGD."""
    return options.optimizer or hyp.get(_OPTIMIZER, OPTIMIZERS[0])


def nominal_batch(options: TrainOptions, hyp: Mapping[str, Any]) -> int:
    """Images whose gradients make a step: what the command line says, else the hyperparameter file, else 64."""
    return options.nbs or max(round(hyp.get("nbs", NOMINAL_BATCH)), 1)


def image_weights(
    labels: Sequence[np.ndarray], class_weights: torch.Tensor, class_map: np.ndarray
) -> np.ndarray | None:
    """How often each image is to be drawn: the more, the rarer and the worse found the classes on it are.

    Args:
        labels: per image (n, 5), column 0 the class.
        class_weights: (nc,) larger for rare classes.
        class_map: (nc,) mAP of each class at the last evaluation, 0..1.

    Returns:
        (images,) weights; None when all would be 0.
    """
    rare = class_weights.cpu().numpy().astype(np.float64)
    weights = labels_to_image_weights(labels, len(rare), rare * (1 - class_map) ** 2)
    return weights if weights.sum() > 0 else None


def is_finite(values: Sequence[float]) -> bool:
    """Whether every number is neither infinite nor NaN."""
    return all(math.isfinite(value) for value in values)
