"""From checked rows to layers: widths, repeats, and the attributes that outside tools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from models.attention import (  # noqa: F401 - importing registers the attention layers
    axial,
    backbone,
    biformer,
    bra,
    deformable,
    dilated,
    full,
    window,
)
from models.config import ModelConfig, Row, parse_anchors, parse_config
from models.heads import Detect
from models.layers import (  # noqa: F401 - importing registers
    activations,
    c3_biformer,
    conv,
    csp,
    pooling,
    reshape,
    transformer,
)
from models.registry import LayerSpec, layer_spec
from models.rows import IMAGE
from utils.errors import ConfigError, first_line
from utils.sizes import make_divisible


def parse_model(d: Mapping[str, Any], ch: Sequence[int] = (3,)) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model dict.

    Args:
        d: content of a model YAML.
        ch: width of the input, as a sequence whose last entry counts.

    Returns:
        The layers, and the sorted indices of those whose output a later layer reads.
    """
    return build_layers(parse_config({**d, "ch": ch[-1]}))


def build_layers(config: ModelConfig) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a checked configuration; see :func:`parse_model`.

    Raises:
        ConfigError: naming the row whose width, inputs or arguments do not work.
    """
    widths: list[int] = []
    layers: list[nn.Module] = []
    kept: set[int] = set()
    for row in config.rows:
        layer, width = _build_row(row, config, [config.ch if s == IMAGE else widths[s] for s in row.sources])
        layers.append(layer)
        widths.append(width)
        as_list = row.source_field if isinstance(row.source_field, list) else [row.source_field]
        kept.update(source for source, given in zip(row.sources, as_list, strict=True) if given != -1)
    model = nn.Sequential(*layers)
    _set_norms(model, config)
    _set_activations(model, config)
    return model, sorted(kept)


def _build_row(row: Row, config: ModelConfig, widths_in: list[int]) -> tuple[nn.Module, int]:
    """One row's layer, with the attributes ``i f type np``, and the width of its output."""
    try:
        spec = layer_spec(row.module)
    except ConfigError as error:
        raise ConfigError(f"{row.where}: {error}") from error
    if len(widths_in) > 1 and spec.width not in ("sum", "detect"):
        raise ConfigError(f"{row.where}: {row.module} takes one input, `from` lists {len(widths_in)}")
    repeats = max(round(row.repeats * config.depth_multiple), 1) if row.repeats > 1 else row.repeats
    args, named, width_out = _layer_arguments(row, spec, config, widths_in)
    if spec.repeats:
        args.insert(2, repeats)
        repeats = 1
    if repeats > 1 and width_out != widths_in[0]:
        raise ConfigError(
            f"{row.where}: {repeats} copies in a row need equal widths, here {widths_in[0]} -> {width_out}"
        )
    try:
        copies = [spec.cls(*args, **named) for _ in range(repeats)]
    except ConfigError as error:
        raise ConfigError(f"{row.where}: {error}") from error
    except (TypeError, ValueError, RuntimeError, IndexError, ZeroDivisionError, ArithmeticError) as error:
        raise ConfigError(f"{row.where}: {row.module} does not take these arguments ({first_line(error)})") from error
    layer = copies[0] if repeats == 1 else nn.Sequential(*copies)
    layer.i, layer.f, layer.type = row.index, row.source_field, spec.type_name
    layer.np = sum(parameter.numel() for parameter in layer.parameters())
    return layer, width_out


def _layer_arguments(
    row: Row, spec: LayerSpec, config: ModelConfig, widths_in: list[int]
) -> tuple[list[Any], dict[str, Any], int]:
    """Positional and named constructor arguments, and the output width, by the layer's width rule."""
    args = list(row.args)
    c1 = widths_in[0]
    if spec.width == "scaled":
        width = _scaled_width(args, row, config)
        positional, named = _named_arguments(args[1:], row, spec)
        return [c1, width, *positional], named, width
    if spec.width == "detect":
        return _head_arguments(args, row, config, widths_in), {}, 0
    if spec.width == "normed":
        return [c1], {}, c1
    if spec.width == "same":
        positional, named = _named_arguments(args, row, spec)
        return ([c1, *positional] if spec.row is not None else positional), named, c1
    if spec.width == "sum":
        return args, {}, sum(widths_in)
    return args, {}, _reshaped_width(args, row, spec, c1)


def _scaled_width(args: list[Any], row: Row, config: ModelConfig) -> int:
    """The row's first argument as a layer width, scaled and rounded unless it is the head's own width."""
    if not args or isinstance(args[0], bool) or not isinstance(args[0], int) or args[0] < 1:
        found = repr(args[0]) if args else "nothing"
        raise ConfigError(f"{row.where}: the first argument must be a width, a whole number above 0, found {found}")
    if args[0] == config.anchors_per_level * (config.nc + 5):
        return args[0]
    return make_divisible(args[0] * config.width_multiple, config.channel_multiple)


def _named_arguments(values: list[Any], row: Row, spec: LayerSpec) -> tuple[list[Any], dict[str, Any]]:
    """A row's values as keywords where the layer names them, else as they are."""
    if spec.row is None:
        return values, dict(spec.row_defaults)
    if len(values) > len(spec.row):
        raise ConfigError(f"{row.where}: {spec.name} takes at most {len(spec.row)} values ({', '.join(spec.row)})")
    return [], {**spec.row_defaults, **dict(zip(spec.row, values, strict=False))}


def _head_arguments(args: list[Any], row: Row, config: ModelConfig, widths_in: list[int]) -> list[Any]:
    """Class count, anchors as lists a level, input widths."""
    nc = args[0] if args else config.nc
    anchors = parse_anchors(args[1], f"{row.where}: anchors") if len(args) > 1 else config.anchors
    if isinstance(anchors, int):
        anchors = [list(range(anchors * 2))] * len(widths_in)  # placeholders until AutoAnchor has run
    if len(anchors) != len(widths_in):
        raise ConfigError(f"{row.where}: {len(widths_in)} inputs but anchors for {len(anchors)} levels")
    return [nc, [list(level) for level in anchors], widths_in, *args[2:]]


def _reshaped_width(args: list[Any], row: Row, spec: LayerSpec, c1: int) -> int:
    """Width after moving channels to space or back."""
    gain = args[0] if args else 2
    if isinstance(gain, bool) or not isinstance(gain, int) or gain < 1:
        raise ConfigError(f"{row.where}: {spec.name} needs a whole number above 0, found {gain!r}")
    if spec.width == "shrunk":
        return c1 * gain**2
    if c1 % gain**2:
        raise ConfigError(f"{row.where}: {c1} channels do not divide by {gain}x{gain}")
    return c1 // gain**2


def _set_norms(model: nn.Module, config: ModelConfig) -> None:
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:  # a subclass, as in the published BiFormers' stem, keeps its own
            module.eps, module.momentum = config.bn_eps, config.bn_momentum


def _set_activations(model: nn.Module, config: ModelConfig) -> None:
    """Give what the YAML names to every Conv that asked for the default, and to the blocks with one of their own."""
    for module in model.modules():
        if isinstance(module, conv.Conv) and module.default_act and config.activation is not None:
            module.act = activations.parse_activation(config.activation)
        elif isinstance(module, (csp.BottleneckCSP, conv.MixConv2d)) and config.block_activation is not None:
            module.act = activations.parse_activation(config.block_activation)


def find_head(layers: nn.Sequential, config: ModelConfig) -> Detect:
    """The detection head, which must be the last layer, and the only one: what it gives no other layer can take.

    Raises:
        ConfigError: when it is not.
    """
    head = layers[-1] if len(layers) else None
    if not isinstance(head, Detect):
        raise ConfigError(f"{config.name}: the last row must be Detect")
    for layer, row in zip(layers[:-1], config.rows[:-1], strict=True):
        if any(isinstance(module, Detect) for module in layer.modules()):
            raise ConfigError(f"{row.where}: only the last row can be Detect")
    return head
