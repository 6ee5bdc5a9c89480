"""What ``benchmark.py attention`` compares, and on which maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from engine.benchmarks.attention_costs import (
    TOPK,
    Cost,
    axial_cost,
    deformable_cost,
    dilated_cost,
    full_cost,
    growing_regions,
    routing_cost,
    window_cost,
)
from engine.benchmarks.naive import NaiveBRA, why_not_naive
from models.attention import (
    AxialAttention,
    BiLevelRoutingAttention,
    DeformableAttention,
    DilatedAttention,
    FullAttention,
    WindowAttention,
)
from models.attention.ops.dispatch import choose_backend

FULL, REFERENCE = "full", "BRA, reference"  # what the others are compared with


@dataclass(frozen=True)
class Level:
    """Where yolov5s has a map: pixels of the image a token stands for, channels, regions a side of its BRA."""

    stride: int
    dim: int
    n_win: int


LEVELS = {"P3": Level(8, 128, 8), "P4": Level(16, 256, 8), "P5": Level(32, 512, 5)}  # as in yolov5s-biformer.yaml


@dataclass(frozen=True)
class Place:
    """A map that is attended over: the level of a detector for images of ``size`` px a side."""

    level: str
    size: int

    def __str__(self) -> str:
        """Level and image size."""
        return f"{self.level} {self.size} px"

    @property
    def dim(self) -> int:
        """Channels."""
        return LEVELS[self.level].dim

    @property
    def n_win(self) -> int:
        """Regions a side of bi-level routing."""
        return LEVELS[self.level].n_win

    @property
    def side(self) -> int:
        """Tokens a side of the map."""
        return self.size // LEVELS[self.level].stride

    @property
    def tokens(self) -> int:
        """Tokens of the map."""
        return self.side**2

    @property
    def growing_n_win(self) -> int:
        """Regions a side of bi-level routing, when they grow with the map."""
        return growing_regions(self.side, self.side)


@dataclass(frozen=True)
class Variant:
    """One attention.

    Attributes:
        name: as in the tables.
        build: the layer for a place, on the CPU.
        cost: its operations by formula.
        limit: exponent with which its attention term grows with the tokens of large maps.
        why_not: half a sentence why a place is left out, None where it is not.
        written: numbers that training writes out for an image of a place, beside a few maps; 0 for none.
    """

    name: str
    build: Callable[[Place], nn.Module]
    cost: Callable[[Place], Cost]
    limit: float
    why_not: Callable[[Place], str | None] = lambda place: None
    written: Callable[[Place], int] = lambda place: 0


def _family(name: str, layer: type[nn.Module], cost: Callable[[int, int, int], Cost], limit: float) -> Variant:
    return Variant(name, lambda at: layer(at.dim, 0), lambda at: cost(at.dim, at.side, at.side), limit)


def _fixed_cost(place: Place) -> Cost:
    return routing_cost(place.dim, place.side, place.side, place.n_win)


def _growing_cost(place: Place) -> Cost:
    return routing_cost(place.dim, place.side, place.side, place.growing_n_win)


def _logits_written(place: Place) -> int:
    """Logits, their softmax, and the gradients of both; the heads have 32 channels."""
    return 4 * (place.dim // 32) * place.tokens**2 * TOPK // place.n_win**2


def _all_written(place: Place) -> int:
    """The same, and the gradients of keys and values repeated for every region."""
    return _logits_written(place) + 2 * place.dim * place.tokens * place.n_win**2


def _fixed(layer: type[nn.Module], **settings: str | None) -> Callable[[Place], nn.Module]:
    return lambda place: layer(place.dim, 0, place.n_win, topk=TOPK, **settings)


FAMILY = (
    _family(FULL, FullAttention, full_cost, 2),
    _family("window", WindowAttention, window_cost, 1),
    _family("axial", AxialAttention, axial_cost, 1.5),
    _family("dilated", DilatedAttention, dilated_cost, 1),
    _family("deformable", DeformableAttention, deformable_cost, 2),
    Variant("BRA", _fixed(BiLevelRoutingAttention), _fixed_cost, 2),
    Variant(
        "BRA, S growing",
        lambda place: BiLevelRoutingAttention(place.dim, 0, place.growing_n_win, topk=TOPK),
        _growing_cost,
        4 / 3,
    ),
)
NAIVE = Variant(
    "BRA, naive",
    _fixed(NaiveBRA),
    _fixed_cost,
    2,
    lambda place: why_not_naive(place.side, place.side, place.n_win, TOPK),
    _all_written,
)


def usual_backend(device: torch.device, dtype: torch.dtype) -> str:
    """The backend that the plain ``BRA`` has on a device, for weights and maps of a type."""
    return choose_backend(torch.empty(0, device=device, dtype=dtype))


def variants_for(device: torch.device, dtype: torch.dtype) -> list[Variant]:
    """All attentions that are compared on a device, with weights and maps of a type."""
    backends = [] if usual_backend(device, dtype) == "sdpa" else [_backend("sdpa")]
    return [*FAMILY, *backends, _backend("reference", _logits_written), NAIVE]


def _backend(name: str, written: Callable[[Place], int] = lambda place: 0) -> Variant:
    build = _fixed(BiLevelRoutingAttention, backend=name)
    return Variant(f"BRA, {name}", build, _fixed_cost, 2, written=written)
