"""``python benchmark.py pipeline``: what everything around the network costs, from start-up to the last epoch.

Each figure is measured against something that stands beside it in the same rounds, by turns, so that neither clock nor
neighbour spoils it: an empty Python, the same augmentation as textbooks write it, the bare network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from engine.benchmarks.figures import Figure, figures_table
from engine.benchmarks.machine import describe_machine, threads_of_torch
from engine.benchmarks.page import ResultPlace, measured_with
from engine.benchmarks.pipeline_data import measure_data
from engine.benchmarks.pipeline_network import detector_of, measure_inference, measure_validation
from engine.benchmarks.pipeline_startup import measure_startup
from engine.benchmarks.pipeline_training import TrainingBench
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.setup import load_hyperparameters
from utils.datasets.config import check_dataset
from utils.devices import select_device
from utils.log import LOGGER
from utils.markdown import paragraph
from utils.paths import find_weights

_HYP = "data/hyps/hyp.scratch-low.yaml"


@dataclass(frozen=True)
class PipelineResult:
    """What a run found: the figures, and the table as Markdown, which ``pipeline.md`` in the folder holds."""

    folder: Path
    figures: list[Figure]
    text: str


def run_pipeline(given: PipelineBenchmarkOptions) -> PipelineResult:
    """Measure, and write the table.

    Args:
        given: what was asked for.

    Raises:
        BackendError: when the device is not there.
        ConfigError: when network or weights are not there, the folder cannot be made, or the page of the documentation
            has no place for the result.
        DatasetError: when the data cannot be read.
    """
    options = given.settled()
    place = ResultPlace(options)
    if options.weights:
        find_weights(options.weights)  # what is not there is an error now, not after minutes
    device = select_device(options.device, newline=False)
    data = check_dataset(options.data)
    folder = place.make_folder()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch, threads_of_torch(options.threads):
        for figure in _figures(options, data, device, Path(scratch)):
            LOGGER.info(f"{figure.title}: {figure.value:.2f}{figure.unit} ({figure.about})")
            figures.append(figure)
    text = _report(figures, options, given.command(), describe_machine(device, options.threads))
    place.publish(folder, text, summary=figures_table(figures))
    return PipelineResult(folder, figures, text)


def _figures(options: PipelineBenchmarkOptions, data: dict, device: torch.device, scratch: Path) -> Iterator[Figure]:
    """Every figure, one after the other."""
    yield from measure_startup(options.repeats)
    with _one_thread():
        yield from measure_data(options, data, load_hyperparameters(_HYP))
    with TrainingBench(options, data, device, scratch) as training:
        yield training.measure()
        backend = detector_of(options.weights, training.trainer.ema.ema, device, scratch)
        batches = list(training.trainer.loaders.val)
    yield measure_validation(backend, batches, options.repeats)
    yield measure_inference(backend, data, options, scratch)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch and OpenCV work with a single thread inside, as in a loader's process."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with threads_of_torch(1):
            yield
    finally:
        cv2.setNumThreads(before)


def _report(figures: Sequence[Figure], options: PipelineBenchmarkOptions, command: str, machine: str) -> str:
    setting = paragraph(
        f"Data: {options.data}; images of {options.imgsz} px; {options.cfg} in batches of {options.batch_size}, "
        f"{options.workers} loader processes; *median* is that of the rounds' ratios, in which what is compared takes "
        "turns, times beside it are medians."
    )
    return f"{measured_with(machine, command)}\n{setting}\n{figures_table(figures)}"
