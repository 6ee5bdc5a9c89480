"""``python benchmark.py growth``: how time and memory grow with image size, batch, data set and loader processes.

Each figure stands beside the work it belongs to: what grows faster than its work has a fault in it, or an explanation.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from engine.benchmarks.growth_chart import plot_growth
from engine.benchmarks.growth_curves import Curve
from engine.benchmarks.growth_labels import LabelSettings, measure_sets
from engine.benchmarks.growth_loader import measure_loader
from engine.benchmarks.growth_network import Network, NetworkSettings, batches_of, measure_networks, sizes_of
from engine.benchmarks.growth_tables import csv_text, report
from engine.benchmarks.machine import describe_machine, measurable_device, threads_of_torch
from engine.benchmarks.page import Picture, ResultPlace
from engine.options.growth_benchmark import GrowthBenchmarkOptions
from utils.log import LOGGER, at_level

_GIGA = 1e9


@dataclass(frozen=True)
class GrowthResult:
    """What a run found.

    Attributes:
        folder: where ``growth.md``, ``growth.csv`` and ``growth.png`` are.
        curves: what was measured.
        text: the tables, Markdown.
    """

    folder: Path
    curves: list[Curve]
    text: str


def run_growth(given: GrowthBenchmarkOptions) -> GrowthResult:
    """Measure, and write tables and picture.

    Args:
        given: what was asked for.

    Raises:
        BackendError: when the device is not there, or does not tell about its memory.
        OptionError: when a network cannot take an image size.
        ConfigError: when there is no such network, the folder cannot be made, or the page of the documentation has no
            place for the result.
    """
    options = given.settled()
    device = measurable_device(options)
    section = "growth" if device.type == "cpu" else f"growth-{device.type}"
    place = ResultPlace(options, section)
    with at_level(logging.WARNING):
        networks = [Network(cfg, device) for cfg in options.cfg]
    for network in networks:
        network.refuse_unfit("--sizes", options.sizes)
        network.refuse_unfit("--imgsz", [options.imgsz])
    folder = place.make_folder()
    with threads_of_torch(options.threads if device.type == "cpu" else torch.get_num_threads()):
        curves = _measure(options, networks, device)
        machine = describe_machine(device, torch.get_num_threads())
    text = report(curves, options, machine=machine, command=given.command())
    picture = Picture(partial(plot_growth, curves, title=machine), section, "Time and memory along each axis")
    place.publish(folder, text, csv=csv_text(curves), picture=picture)
    return GrowthResult(folder, curves, text)


def _measure(options: GrowthBenchmarkOptions, networks: list[Network], device: torch.device) -> list[Curve]:
    most_bytes = options.max_memory * _GIGA
    settings = NetworkSettings(device, options.repeats, most_bytes)
    # The loader comes first: its workers begin as copies of this process, which so far has nothing to copy
    with tempfile.TemporaryDirectory() as scratch:
        LOGGER.info("growth with the workers of the loader ...")
        with at_level(logging.WARNING):
            loaders = measure_loader(
                options.workers, Path(scratch), images=options.images, imgsz=options.imgsz, repeats=options.repeats
            )
        LOGGER.info("growth with the labels of a data set ...")
        with at_level(logging.WARNING):
            sets = measure_sets(options.labels, LabelSettings(Path(scratch), options.repeats, most_bytes))
    LOGGER.info("growth with the image size ...")
    sizes = measure_networks(networks, "size", sizes_of(options.sizes, options.batch_size), settings)
    LOGGER.info("growth with the batch ...")
    batches = measure_networks(networks, "batch", batches_of(options.batches, options.imgsz), settings)
    return [*sizes, *batches, *sets, *loaders]
