"""Which names a model YAML may use, and how a row's numbers reach each constructor.

Decorate a class with :func:`register_layer` and its name works in every YAML. The rule a layer registers under says
how wide its output is and what its constructor receives:

=============  ==================================  =========================================================
width          output width                        constructor receives
=============  ==================================  =========================================================
``scaled``     args[0] x width_multiple, rounded   (c1, c2, *other args); with ``repeats`` (c1, c2, n, *other args)
``same``       that of the input                   (*args), or with ``row`` names (c1, name=value, ...)
``normed``     that of the input                   (c1)
``sum``        all inputs together                 (*args)
``shrunk``     input x args[0] squared             (*args)
``spread``     input / args[0] squared             (*args)
``detect``     none (it is the head)               (*args, list of input widths)
=============  ==================================  =========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from utils.errors import ConfigError, did_you_mean

WIDTH_RULES = ("scaled", "same", "normed", "sum", "shrunk", "spread", "detect")


@dataclass(frozen=True)
class LayerSpec:
    """How one YAML name becomes a layer.

    ``row`` names the parameters that a row's values go to (for ``scaled`` layers those after the width);
    ``row_defaults`` are keyword values that a YAML row gets where it gives none itself.
    """

    name: str
    cls: Callable[..., nn.Module]
    width: str
    repeats: bool = False
    row: tuple[str, ...] | None = None
    row_defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def type_name(self) -> str:
        """The dotted name kept in a layer's ``type`` attribute, as outside tools expect it."""
        if self.width == "detect":
            return f"models.yolo.{self.name}"
        module = self.cls.__module__
        return f"models.common.{self.name}" if module.split(".")[0] == "models" else f"{module}.{self.cls.__qualname__}"


_LAYERS: dict[str, LayerSpec] = {}


def register_layer(
    name: str | None = None,
    *,
    width: str,
    repeats: bool = False,
    row: tuple[str, ...] | None = None,
    row_defaults: Mapping[str, Any] | None = None,
) -> Callable[[type], type]:
    """Class decorator: make a layer usable by name in a model YAML.

    Args:
        name: name in the YAML; the class's own when omitted.
        width: one of :data:`WIDTH_RULES`.
        repeats: the constructor takes the repeat count as third argument; otherwise copies are made.
        row: parameter names for a row's values, in the row's order.
        row_defaults: keyword arguments of a layer built from a row, unless the row gives them.

    Raises:
        ValueError: when the name is taken or the width rule unknown: both are programming errors.
    """
    if width not in WIDTH_RULES:
        raise ValueError(f"width rule {width!r} is not one of {WIDTH_RULES}")

    def add(cls: type) -> type:
        key = name or cls.__name__
        if key in _LAYERS:
            raise ValueError(f"layer name {key!r} is already registered by {_LAYERS[key].cls}")
        _LAYERS[key] = LayerSpec(key, cls, width, repeats, row, MappingProxyType(dict(row_defaults or {})))
        return cls

    return add


def layer_spec(name: str) -> LayerSpec:
    """Look a layer up by its YAML name.

    Raises:
        ConfigError: when there is none; the message lists the closest names.
    """
    spec = _LAYERS.get(name)
    if spec is None:
        hint = did_you_mean(str(name), _LAYERS) or f"known: {', '.join(sorted(_LAYERS))}"
        raise ConfigError(f"unknown module {name!r}; {hint}")
    return spec


def registered_layers() -> dict[str, LayerSpec]:
    """A copy of the registry, by name."""
    return dict(_LAYERS)
