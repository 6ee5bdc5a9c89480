"""What is run over and over when attention is measured, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from engine.benchmarks.attention_cases import Place
from engine.benchmarks.attention_costs import Cost
from engine.benchmarks.interleaved import Rounds


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: the CPU or CUDA.
        dtype: of weights and maps.
        batch: images at once.
        rounds: how often.
        max_gflops: leave out what takes more for one image.
    """

    device: torch.device
    dtype: torch.dtype
    batch: int
    rounds: Rounds
    max_gflops: float


@dataclass(frozen=True)
class Work:
    """A layer on a map, forward alone or with all gradients."""

    layer: nn.Module
    x: Tensor
    grad: Tensor

    @classmethod
    def of(cls, layer: nn.Module, shape: tuple[int, int, int, int], settings: Settings) -> Self:
        """The layer, moved to where it is measured, and a random map (B, C, H, W) for it, the same each time."""
        random = torch.Generator().manual_seed(0)
        x, grad = (
            torch.randn(shape, generator=random).to(settings.device, settings.dtype).requires_grad_(leaf)
            for leaf in (True, False)
        )
        return cls(layer.to(settings.device, settings.dtype).eval(), x, grad)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """One pass without gradients, as in detection."""
        return self.layer(self.x)

    def training(self) -> tuple[Tensor, ...]:
        """One pass forward and one backward, to the map and to all weights."""
        return torch.autograd.grad(self.layer(self.x), [self.x, *self.layer.parameters()], self.grad)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attention on one map; None stands for what was not measured.

    Attributes:
        place: the map.
        name: of the attention.
        limit: exponent with which its attention term grows.
        parameters: of the layer.
        cost: operations of one image's forward pass, by formula.
        counted: the same, as torch counts them.
        forward: seconds of a forward pass of the batch.
        training: seconds of a forward and a backward pass.
        peak: bytes alive at once during these two, at most.
        left_out: why nothing was measured.
    """

    place: Place
    name: str
    limit: float
    parameters: int
    cost: Cost
    counted: int | None
    forward: float | None
    training: float | None
    peak: int | None
    left_out: str | None
