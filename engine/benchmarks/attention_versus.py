"""The layer against the same formula written plainly, and on a GPU against dense attention over as many keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from engine.benchmarks.attention_work import Settings, Work
from engine.benchmarks.interleaved import Rounds, interleaved
from engine.benchmarks.memory import peak_bytes
from engine.benchmarks.naive import NaiveBRA
from models.attention import BiLevelRoutingAttention
from models.attention.ops.dispatch import attend_regions
from models.attention.ops.regions import RegionGrid
from models.attention.ops.settings import AttentionSettings


@dataclass(frozen=True)
class Shape:
    """A layer and its input: C channels, a map of H = W = ``side`` tokens, S = ``n_win`` regions a side.

    Attributes:
        times: whether times are compared, beside memory.
    """

    dim: int
    side: int
    heads: int
    n_win: int
    topk: int
    batch: int
    times: bool = True

    def __str__(self) -> str:
        """The numbers, in the order of the table's columns."""
        return f"C={self.dim} {self.side}x{self.side} M={self.heads} S={self.n_win} k={self.topk} B={self.batch}"


# Maps of detectors of several widths at strides 8 to 32, at which the goals of the layer were set
SPEED_SHAPES = (
    Shape(256, 20, 8, 5, 4, 4),
    Shape(512, 20, 16, 5, 4, 4),
    Shape(256, 40, 8, 8, 4, 4),
    Shape(128, 80, 4, 8, 4, 4),
    Shape(64, 80, 2, 8, 4, 4),
)
LARGE_SHAPE = Shape(128, 80, 4, 8, 4, 16, times=False)  # P3 of yolov5s at 640 px
_LEAST_ROUNDS = 5  # goals hang on these figures


@dataclass(frozen=True)
class Comparison:
    """Seconds and bytes of the plain layer and of ours; None where that was not measured.

    Attributes:
        shape: layer and input.
        forward: seconds of a forward pass, (plain, ours).
        training: seconds of a forward and a backward pass, likewise.
        peak: bytes alive at once during these two, at most, likewise.
        dense_forward: seconds of the attention alone, (dense over as many keys, ours).
        dense_training: likewise.
    """

    shape: Shape
    forward: tuple[float, float] | None
    training: tuple[float, float] | None
    peak: tuple[int, int]
    dense_forward: tuple[float, float] | None = None
    dense_training: tuple[float, float] | None = None


def shapes_for(device: torch.device, quick: bool = False) -> Iterator[Shape]:
    """What is compared on a device; the last is the one whose memory counts. ``quick``: two small ones."""
    large = replace(LARGE_SHAPE, times=device.type == "cuda")
    if quick:
        yield replace(SPEED_SHAPES[0], batch=1)
        yield replace(large, side=large.side // 2, batch=1)
        return
    yield from SPEED_SHAPES
    yield large


def compare_forward(shape: Shape, settings: Settings) -> tuple[float, float] | None:
    """Seconds of a forward pass without gradients of the plain layer and of ours; None for a shape of memory alone.

    Ask for all shapes before the first :func:`compare`: how fast memory is had depends on what a process did before,
    and one that detects has not trained.

    Args:
        shape: layer and input.
        settings: how; its batch has no meaning here.
    """
    if not shape.times:
        return None
    runs = {name: one.forward for name, one in _work(shape, settings).items()}
    for run in runs.values():
        run()  # first calls are slower
    times = interleaved(runs, settings.device, _rounds(settings))
    return times["naive"], times["ours"]


def compare(shape: Shape, settings: Settings, forward: tuple[float, float] | None) -> Comparison:
    """Measure the plain layer and ours in training, with the same weights on the same map.

    Args:
        shape: layer and input.
        settings: how; its batch has no meaning here.
        forward: what :func:`compare_forward` found.
    """
    work = _work(shape, settings)
    peaks = {name: peak_bytes(one.training, settings.device) for name, one in work.items()}
    runs: dict[tuple[str, str], Callable[[], object]] = {("training", name): one.training for name, one in work.items()}
    if settings.device.type == "cuda":
        runs |= dense_runs(shape, settings)
    times = interleaved(runs, settings.device, _rounds(settings)) if shape.times else {}

    def pair(kind: str, other: str) -> tuple[float, float] | None:
        return (times[kind, other], times[kind, "ours"]) if (kind, other) in times else None

    return Comparison(
        shape=shape,
        forward=forward,
        training=pair("training", "naive"),
        peak=(peaks["naive"], peaks["ours"]),
        dense_forward=pair("dense_forward", "dense"),
        dense_training=pair("dense_training", "dense"),
    )


def _work(shape: Shape, settings: Settings) -> dict[str, Work]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain, ours = (
            layer(shape.dim, shape.heads, shape.n_win, topk=shape.topk) for layer in (NaiveBRA, BiLevelRoutingAttention)
        )
    ours.load_state_dict(plain.state_dict())
    size = (shape.batch, shape.dim, shape.side, shape.side)
    return {"naive": Work.of(plain, size, settings), "ours": Work.of(ours, size, settings)}


def _rounds(settings: Settings) -> Rounds:
    given = settings.rounds
    return replace(given, least=min(_LEAST_ROUNDS, given.most), seconds=2 * given.seconds)


def dense_runs(shape: Shape, settings: Settings) -> dict[tuple[str, str], Callable[[], object]]:
    """The attention alone, without projections and routing.

    Args:
        shape: layer and input.
        settings: device and type.

    Returns:
        What to call, by (``dense_forward`` or ``dense_training``, ``ours`` or ``dense``). In ``dense`` all queries of
        an image share the same keys, as many as a query of ours looks at.
    """
    grid = RegionGrid.of(shape.side, shape.side, shape.n_win)
    random = torch.Generator().manual_seed(0)
    qkv, grad = (
        torch.randn(shape.batch, grid.regions, grid.tokens, width * shape.dim, generator=random)
        .to(settings.device, settings.dtype)
        .requires_grad_(width == 3)
        for width in (3, 1)
    )
    # any regions will do, as long as no region looks at one twice
    order = torch.rand(shape.batch, grid.regions, grid.regions, generator=random).argsort(-1)
    idx = order[..., : shape.topk].contiguous().to(settings.device)
    head = shape.dim // shape.heads
    tokens = {"q": grid.regions * grid.tokens, "k": shape.topk * grid.tokens, "v": shape.topk * grid.tokens}
    q, k, v = (
        torch.randn(shape.batch, shape.heads, count, head, generator=random)
        .to(settings.device, settings.dtype)
        .requires_grad_()
        for count in tokens.values()
    )
    dense_grad = torch.randn(q.shape, generator=random).to(settings.device, settings.dtype)

    def ours() -> torch.Tensor:
        return attend_regions(qkv, idx, grid, AttentionSettings(shape.heads, scale=head**-0.5))

    def dense() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    return {
        ("dense_forward", "ours"): torch.no_grad()(ours),
        ("dense_forward", "dense"): torch.no_grad()(dense),
        ("dense_training", "ours"): lambda: torch.autograd.grad(ours(), qkv, grad),
        ("dense_training", "dense"): lambda: torch.autograd.grad(dense(), (q, k, v), dense_grad),
    }
