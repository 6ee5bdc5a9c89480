"""Activations by name, from a closed list: a YAML may choose one, never run one."""

from __future__ import annotations

import ast
import difflib

import torch
from torch import nn

from utils.errors import ConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.ELU, nn.CELU, nn.SELU, nn.PReLU,
        nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity,
    )
}  # fmt: skip
_LONGEST = 100  # characters; no activation needs more, and the parser never sees a novel


def parse_activation(text: str) -> nn.Module:
    """Build an activation from a text such as ``nn.LeakyReLU(0.1)``.

    Args:
        text: ``nn.NAME(...)`` or ``torch.nn.NAME(...)``; NAME from :data:`ACTIVATIONS`, arguments plain literals.

    Raises:
        ConfigError: for anything else; nothing in the text is ever executed.
    """
    call = _parse_call(text)
    if call is None:
        raise ConfigError(f"activation {text[:_LONGEST]!r} is not of the form nn.SiLU() or nn.LeakyReLU(0.1)")
    name = call.func.attr
    if name not in ACTIVATIONS:
        close = difflib.get_close_matches(name, ACTIVATIONS, n=3)
        raise ConfigError(f"unknown activation nn.{name}; known: {', '.join(close or ACTIVATIONS)}")
    try:
        values = [ast.literal_eval(value) for value in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        module = ACTIVATIONS[name](*values, **named)
        module(torch.zeros(1, device="meta"))  # some numbers are refused at the first use alone
        return module
    except (ValueError, TypeError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"activation {text!r}: arguments must be plain numbers that it takes ({error})") from error


def _parse_call(text: str) -> ast.Call | None:
    """The syntax tree of ``nn.NAME(...)``, or None when the text is anything else."""
    if len(text) > _LONGEST:
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute)):
        return None
    return tree if ast.unparse(tree.func.value) in ("nn", "torch.nn") else None
