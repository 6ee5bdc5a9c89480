"""A network as a PyTorch file keeps it when a whole module was saved: a tree of records, and what is read off it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from torch import nn

import models.builder  # noqa: F401 - registers every layer
from models.config import ModelConfig
from models.layers.activations import ACTIVATIONS
from models.registry import registered_layers
from utils.pickle_reader import Record, UnreadableError
from utils.torch_records import NAMESPACE, TensorRecord, as_plain

_HOMES = ("models.yolo", "models.common", "models.experimental")  # where YOLOv5's blocks have lived over the years
_NETWORKS = ("DetectionModel", "Model")  # the second up to v6.1
_NORMS = ("BatchNorm2d", "SyncBatchNorm")
_WRAPPERS = ("DataParallel", "DistributedDataParallel")
_OWN_ACTIVATIONS = ("SiLU", "Hardswish", "Mish")  # of early versions, in utils.activations
_BLOCKS_WITH_ACTIVATION = ("BottleneckCSP", "MixConv2d")  # beside those of their convolutions
_LEFT_OUT = ("anchor_grid", "total_ops", "total_params")  # buffers: the anchors in pixels (to v5), notes of a profiler
_DEEPEST, _MOST_ENTRIES = 30, 200_000  # levels, and entries of all modules: yolov5x6 has 9 and 2,600

# What tells two activations of one class apart: attributes in the order of the constructor's arguments.
_ACTIVATION_SETTINGS = {
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "CELU": ("alpha",),
    "GELU": ("approximate",),
    "Hardtanh": ("min_val", "max_val"),
    "PReLU": ("num_parameters",),
    "Softplus": ("beta", "threshold"),
}


def own_classes() -> set[tuple[str, str]]:
    """Classes, as (module, name), that a saved network may be made of beside PyTorch's own.

    They are the layers known here, by the modules that they live in and by those of YOLOv5.
    """
    classes = [spec.cls for spec in registered_layers().values() if spec.cls.__module__.startswith("models.")]
    names = [cls.__name__ for cls in classes] + list(_NETWORKS)
    found = {(home, name) for home in _HOMES for name in names}
    found |= {(cls.__module__, cls.__name__) for cls in classes}
    return found | {("utils.activations", name) for name in _OWN_ACTIVATIONS}


def find_networks(content: Any) -> dict[str, PickledNetwork]:
    """The networks that a file's content holds as objects, under ``model`` and ``ema``.

    Raises:
        UnreadableError: when an object is there that is no detection model.
    """
    parts = content if isinstance(content, dict) else {"model": content}
    found = {key: _network_in(parts.get(key)) for key in ("model", "ema")}
    networks = {key: network for key, network in found.items() if network is not None}
    if list(networks) == ["ema"] and parts.get("model") is None:
        return {"model": networks["ema"]}
    return networks


def _network_in(value: Any) -> PickledNetwork | None:
    """The network that a part of a file is, alone or with its number of updates; None for plain data."""
    if type(value) is tuple and value:
        value = value[0]
    for _ in _WRAPPERS:
        if isinstance(value, Record) and class_name(value) in _WRAPPERS:
            value = _part(value, "_modules").get("module")
    if not isinstance(value, Record) or value.type == NAMESPACE:
        return None
    if class_name(value) not in _NETWORKS:
        raise UnreadableError(f"holds a {value.type}, which is no detection model of YOLOv5")
    return PickledNetwork(value)


class PickledNetwork:
    """A saved detection model.

    Args:
        root: its record.

    Attributes:
        modules: every record of the tree by its dotted name, "" the root.
        tensors: parameters and buffers by the names that a state dict has, in that order.
    """

    def __init__(self, root: Record):
        self.modules: dict[str, Record] = {}
        self.tensors: dict[str, TensorRecord] = {}
        self._entries = 0
        self._collect(root, "", 0)
        self._state = root.state

    def _collect(self, record: Record, name: str, depth: int) -> None:
        kept = [record.state.get(key) for key in ("_parameters", "_buffers", "_modules")]
        self._entries += 1 + sum(len(part) for part in kept if isinstance(part, dict))
        if depth > _DEEPEST or self._entries > _MOST_ENTRIES:
            raise UnreadableError(f"its network is deeper than {_DEEPEST} levels, or of too many modules")
        self.modules[name] = record
        prefix = f"{name}." if name else ""
        for key, tensor in _own_tensors(record):
            self.tensors[f"{prefix}{key}"] = tensor
        for key, child in _part(record, "_modules").items():
            if isinstance(child, Record):
                self._collect(child, f"{prefix}{key}", depth + 1)

    @cached_property
    def yaml(self) -> dict[str, Any]:
        """The model YAML kept in the file, with what only the objects tell added to it.

        Raises:
            UnreadableError: when there is none.
        """
        config = as_plain(self._state.get("yaml"))
        if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
            raise UnreadableError("its network has no `yaml` to build it from; it is older than YOLOv5 v2, or changed")
        return {**config, **self._only_in_objects(config)}

    @cached_property
    def names(self) -> dict[int, str]:
        """Class index -> name; empty when the file has none."""
        given = as_plain(self._state.get("names"))
        pairs = given.items() if isinstance(given, dict) else enumerate(given if isinstance(given, list) else [])
        names = {index: str(name).encode(errors="replace").decode() for index, name in pairs}
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UnreadableError("its class names are not numbered from 0")
        return {int(index): names[index] for index in names}

    @property
    def strides(self) -> TensorRecord | None:
        """Pixels a cell of each level, (levels,); None when the file has none."""
        found = self._state.get("stride")
        return found if isinstance(found, TensorRecord) else None

    @cached_property
    def hyp(self) -> dict[str, Any] | None:
        """Hyperparameters of the training, where they were kept."""
        found = as_plain(self._state.get("hyp"))
        return found if isinstance(found, dict) else None

    def _only_in_objects(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Entries of a YAML for what the network's own does not say; where layers differ, those of the first one."""
        entries: dict[str, Any] = {}
        convolutions = [record for record in self.modules.values() if _is_convolution(record)]
        blocks = [record for record in self.modules.values() if class_name(record) in _BLOCKS_WITH_ACTIVATION]
        for key, holders in (("activation", convolutions), ("block_activation", blocks)):
            texts = [activation_text(record.state.get("_modules", {}).get("act")) for record in holders]
            text = next((text for text in texts if text not in (None, "nn.Identity()")), "nn.SiLU()")
            if text != "nn.SiLU()" or (holders and key in config):
                entries[key] = text
        norms = [record.state for record in self.modules.values() if class_name(record) in _NORMS]
        for key, setting in (("bn_eps", "eps"), ("bn_momentum", "momentum")):
            value = norms[0].get(setting) if norms else None
            if isinstance(value, float) and value != getattr(ModelConfig, key):
                entries[key] = value
        return entries


def activation_text(module: Any) -> str | None:
    """An activation, a record or a module, as a YAML names it: ``nn.LeakyReLU(0.1)``; None for anything else."""
    if isinstance(module, Record):
        name, settings = class_name(module), module.state
        if name == "Sequential" and not settings.get("_modules"):  # an identity, too
            name = "Identity"
    else:
        name, settings = type(module).__name__, vars(module) if isinstance(module, nn.Module) else {}
    if name not in ACTIVATIONS:
        return None
    usual = vars(ACTIVATIONS[name]())
    keys = _ACTIVATION_SETTINGS.get(name, ())
    values = [settings.get(key, usual[key]) for key in keys]
    if not all(isinstance(value, (str, int, float)) for value in values):
        return f"an nn.{name} of unknown settings"
    if values == [usual[key] for key in keys]:
        values = []
    return f"nn.{name}({', '.join(map(repr, values))})"


def class_name(record: Record) -> str:
    """The class of a record, without its module."""
    return record.type.rpartition(".")[2]


def _part(record: Record, key: str) -> Mapping[str, Any]:
    """One of the dicts that a module keeps its tensors and children in."""
    found = record.state.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(name, str) and name.isprintable() for name in found):
        raise UnreadableError(f"{key} of a {record.type} is damaged")
    return found


def _own_tensors(record: Record) -> Iterator[tuple[str, TensorRecord]]:
    """Tensors of a module itself that belong to its state dict."""
    passing = record.state.get("_non_persistent_buffers_set")
    left_out = passing if isinstance(passing, set) else ()
    kept = {**_part(record, "_parameters"), **_part(record, "_buffers")}
    for key, tensor in kept.items():
        if isinstance(tensor, TensorRecord) and key not in left_out and key not in _LEFT_OUT:
            yield key, tensor


def _is_convolution(record: Record) -> bool:
    children = record.state.get("_modules", {})
    return "conv" in children and "act" in children
