"""Model YAML -> checked, immutable description. A YAML is data: words come from closed lists, nothing is evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from models.layers.activations import parse_activation
from models.rows import RawRow, read_rows, shorten
from utils.errors import ConfigError
from utils.paths import check_yaml
from utils.yaml_io import yaml_load

_WORDS = {"None": None, "none": None, "True": True, "true": True, "False": False, "false": False}
_TEXTS = frozenset({"nearest", "nearest-exact", "linear", "bilinear", "bicubic", "area"})  # modes of resizing
_MOST_LAYERS = 250  # rows and their repeats; the largest network has 80; 330 attention blocks took five seconds
_LONGEST_LIST = 100  # as an argument
_LARGEST = 1 << 16  # no width, kernel or repeat count of a real network comes near it


@dataclass(frozen=True)
class Row:
    """One line of ``backbone`` or ``head``.

    Attributes:
        index: number of the layer, counted from 0 over both lists.
        where: how messages name the row.
        sources: absolute indices of the layers it reads, :data:`models.rows.IMAGE` for the image.
        source_field: ``from`` as the file gives it, with numbers for names.
        repeats: count before the depth multiple.
        module: name in the registry.
        args: values with names and literals already resolved.
    """

    index: int
    where: str
    sources: tuple[int, ...]
    source_field: int | list[int]
    repeats: int
    module: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class ModelConfig:
    """A model YAML after checking.

    Attributes:
        anchors: one tuple of (w, h, w, h, ...) in pixels per level, or a whole number: that many per level, yet to
            be found.
        activation: text of the default activation, None for SiLU.
        block_activation: the same for the blocks with one of their own, BottleneckCSP and MixConv2d.
        bn_eps: of every batch norm.
        bn_momentum: of every batch norm.
    """

    name: str
    nc: int
    depth_multiple: float
    width_multiple: float
    channel_multiple: int
    anchors: int | tuple[tuple[float, ...], ...]
    activation: str | None
    ch: int
    inplace: bool
    rows: tuple[Row, ...]
    block_activation: str | None = None
    bn_eps: float = 1e-3
    bn_momentum: float = 0.03

    @property
    def anchors_per_level(self) -> int:
        """How many anchors the head has at each place."""
        return self.anchors if isinstance(self.anchors, int) else len(self.anchors[0]) // 2


def load_model_yaml(cfg: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Read a model description.

    Args:
        cfg: a path or name of a YAML file, or its content.

    Returns:
        The content as a new dict, and the name that messages use.
    """
    if isinstance(cfg, Mapping):
        return dict(cfg), str(cfg.get("yaml_file", "model dict"))
    path = check_yaml(cfg)
    return yaml_load(path), Path(path).name


def parse_config(content: Mapping[str, Any], name: str = "model dict") -> ModelConfig:
    """Check a model description and resolve its rows.

    Raises:
        ConfigError: naming the file and the key or row.
    """
    raw_rows = read_rows(content, name)
    nc = _whole(content.get("nc", 80), f"{name}: nc", low=1)
    anchors = parse_anchors(content.get("anchors"), f"{name}: anchors")
    names = {"nc": nc, "anchors": anchors}
    rows = tuple(_parse_row(raw, names) for raw in raw_rows)
    depth_multiple = _positive(content.get("depth_multiple", 1.0), f"{name}: depth_multiple")
    layers = sum(max(round(row.repeats * depth_multiple), 1) for row in rows)
    if layers > _MOST_LAYERS:
        raise ConfigError(f"{name}: its rows ask for {layers:,} layers, more than {_MOST_LAYERS:,}; check the numbers")
    return ModelConfig(
        name=name,
        nc=nc,
        depth_multiple=depth_multiple,
        width_multiple=_positive(content.get("width_multiple", 1.0), f"{name}: width_multiple"),
        channel_multiple=_whole(content.get("channel_multiple") or 8, f"{name}: channel_multiple", low=1),
        anchors=anchors,
        activation=_activation(content.get("activation"), name),
        ch=_whole(content.get("ch", 3), f"{name}: ch", low=1),
        inplace=bool(content.get("inplace", True)),
        rows=rows,
        block_activation=_activation(content.get("block_activation"), name),
        bn_eps=_positive(content.get("bn_eps", ModelConfig.bn_eps), f"{name}: bn_eps"),
        bn_momentum=_positive(content.get("bn_momentum", ModelConfig.bn_momentum), f"{name}: bn_momentum"),
    )


def _parse_row(raw: RawRow, names: Mapping[str, Any]) -> Row:
    return Row(
        index=raw.index,
        where=raw.where,
        sources=raw.sources,
        source_field=raw.source_field,
        repeats=_whole(raw.repeats, f"{raw.where}: number", low=1),
        module=raw.module,
        args=tuple(_resolve_argument(value, raw.where, names) for value in raw.args),
    )


def _resolve_argument(value: Any, where: str, names: Mapping[str, Any]) -> Any:
    """Literals from closed lists: numbers, booleans, None, known words, ``nc``, ``anchors``, activations."""
    if isinstance(value, (list, tuple)):
        if len(value) > _LONGEST_LIST:
            raise ConfigError(f"{where}: a list of {len(value)} values is too long for any layer")
        return [_resolve_argument(item, where, names) for item in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise ConfigError(f"{where}: the number {value} is too large for any layer")
        return value
    if not isinstance(value, str):
        raise ConfigError(f"{where}: cannot use {value!r} as an argument")
    if value in names:
        return names[value]
    if value in _WORDS:
        return _WORDS[value]
    if value in _TEXTS:
        return value
    return _number_or_activation(value, where)


def _number_or_activation(text: str, where: str) -> float | int | nn.Module:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    try:
        return parse_activation(text)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: cannot use {shorten(text)} as an argument; allowed are numbers, True, False, None, nc, "
            f"anchors, {', '.join(sorted(_TEXTS))} and activations such as nn.SiLU()"
        ) from error


def _activation(value: Any, where: str) -> str | None:
    """The text of an activation that can be built."""
    if value is None:
        return None
    try:
        parse_activation(str(value))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return str(value)


def parse_anchors(value: Any, where: str) -> int | tuple[tuple[float, ...], ...]:
    """Anchors of a YAML: how many per level, or widths and heights in px, a tuple per level.

    Raises:
        ConfigError: for anything else, saying where.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _whole(round(value) if math.isfinite(value) else value, where, low=1)
    if not isinstance(value, (list, tuple)) or not value:
        raise ConfigError(
            f"{where} must list one row of w,h pairs per level, or be a number per level; found {value!r}"
        )
    levels = []
    for level in value:
        numbers_only = isinstance(level, (list, tuple)) and all(
            isinstance(side, (int, float)) and not isinstance(side, bool) and 0 <= side < math.inf for side in level
        )
        if not numbers_only or len(level) < 2 or len(level) % 2:
            raise ConfigError(f"{where}: a level must be a flat list of w,h pairs in pixels, found {shorten(level)}")
        levels.append(tuple(float(side) for side in level))
    if len({len(level) for level in levels}) > 1:
        raise ConfigError(f"{where}: every level needs the same number of anchors")
    return tuple(levels)


def _whole(value: Any, where: str, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _LARGEST:
        raise ConfigError(f"{where} must be a whole number from {low} to {_LARGEST}, found {value!r}")
    return value


def _positive(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 100:
        raise ConfigError(f"{where} must be a number above 0 (and at most 100), found {value!r}")
    return float(value)
