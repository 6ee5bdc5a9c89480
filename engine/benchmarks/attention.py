"""``python benchmark.py attention``: what each attention costs on the maps of a detector, and how that grows.

Every attention of the family, bi-level routing with each backend, and the same written plainly run over the maps of
yolov5s for images of several sizes. A second part compares the layer with the plain one on a few fixed maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from tqdm import tqdm

from engine.benchmarks.attention_cases import LEVELS, Place, Variant, usual_backend, variants_for
from engine.benchmarks.attention_chart import plot_costs
from engine.benchmarks.attention_tables import csv_text, report
from engine.benchmarks.attention_versus import Comparison, Shape, compare, compare_forward, shapes_for
from engine.benchmarks.attention_work import Row, Settings, Work
from engine.benchmarks.interleaved import Rounds, interleaved
from engine.benchmarks.machine import describe_machine, measurable_device, threads_of_torch
from engine.benchmarks.memory import free_bytes, peak_bytes
from engine.benchmarks.page import Picture, ResultPlace
from engine.options.benchmark import AttentionBenchmarkOptions
from utils.model_info import count_flops

_LEAST_ROUNDS = 3
_GIGA = 1e9
Map = TypeVar("Map", Shape, Place)


@dataclass(frozen=True)
class AttentionResult:
    """What a run found.

    Attributes:
        folder: where ``attention.md``, ``attention.csv`` and ``attention.png`` are.
        rows: a row an attention and map.
        comparisons: the layer against the plain one.
        text: the tables, Markdown.
    """

    folder: Path
    rows: list[Row]
    comparisons: list[Comparison]
    text: str


def run_attention(given: AttentionBenchmarkOptions) -> AttentionResult:
    """Measure, and write tables and picture.

    Args:
        given: what was asked for.

    Raises:
        BackendError: when the device is not there, or does not tell about its memory.
        ConfigError: when the folder cannot be made, or the page of the documentation has no place for the result.
    """
    options = given.settled()
    device = measurable_device(options)
    section = "attention" if device.type == "cpu" else f"attention-{device.type}"
    place = ResultPlace(options, section)
    folder = place.make_folder()
    settings = settings_of(options, device)
    with threads_of_torch(options.threads if device.type == "cpu" else torch.get_num_threads()):
        rows, comparisons = _measure(options, settings)
        machine = describe_machine(device, torch.get_num_threads())
    usual = usual_backend(device, settings.dtype)
    text = report(rows, comparisons, settings, machine=machine, command=given.command(), usual=usual)
    title = f"{machine}, {str(settings.dtype).removeprefix('torch.')}, batch {settings.batch}"
    name = section.replace("attention", "attention-cost")
    picture = Picture(partial(plot_costs, rows, title=title), name, "Cost over image size")
    place.publish(folder, text, csv=csv_text(rows), picture=picture)
    return AttentionResult(folder, rows, comparisons, text)


def measure_place(place: Place, variants: Sequence[Variant], settings: Settings) -> list[Row]:
    """Measure several attentions on one map.

    Args:
        place: the map.
        variants: what to measure; all get the same map.
        settings: how.

    Returns:
        A row each. What is left out has no times and no memory, and says why.
    """
    reasons = {variant.name: _why_left_out(variant, place, settings) for variant in variants}
    layers = {variant.name: _layer(variant, place) for variant in variants}
    shape = (settings.batch, place.dim, place.side, place.side)
    counted = {
        variant.name: count_flops(layers[variant.name], place.side, place.side, place.dim)
        for variant in variants
        if variant.why_not(place) is None
    }
    work = {name: Work.of(layer, shape, settings) for name, layer in layers.items() if reasons[name] is None}
    # Memory comes first, so that nothing is timed at its first call; a round of warming up would take as long again
    peaks = {name: peak_bytes(one.training, settings.device) for name, one in work.items()}
    runs = {(kind, name): getattr(one, kind) for name, one in work.items() for kind in ("forward", "training")}
    times = interleaved(runs, settings.device, settings.rounds)
    return [
        Row(
            place=place,
            name=variant.name,
            limit=variant.limit,
            parameters=sum(parameter.numel() for parameter in layers[variant.name].parameters()),
            cost=variant.cost(place),
            counted=counted.get(variant.name),
            forward=times.get(("forward", variant.name)),
            training=times.get(("training", variant.name)),
            peak=peaks.get(variant.name),
            left_out=reasons[variant.name],
        )
        for variant in variants
    ]


def _measure(options: AttentionBenchmarkOptions, settings: Settings) -> tuple[list[Row], list[Comparison]]:
    variants = variants_for(settings.device, settings.dtype)
    shapes = list(shapes_for(settings.device, quick=options.quick))
    places = [Place(level, size) for level in LEVELS if level in options.levels for size in sorted(set(options.sizes))]
    with tqdm(
        total=2 * len(shapes) + len(places), desc="attention", unit="map", dynamic_ncols=True, disable=None
    ) as bar:
        forwards = [compare_forward(shape, settings) for shape in _shown(shapes, bar)]
        comparisons = [
            compare(shape, settings, forward) for shape, forward in zip(_shown(shapes, bar), forwards, strict=True)
        ]
        rows = [row for place in _shown(places, bar) for row in measure_place(place, variants, settings)]
    return rows, comparisons


def _shown(maps: Iterable[Map], bar: tqdm) -> Iterator[Map]:
    """The maps one after the other, each named beside the bar while it is worked on."""
    for one in maps:
        bar.set_postfix_str(str(one))
        yield one
        bar.update()


def settings_of(options: AttentionBenchmarkOptions, device: torch.device) -> Settings:
    """How to measure, by the options; half precision on a GPU unless told otherwise."""
    name = options.precision or ("bfloat16" if device.type == "cuda" else "float32")
    least = min(_LEAST_ROUNDS, options.repeats)
    rounds = Rounds(least, options.repeats, options.seconds, settling=1)
    return Settings(device, getattr(torch, name), options.batch_size, rounds, options.max_gflops)


def _layer(variant: Variant, place: Place) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return variant.build(place)


def _why_left_out(variant: Variant, place: Place, settings: Settings) -> str | None:
    """Half a sentence, or None for what is measured."""
    reason = variant.why_not(place)
    if reason:
        return reason
    needed = variant.cost(place).total / _GIGA
    if needed > settings.max_gflops:
        return f"{needed:.3g} GFLOP, above --max-gflops {settings.max_gflops:g}"
    size = torch.finfo(settings.dtype).bits // 8
    bytes_needed = settings.batch * variant.written(place) * size
    free = free_bytes(settings.device)
    return f"takes about {bytes_needed / 2**30:.0f} GiB" if free is not None and bytes_needed > free else None
