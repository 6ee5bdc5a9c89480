"""The figures of ``benchmark.py attention`` as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from engine.benchmarks.attention_cases import FULL, LEVELS, REFERENCE
from engine.benchmarks.attention_costs import TOPK, growth_exponent
from engine.benchmarks.attention_versus import LARGE_SHAPE, Comparison
from engine.benchmarks.attention_work import Row, Settings
from utils.markdown import paragraph, table

_MIB = 2**20
_COLUMNS = ("level", "image_px", "tokens", "channels", "attention", "parameters", "flops_projections", "flops_local",
            "flops_attention", "flops_choosing", "flops_formula", "flops_counted", "forward_s", "training_s",
            "peak_bytes", "left_out")  # fmt: skip
_HEAD = """Measured on {machine}; {dtype}, batch {batch}, eval mode, with

```bash
{command}
```
"""
_MEASURES_NOTE = """Times are medians of rounds in which everything compared on a map takes turns. *forward* is one pass
without gradients, *training* one pass forward and one backward, to the map and to all weights. *Peak* is the most
memory that torch's allocator had handed out at once in *training*, beside map and weights."""
_LEVELS_NOTE = """Maps of yolov5s: {levels}. Heads of 32 channels, the layers' defaults otherwise: windows of 7 x 7,
stripes of one token, a deformable point for 4 x 4 tokens, a local term of 3 x 3. BRA has topk {topk} and, as in
`yolov5s-biformer.yaml`, S = {regions} regions a side; *S growing* has S = {growing} by image size, as the cube root of
the tokens. *BRA* is what a user gets here (backend `{usual}`); *naive* is the formula written plainly. *GFLOPs* are
those of one image's forward pass by formula, and *counted* those that torch counts where the layer runs on shapes
alone: there BRA takes the plain products of the reference backend, as no counter sees into fused kernels. The columns
*x reference* and *x full* say how many times as fast an attention is as these two on the same map."""
_GROWTH_NOTE = """Exponents e of cost ~ (H W)^e at {level}, images of {sizes} px: *limit* is that of the attention term
on large maps, the others are fitted to the tables below. Projections and local term grow with 1, and so hold the sums
below the limit."""
_GROWTH_SAID = """So with a fixed S bi-level routing grows as full attention does, **(H W)^2**, only R / topk times
lower; with S growing as the cube root of H W it grows with **(H W)^(4/3)**."""


def report(
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    settings: Settings,
    *,
    machine: str,
    command: str,
    usual: str,
) -> str:
    """All tables.

    Args:
        rows: a row an attention and map.
        comparisons: the layer against the plain one.
        settings: how it was measured.
        machine: where.
        command: that does it again.
        usual: backend that BRA has there.

    Returns:
        Markdown; headings of the third level.
    """
    dtype = str(settings.dtype).removeprefix("torch.")
    head = _HEAD.format(machine=machine, dtype=dtype, batch=settings.batch, command=command)
    parts = [head, paragraph(_MEASURES_NOTE)]
    parts += ["### The layer against its formula written plainly\n", _versus_table(comparisons, settings)]
    shown = [level for level in LEVELS if any(row.place.level == level for row in rows)]
    if shown:
        parts += ["### How cost grows with the image\n", _growth(rows, shown[0])]
        parts += ["### What each attention costs\n", _levels_note(rows, shown, usual)]
    for level in shown:
        here = [row for row in rows if row.place.level == level]
        parts += [f"#### {level}\n", _cost_table(here), _left_out(here)]
    return "\n".join(part for part in parts if part)


def csv_text(rows: Iterable[Row]) -> str:
    """All rows as CSV: operations, seconds and bytes, empty where nothing was measured."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        place, cost = row.place, row.cost
        figures = [cost.projections, cost.local, cost.attention, cost.choosing, cost.total]
        writer.writerow([
            place.level, place.size, place.tokens, place.dim, row.name, row.parameters, *map(round, figures),
            row.counted, row.forward, row.training, row.peak, row.left_out,
        ])  # fmt: skip
    return stream.getvalue()


def geometric_mean(values: Sequence[float]) -> float:
    """The number that multiplies to the same product."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _versus_table(comparisons: Sequence[Comparison], settings: Settings) -> str:
    titles = ["C", "map", "heads", "S", "topk", "batch", "forward, ms", "times as fast", "training, ms",
              "times as fast", "peak, MiB", "share"]  # fmt: skip
    lines = []
    for one in comparisons:
        shape = one.shape
        cells = [shape.dim, f"{shape.side}x{shape.side}", shape.heads, shape.n_win, shape.topk, shape.batch]
        for pair in (one.forward, one.training):
            cells += [_pair_ms(pair), "-" if pair is None else f"{pair[0] / pair[1]:.2f}"]
        cells += [f"{one.peak[0] / _MIB:.0f} -> {one.peak[1] / _MIB:.0f}", f"{one.peak[1] / one.peak[0]:.2f}"]
        lines.append(cells)
    return table(titles, lines, left=2) + "\n" + _versus_summary(comparisons, settings.device.type == "cuda")


def _versus_summary(comparisons: Sequence[Comparison], cuda: bool) -> str:
    """Means beside goals; the last comparison is the one whose memory, and on a GPU whose time, has a goal."""
    means = [
        geometric_mean([pair[0] / pair[1] for pair in pairs])
        for pairs in (
            [one.forward for one in comparisons if one.forward],
            [one.training for one in comparisons if one.training],
        )
    ]
    last = comparisons[-1]
    share = last.peak[1] / last.peak[0]
    known = ", P3 of yolov5s at 640 px" if last.shape.side == LARGE_SHAPE.side else ""
    text = (
        "*naive -> ours*: same weights, same map, same result. Geometric means: "
        f"**{means[0]:.2f}** times as fast forward, **{means[1]:.2f}** in training"
        f"{'' if cuda else ' (goal: 2 each)'}. Memory in the last row{known}: "
        f"**{share:.2f}** of naive (goal: at most 0.5)."
    )
    if cuda and last.forward and last.training and last.dense_forward and last.dense_training:
        naive = [pair[0] / pair[1] for pair in (last.forward, last.training)]
        dense = [pair[1] / pair[0] for pair in (last.dense_forward, last.dense_training)]
        text += (
            f" There the layer is **{naive[0]:.2f}** times as fast forward and **{naive[1]:.2f}** in training (goal: 3"
            f" each), and the attention alone takes **{dense[0]:.2f}** and **{dense[1]:.2f}** times as long as dense"
            " `scaled_dot_product_attention` with as many keys for each query, all queries of an image sharing them"
            f" (goal: at most 1.5; {_pair_ms(last.dense_forward)} and {_pair_ms(last.dense_training)} ms)."
        )
    return paragraph(text)


def _growth(rows: Sequence[Row], level: str) -> str:
    here = [row for row in rows if row.place.level == level]
    titles = ["attention", "limit", "GFLOPs, attention term", "GFLOPs, all", "forward", "training", "peak memory"]
    lines = []
    for name in dict.fromkeys(row.name for row in here):
        own = [row for row in here if row.name == name]
        figures = [(row.cost.attention, row.cost.total, row.forward, row.training, row.peak) for row in own]
        fits = [_fit(own, values) for values in zip(*figures, strict=True)]
        lines.append([name, f"{own[0].limit:.3g}", *(_number(fit, ".2f") for fit in fits)])
    sizes = ", ".join(str(size) for size in sorted({row.place.size for row in here}))
    note = paragraph(_GROWTH_NOTE.format(level=level, sizes=sizes))
    return "\n".join([note, table(titles, lines, left=1), paragraph(_GROWTH_SAID)])


def _fit(rows: Sequence[Row], values: Sequence[float | None]) -> float | None:
    known = [(row.place.tokens, value) for row, value in zip(rows, values, strict=True) if value]
    return growth_exponent(*zip(*known, strict=True)) if known else None


def _levels_note(rows: Sequence[Row], shown: Sequence[str], usual: str) -> str:
    levels = ", ".join(f"{name} (stride {LEVELS[name].stride}, {LEVELS[name].dim} channels)" for name in shown)
    regions = ", ".join(str(LEVELS[name].n_win) for name in shown)
    places = {name: dict.fromkeys(row.place for row in rows if row.place.level == name) for name in shown}
    growing = "; ".join(
        f"{', '.join(str(place.growing_n_win) for place in here)} ({name})" for name, here in places.items()
    )
    note = _LEVELS_NOTE.format(levels=levels, topk=TOPK, regions=regions, growing=growing, usual=usual)
    return paragraph(note)


def _cost_table(rows: Sequence[Row]) -> str:
    titles = ["px", "attention", "parameters", "GFLOPs", "counted", "forward, ms", "x reference", "x full",
              "training, ms", "x reference", "x full", "peak, MiB"]  # fmt: skip
    lines = []
    for row in rows:
        bases = [_of(rows, row, name) for name in (REFERENCE, FULL)]
        lines.append([
            row.place.size,
            row.name,
            f"{row.parameters:,}",
            f"{row.cost.total / 1e9:.3f}",
            _number(row.counted and row.counted / 1e9, ".3f"),
            _ms(row.forward),
            *(_number(_times(base.forward, row.forward), ".2f") for base in bases),
            _ms(row.training),
            *(_number(_times(base.training, row.training), ".2f") for base in bases),
            _number(row.peak and row.peak / _MIB, ".1f"),
        ])  # fmt: skip
    return table(titles, lines, left=2)


def _of(rows: Sequence[Row], row: Row, name: str) -> Row:
    """The row of another attention on the same map."""
    return next(other for other in rows if other.name == name and other.place == row.place)


def _times(base: float | None, own: float | None) -> float | None:
    return base / own if base and own else None


def _left_out(rows: Sequence[Row]) -> str:
    reasons = [f"{row.name} at {row.place.size} px: {row.left_out}" for row in rows if row.left_out]
    return paragraph(f"Left out: {'; '.join(reasons)}.") if reasons else ""


def _pair_ms(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{_ms(pair[0])} -> {_ms(pair[1])}"


def _ms(seconds: float | None) -> str:
    """Milliseconds with three digits or more."""
    if seconds is None:
        return "-"
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.{sum(milliseconds < limit for limit in (1, 10, 100))}f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
