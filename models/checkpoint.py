"""Checkpoints: plain data that ``torch.load(weights_only=True)`` reads, written so that none is ever half.

A file is one dict: ``format epoch best_fitness model ema updates optimizer opt git date meta extra``. ``model`` and
``ema`` are state dicts; ``meta`` says how to build the network around them; ``extra`` holds what exact resuming needs.
What YOLOv5 itself has written is read into the same form by ``upstream_file``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from models.upstream_file import UpstreamFile, read_upstream
from models.yolo import DetectionModel
from utils.errors import CheckpointError, ConfigError, first_line
from utils.weights_file import load_plain, save_atomically

FORMAT = 1
_KINDS: dict[str, tuple[type, ...]] = {  # of the entries of a file
    **dict.fromkeys(("model", "yaml", "names", "opt", "extra"), (Mapping,)),
    **dict.fromkeys(("ema", "optimizer", "hyp", "git"), (Mapping, type(None))),
    **{"nc": (int,), "stride": (list,), "epoch": (int,), "updates": (int, type(None))},
    **{"best_fitness": (int, float, type(None)), "date": (str, type(None))},
}
_SURROGATES = re.compile("[\ud800-\udfff]")  # halves of characters, which cannot be written or shown


@dataclass(frozen=True)
class ModelMeta:
    """What is needed, beside the tensors, to build a network and name its classes."""

    yaml: dict[str, Any]
    names: dict[int, str]
    nc: int
    stride: list[float]
    hyp: dict[str, Any] | None = None

    @classmethod
    def of(cls, model: DetectionModel) -> Self:
        """The metadata of a built model."""
        names = {int(index): str(name) for index, name in model.names.items()}
        return cls(model.yaml, names, model.nc, [float(stride) for stride in model.stride], model.hyp)


@dataclass(frozen=True)
class Checkpoint:
    """One weights file in memory; see the module for what each part means."""

    model: dict[str, torch.Tensor]
    meta: ModelMeta
    ema: dict[str, torch.Tensor] | None = None
    epoch: int = -1
    best_fitness: float | None = None
    updates: int | None = None
    optimizer: dict[str, Any] | None = None
    opt: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    date: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors to predict with: the moving average where there is one."""
        return self.model if self.ema is None else self.ema


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a temporary file beside ``path``, sync it, then put it in place.

    A crash leaves either the old file or the new one, never a part.
    """
    content = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    content["meta"] = {name: getattr(checkpoint.meta, name) for name in checkpoint.meta.__dataclass_fields__}
    save_atomically({"format": FORMAT, **content}, path)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project or of YOLOv5; nothing in the file can run code.

    Raises:
        CheckpointError: when the file is missing, damaged, not a checkpoint, or asks for more than a checkpoint needs.
    """
    source = Path(path)
    upstream = read_upstream(source)
    return _checked(load_plain(source), source) if upstream is None else adopt(upstream)


def adopt(file: UpstreamFile) -> Checkpoint:
    """What YOLOv5 wrote as a checkpoint of this project.

    Its optimizer stays behind: going on exactly needs more, so such a file starts a training but resumes none.
    """
    content = {name: getattr(file, name) for name in file.__dataclass_fields__}
    meta = ModelMeta(**{name: content.pop(name) for name in ModelMeta.__dataclass_fields__})
    return Checkpoint(meta=meta, **content)


def _checked(content: Any, source: Path) -> Checkpoint:
    """A file's content as a Checkpoint, after looking at each part."""
    if not isinstance(content, Mapping) or not isinstance(content.get("meta"), Mapping):
        raise CheckpointError(f"{source}: is a PyTorch file, but no checkpoint of this project (no `meta` inside)")
    form, meta = content.get("format"), content["meta"]
    if type(form) is not int or form != FORMAT:
        raise CheckpointError(f"{source}: has format {form!r:.40}; this version reads {FORMAT}")
    try:
        known = {name: meta[name] for name in ModelMeta.__dataclass_fields__}
        parts = {name: content[name] for name in Checkpoint.__dataclass_fields__ if name != "meta"}
    except KeyError as error:
        raise CheckpointError(f"{source}: lacks {error}") from error
    for name, value in {**known, **parts}.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise CheckpointError(f"{source}: `{name}` cannot be a {type(value).__name__}")
    if not all(isinstance(key, str) for key in known["yaml"]) or not _are_names(known["names"], known["nc"]):
        raise CheckpointError(f"{source}: `meta` must hold the model's yaml, and a name for each of its classes")
    for name in ("model", "ema"):
        if parts[name] is not None and not _is_state_dict(parts[name], source.stat().st_size):
            raise CheckpointError(f"{source}: `{name}` must be a dict of tensors, each with values of its own")
    return Checkpoint(meta=ModelMeta(**known), **parts)


def _are_names(names: Mapping[Any, Any], nc: int) -> bool:
    """Whether there is a text for each class."""
    texts = all(isinstance(name, str) and not _SURROGATES.search(name) for name in names.values())
    return texts and len(names) == nc and all(index in names for index in range(len(names)))


def _is_state_dict(value: Mapping[Any, Any], largest: int) -> bool:
    """Whether a dict is one of tensors that are not, by sharing values, larger together than their file."""
    tensors = all(isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in value.items())
    return tensors and sum(tensor.nbytes for tensor in value.values()) <= largest


def model_from_checkpoint(checkpoint: Checkpoint, ema: bool = True) -> DetectionModel:
    """Build the network that a checkpoint describes, with its weights, in float32 and evaluation mode.

    Args:
        checkpoint: what :func:`read_checkpoint` gave.
        ema: take the moving average rather than the raw weights, where there is one.

    Raises:
        CheckpointError: when the tensors do not fit the description.
    """
    meta = checkpoint.meta
    weights = checkpoint.weights if ema else checkpoint.model
    try:
        with torch.device("meta"):  # first without memory, which a small file could ask for any amount of
            DetectionModel(meta.yaml, nc=meta.nc).load_state_dict(weights, assign=True)
        model = DetectionModel(meta.yaml, nc=meta.nc)
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (ConfigError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit its own description: {first_line(error)}") from error
    model.names = dict(meta.names)
    model.hyp = meta.hyp
    size = checkpoint.opt.get("imgsz")
    model.imgsz = size if isinstance(size, int) else None  # px, what it was trained at
    return model.float().eval()
