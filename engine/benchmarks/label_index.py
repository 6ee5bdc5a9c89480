"""``python benchmark.py index``: what the label index of a large data set costs, in time and in memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.benchmarks.index_work import (
    Growth,
    build_made,
    check_files,
    further_processes,
    in_fresh_process,
    load_twice,
    make_files,
)
from engine.benchmarks.machine import describe_machine
from engine.benchmarks.page import ResultPlace, measured_with
from engine.options.index_benchmark import IndexBenchmarkOptions
from utils.datasets.cache import SUFFIX
from utils.markdown import paragraph, table

_TITLES = (
    "images", "boxes each", "build, s", "peak, MB", "file, MB", "load, s", "cold, s", "forked, MB", "spawned, MB"
)  # fmt: skip


@dataclass(frozen=True)
class IndexCost:
    """What an index of made records costs.

    Attributes:
        images: in it, each with ``boxes``.
        boxes: of each image.
        build: seconds.
        peak: MB of the process that built it, above what it had before.
        size: MB of the file.
        warm: seconds to open it, checks included; ``cold``: when the system has nothing of it in memory.
        cold: see ``warm``.
        further: by manner of start, what a further process costs.
    """

    images: int
    boxes: int
    build: float
    peak: float
    size: float
    warm: float
    cold: float
    further: dict[str, Growth]


@dataclass(frozen=True)
class IndexResult:
    """What a run found.

    Attributes:
        folder: where ``index.md`` is.
        costs: one for each number of boxes.
        seconds: over real files, to ``list`` them, to ``build`` their index, to ``check`` it at the next start.
        text: the tables, Markdown.
    """

    folder: Path
    costs: list[IndexCost]
    seconds: dict[str, float]
    text: str


def run_index(given: IndexBenchmarkOptions) -> IndexResult:
    """Measure, and write the tables.

    Args:
        given: what was asked for.

    Raises:
        BackendError: on a system that does not say how much memory a process has.
        ConfigError: when the folder cannot be made, or the page of the documentation has no place for the result.
    """
    options = given.settled()
    place = ResultPlace(options)
    folder = place.make_folder()
    with tempfile.TemporaryDirectory() as scratch:
        costs = [_cost(Path(scratch), options, boxes) for boxes in options.boxes]
        images = make_files(Path(scratch), options.files)
        seconds = in_fresh_process(check_files, images, Path(scratch) / f"real{SUFFIX}")
    result = IndexResult(folder, costs, seconds, "")
    result = replace(result, text=_report(result, options, given.command()))
    place.publish(folder, result.text)
    return result


def _cost(folder: Path, options: IndexBenchmarkOptions, boxes: int) -> IndexCost:
    """Build, load and share one index, each in processes of their own."""
    place, images = folder / f"made-{boxes}{SUFFIX}", max(options.records // boxes, 1)
    build, peak = in_fresh_process(build_made, place, images, boxes)
    cold, warm = in_fresh_process(load_twice, place)
    further = in_fresh_process(further_processes, place, options.processes)
    cost = IndexCost(images, boxes, build, peak, place.stat().st_size / 1e6, warm, cold, further)
    place.unlink()
    return cost


def _report(result: IndexResult, options: IndexBenchmarkOptions, command: str) -> str:
    rows = []
    for cost in result.costs:
        whole = [f"{cost.images:,}", cost.boxes, f"{cost.build:.1f}", f"{cost.peak:.0f}", f"{cost.size:.0f}"]
        further = (f"{cost.further[way].private:.1f} / {cost.further[way].total:.1f}" for way in ("fork", "spawn"))
        rows.append([*whole, f"{cost.warm:.2f}", f"{cost.cold:.2f}", *further])
    legend = paragraph(
        "*peak*: most memory that the building process had above what it began with. *load*: mapping the file, all "
        "checksums, every value within its range; *cold*: with nothing of the file in memory. *forked*, *spawned*: "
        "what a further process costs that looks at every path, label, outline and size: by how much its own pages "
        f"grew / by how much the memory of all processes together, for each of {options.processes} further ones."
    )
    seconds = result.seconds
    files = paragraph(
        f"Over {options.files:,} real images with a label file each, read at the first start in "
        f"{seconds['build']:.1f} s: a later start lists them in **{seconds['list']:.2f} s** and makes sure in "
        f"**{seconds['check']:.2f} s** that none of the files has changed. One changed label file is noticed."
    )
    machine = describe_machine(torch.device("cpu"), 1)
    figures = table(_TITLES, rows, left=0)
    return f"{measured_with(machine, command)}\n{figures}\n{legend}\n{files}"
