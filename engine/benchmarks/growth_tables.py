"""The figures of ``benchmark.py growth`` as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from engine.benchmarks.growth_curves import AXES, TIME, Curve, of_axis
from engine.benchmarks.page import measured_with
from engine.options.growth_benchmark import GrowthBenchmarkOptions
from utils.markdown import paragraph, table

_MIB = 2**20
_COLUMNS = ("axis", "kind", "name", "at", "figure", "work")
_SUMMARY_TITLES = ("axis", "what", "work", "e of the work", "e", "e of the work, upper end", "e, upper end", "faster")
_SUMMARY_NOTE = """Exponents e of figure ~ amount^e, fitted by the logarithms: over all points, where fixed costs hide
the growth of what is small, and over the upper three, which say what comes next. The amount is the number of pixels,
images, labels or workers, *work* what the figure should grow with. *Faster* is said where e lies more than 0.1 above
that of the work at the upper end."""


def report(curves: Sequence[Curve], options: GrowthBenchmarkOptions, *, machine: str, command: str) -> str:
    """All tables.

    Args:
        curves: what was measured.
        options: how.
        machine: where.
        command: that does it again.

    Returns:
        Markdown; headings of the third level.
    """
    rounds = "one round" if options.repeats == 1 else f"up to {options.repeats} rounds"
    parts = [
        measured_with(machine, command),
        paragraph(f"{_SUMMARY_NOTE} Times are medians of {rounds}."),
        _summary(curves),
        _verdict(curves),
    ]
    for name, axis in AXES.items():
        here = of_axis(curves, name)
        if here:
            parts += [f"### {axis.name}\n", paragraph(_about(name, options)), _figures(name, here), _left_out(here)]
    return "\n".join(part for part in parts if part)


def csv_text(curves: Iterable[Curve]) -> str:
    """All points as CSV: seconds or bytes, unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for curve in curves:
        writer.writerows((curve.axis, curve.kind, curve.name, *vars(point).values()) for point in curve.points)
    return stream.getvalue()


def _summary(curves: Sequence[Curve]) -> str:
    lines = [
        [
            AXES[curve.axis].name,
            f"{curve.kind}: {curve.name}",
            curve.work,
            _number(curve.work_exponent()),
            _number(curve.exponent()),
            _number(curve.work_exponent(upper=True)),
            _number(curve.exponent(upper=True)),
            "**yes**" if curve.faster else "",
        ]
        for curve in curves
    ]
    return table(_SUMMARY_TITLES, lines, left=3)


def _verdict(curves: Sequence[Curve]) -> str:
    faster = [f"{AXES[curve.axis].name.lower()}, {curve.kind}: {curve.name}" for curve in curves if curve.faster]
    if not faster:
        return paragraph("Nothing grows faster than its work.")
    return paragraph(f"Of {len(curves)} curves, these grow faster than their work: {'; '.join(faster)}.")


def _about(axis: str, options: GrowthBenchmarkOptions) -> str:
    if axis == "workers":
        return f"""An epoch of {options.images} drawn images at {options.imgsz} px, mosaic and all other augmentation of
        `hyp.scratch-low.yaml`, batches of 16, nobody waiting for them. Memory is what the workers share with nobody."""
    if axis == "labels":
        return """Sets of small JPEG files with ten labels each, files lately written and so in the system's memory.
        Memory is that of Python and NumPy while a set is opened whose label index is there, and what stays."""
    fixed = f"batch {options.batch_size}" if axis == "size" else f"{options.imgsz} px"
    return f"""Float32, {fixed}; *inference* is the fused network and NMS, which finds nothing in noise, *training* a
    whole step: forward, loss, backward, optimizer and moving average. Memory is the most that torch's allocator had
    handed out at once, beside weights and images."""


def _figures(axis: str, curves: Sequence[Curve]) -> str:
    """A row a place, a column a curve."""
    found = [{point.at: point.figure for point in curve.points} for curve in curves]
    places = sorted({at for figures in found for at in figures})
    titles = [AXES[axis].unit, *(f"{curve.name}, {'ms' if curve.kind == TIME else 'MiB'}" for curve in curves)]
    lines = [
        [f"{at:,}" if axis == "labels" else at]
        + [_figure(curve, figures.get(at)) for curve, figures in zip(curves, found, strict=True)]
        for at in places
    ]
    return table(titles, lines, left=0)


def _left_out(curves: Sequence[Curve]) -> str:
    """Why points are missing; time and memory of a thing have the same reasons."""
    reasons = dict.fromkeys(f"{curve.name}, {reason}" for curve in curves for reason in curve.left_out)
    return paragraph(f"Left out: {'; '.join(reasons)}.") if reasons else ""


def _figure(curve: Curve, value: float | None) -> str:
    if value is None:
        return "-"
    shown = 1e3 * value if curve.kind == TIME else value / _MIB
    return f"{shown:,.{sum(shown < limit for limit in (1, 10, 100))}f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
