"""Checkpoints that YOLOv5 itself has written: pickled networks, read as data and described in this project's words.

Such a file holds its network as a tree of objects. Their tensors, in the order of a state dict, and the YAML kept with
them are enough to build the network here; what only the objects tell (activations, the norms' settings) is written
into that YAML. The result is compared with the tree, layer by layer, so that nothing is computed differently unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.layers.conv import CrossConv, DWConvTranspose2d
from models.layers.csp import Bottleneck
from models.pickled_network import PickledNetwork, activation_text, class_name, find_networks, own_classes
from models.yolo import DetectionModel
from utils.errors import CheckpointError, ConfigError, first_line
from utils.pickle_reader import UnreadableError
from utils.torch_file import TorchFile
from utils.torch_records import as_plain

_SHOWN = 3  # names of tensors in a message


@dataclass(frozen=True)
class UpstreamFile:
    """What a checkpoint of YOLOv5 says, as plain data; the names are those of :class:`models.checkpoint.Checkpoint`."""

    yaml: dict[str, Any]
    names: dict[int, str]
    nc: int
    stride: list[float]
    hyp: dict[str, Any] | None
    model: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor] | None
    epoch: int
    best_fitness: float | None
    updates: int | None
    opt: dict[str, Any]
    git: dict[str, Any] | None
    date: str | None


def read_upstream(path: str | Path) -> UpstreamFile | None:
    """Read a file that YOLOv5 has written; nothing in it can run code.

    Args:
        path: the file, in either of PyTorch's two forms.

    Returns:
        Its content, or None when the file holds no network as objects.

    Raises:
        CheckpointError: when it is damaged, asks for objects that no such file needs, or describes a network that
            cannot be built here as it was.
    """
    source = Path(path)
    with TorchFile(source, own_classes()) as file:
        try:
            networks = find_networks(file.content)
            if "model" not in networks:
                return None
            return _read(file, networks)
        except ConfigError as error:
            raise CheckpointError(f"{source}: its network cannot be built here: {first_line(error, 400)}") from error
        except UnreadableError as error:
            raise CheckpointError(f"{source}: {first_line(error)}") from error


def _read(file: TorchFile, networks: Mapping[str, PickledNetwork]) -> UpstreamFile:
    content = file.content if isinstance(file.content, dict) else {}
    network = networks["model"]
    config = {**network.yaml, "yaml_file": f"{file.path.stem}.yaml"}
    with torch.device("meta"):  # without memory, which the YAML could ask for any amount of
        twin = DetectionModel(config)
    for each in networks.values():
        _compare(twin, each, file.path)
    tensors = {key: _tensors(file, each, twin) for key, each in networks.items()}
    names = network.names or {index: str(index) for index in range(twin.nc)}
    if len(names) != twin.nc:
        raise UnreadableError(f"has {len(names)} class names for {twin.nc} classes")
    settings = as_plain({key: content.get(key) for key in ("epoch", "best_fitness", "opt", "git", "date")})
    return UpstreamFile(
        yaml=config,
        names=names,
        nc=twin.nc,
        stride=_strides(file, network, len(twin.stride), config),
        hyp=network.hyp,
        model=tensors["model"],
        ema=tensors.get("ema"),
        epoch=_number(settings["epoch"], int, -1),
        best_fitness=_number(settings["best_fitness"], float, None),
        updates=_number(as_plain(_updates(content)), int, None),
        opt=settings["opt"] if isinstance(settings["opt"], dict) else {},
        git=settings["git"] if isinstance(settings["git"], dict) else None,
        date=settings["date"] if isinstance(settings["date"], str) else None,
    )


def _updates(content: Mapping[str, Any]) -> Any:
    """Steps of the moving average; for a while they were kept beside it in a tuple."""
    average = content.get("ema")
    return average[1] if type(average) is tuple and len(average) == 2 else content.get("updates")


def _number(value: Any, kind: type, otherwise: Any) -> Any:
    """A number, also out of a list of one, as NumPy's arrays of one value arrive here."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return otherwise
    return kind(value)


def _strides(file: TorchFile, network: PickledNetwork, levels: int, config: Mapping[str, Any]) -> list[float]:
    """Pixels a cell of each level: what the file says; where it says nothing, what a network built from it has."""
    record = network.strides
    if record is not None and record.size != (levels,):
        raise UnreadableError(f"has strides of size {record.size} for {levels} levels")
    strides = DetectionModel(config).stride if record is None else file.tensor(record)
    return [float(stride) for stride in strides.flatten()]


def _compare(twin: DetectionModel, network: PickledNetwork, path: Path) -> None:
    """Make sure that the network built from the YAML computes what the file's objects do.

    Raises:
        CheckpointError: naming what differs.
    """
    built = {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}
    held = {name: record.size for name, record in network.tensors.items()}
    differing = [name for name in {**built, **held} if built.get(name) != held.get(name)]
    if differing:
        first = ", ".join(f"{name} {held.get(name, 'missing')}" for name in differing[:_SHOWN])
        fused = any(name.endswith(".conv.bias") for name in held)
        hint = "; its norms were folded into the convolutions: use the file from before" if fused else ""
        raise CheckpointError(f"{path}: {len(differing)} tensors do not fit the file's own yaml: {first}{hint}")
    for name, found, wanted in _differences(twin, network):
        raise CheckpointError(
            f"{path}: {name} is {found}, but its yaml builds {wanted}: it would compute another thing"
        )


def _differences(twin: DetectionModel, network: PickledNetwork) -> Iterator[tuple[str, str, str]]:
    """Modules whose settings differ: name, what the file has, what was built."""
    for name, module in twin.named_modules():
        record = network.modules.get(name)
        if record is None:  # YOLOv5 has nothing where there is an identity here; tensors have been compared
            continue
        is_row = name.startswith("model.") and name.count(".") == 1
        kinds = [_SAME_KIND.get(kind, kind) for kind in (class_name(record), type(module).__name__)]
        if is_row and kinds[0] != kinds[1]:
            yield name, f"a {kinds[0]}", f"a {kinds[1]}"
        for setting in (*_SETTINGS.get(type(module), ()), *(("f",) if is_row else ())):
            wanted = getattr(module, setting)
            found = as_plain(record.state.get(setting, wanted))
            if _without_repeats(found) != _without_repeats(wanted):
                yield f"{name}.{setting}", f"{found!r:.60}", f"{wanted!r:.60}"
        texts = activation_text(record), activation_text(module)
        if texts[0] != texts[1]:
            yield name, texts[0] or record.type, texts[1] or type(module).__name__


def _without_repeats(value: Any) -> Any:
    """A setting so that the ways to write it compare equal: sides of one length are often given as one number."""
    if isinstance(value, (list, tuple)) and len(value) in (1, 2):
        return value[0] if value[0] == value[-1] else list(value)
    return value


_SAME_KIND = {"DWConv": "Conv"}  # which made a Conv before it was a class
# What a layer's result depends on beside its tensors and its class.
_SETTINGS: dict[type, tuple[str, ...]] = {
    nn.Conv2d: ("stride", "padding", "dilation", "groups", "padding_mode"),
    nn.BatchNorm2d: ("eps", "momentum"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.Upsample: ("size", "scale_factor", "mode", "align_corners"),
    nn.ConvTranspose2d: ("stride", "padding", "output_padding", "groups", "dilation"),
    DWConvTranspose2d: ("stride", "padding", "output_padding", "groups", "dilation"),
    nn.MultiheadAttention: ("num_heads",),
    Bottleneck: ("add",),
    CrossConv: ("add",),
}


def _tensors(file: TorchFile, network: PickledNetwork, twin: DetectionModel) -> dict[str, torch.Tensor]:
    """The state dict of a network, in the order and with the names of the one built."""
    records = network.tensors.values()
    if sum(record.values * record.dtype.itemsize for record in records) > file.path.stat().st_size:
        raise UnreadableError("its tensors share values, so that together they are larger than the file")
    return {name: file.tensor(network.tensors[name]) for name in twin.state_dict()}
