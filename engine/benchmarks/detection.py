"""``python benchmark.py detect``: a video through the whole of detect.py, its steps in turns and at the same time.

Both ways read, detect, draw and write the same frames with the same weights; they take turns, round by round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from engine.benchmarks.machine import describe_machine, threads_of_torch
from engine.benchmarks.page import ResultPlace, measured_with
from engine.detection import detect_frames, network_workers
from engine.options.benchmark import DetectBenchmarkOptions
from engine.predictor import Predictor, Selection
from engine.sinks import DrawingStyle, MediaSink, TextSink
from models.backends.multi import DetectMultiBackend
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel
from utils.datasets.sources import LoadImages
from utils.devices import select_device
from utils.errors import BackendError, DatasetError
from utils.markdown import paragraph, table
from utils.sizes import check_img_size
from utils.wording import counted

WAYS = ("in turns", "at the same time")
STEPS = ("read and letterbox", "network", "NMS and the rest of detecting", "draw and write")
_MADE_WH = (1280, 720)
_MADE_FPS = 30.0


@dataclass(frozen=True)
class DetectResult:
    """What a run found.

    Attributes:
        folder: where ``detect.md`` is.
        frames: in the video.
        seconds: per way, of each round.
        steps: milliseconds a frame of each step when they take turns.
        text: the table, Markdown.
    """

    folder: Path
    frames: int
    seconds: dict[str, list[float]]
    steps: dict[str, float]
    text: str

    @property
    def speedup(self) -> float:
        """How many times as fast the steps are at the same time: median over the rounds."""
        return statistics.median(turns / same for turns, same in zip(*self.seconds.values(), strict=True))


@dataclass
class _Work:
    """The steps, ready to be run again and again."""

    backend: DetectMultiBackend
    video: Path
    folder: Path
    options: DetectBenchmarkOptions
    found: dict[str, int] = field(default_factory=dict)

    def source(self) -> LoadImages:
        size_hw = check_img_size((self.options.imgsz, self.options.imgsz), self.backend.stride)
        return LoadImages(self.video, size_hw, self.backend.stride)

    def run(self, way: str) -> Predictor:
        """Read, detect, draw and write the whole video."""
        options = self.options
        overlap = way == WAYS[1]
        workers = network_workers(self.backend) if overlap else 1
        predictor = Predictor(
            self.backend, Selection(options.conf_thres), batch_size=options.batch_size, workers=workers
        )
        labels = TextSink(self.folder / way)
        with closing(self.source()) as source, closing(MediaSink(self.folder / way)) as media:
            detect_frames(source, predictor, [media, labels], DrawingStyle(), overlap=overlap)
        self.found[way] = predictor.watches.frames
        return predictor

    def steps(self) -> dict[str, float]:
        """Milliseconds a frame of each step, one after the other."""
        begun = time.perf_counter()
        with closing(self.source()) as source:
            frames = sum(1 for _ in source.iter_frames())
        read = time.perf_counter() - begun
        if not frames:
            raise DatasetError(f"--source {self.video}: no frame of it can be read")
        begun = time.perf_counter()
        watches = self.run(WAYS[0]).watches
        whole = time.perf_counter() - begun
        rest = watches.prepare.t + watches.select.t
        seconds = (read, watches.infer.t, rest, max(whole - read - watches.infer.t - rest, 0.0))
        return {step: 1e3 * taken / frames for step, taken in zip(STEPS, seconds, strict=True)}


def run_detect(given: DetectBenchmarkOptions) -> DetectResult:
    """Measure, and write the table.

    Args:
        given: what was asked for.

    Raises:
        BackendError: when the device is not there, or OpenCV cannot write videos.
        ConfigError: when the weights are not there, the folder cannot be made, or the page of the documentation has no
            place for the result.
        DatasetError: when the video cannot be read.
    """
    options = given.settled()
    device = select_device(options.device, newline=False)
    place = ResultPlace(options)
    folder = place.make_folder()
    with tempfile.TemporaryDirectory() as scratch, threads_of_torch(options.threads):
        work = _Work(_detector(options, device, Path(scratch)), _video(options, Path(scratch)), Path(scratch), options)
        steps = work.steps()  # the first run, which also warms up
        rounds = Rounds(options.repeats, options.repeats, 0.0)
        seconds = interleaved_rounds({way: partial(work.run, way) for way in WAYS}, device, rounds)
    machine = describe_machine(device, options.threads)
    result = DetectResult(folder, work.found[WAYS[0]], seconds, steps, "")
    result = replace(result, text=_report(result, options, given.command(), machine))
    place.publish(folder, result.text, summary=f"{result.speedup:.2f} times as fast at the same time")
    return result


def _detector(options: DetectBenchmarkOptions, device: torch.device, scratch: Path) -> DetectMultiBackend:
    """The weights asked for, else an untrained yolov5n, which finds nothing but takes as long."""
    weights = Path(options.weights) if options.weights else scratch / "untrained.pt"
    if not options.weights:
        model = DetectionModel("yolov5n.yaml")
        write_checkpoint(weights, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return DetectMultiBackend(weights, device=device)


def _video(options: DetectBenchmarkOptions, scratch: Path) -> Path:
    """The video asked for, else one made for the purpose: a view that wanders over a coloured landscape of noise."""
    if options.source:
        return Path(options.source)
    width, height = _MADE_WH
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 20, width // 10, 3), dtype=np.uint8)
    landscape = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    path = scratch / "made.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), _MADE_FPS, _MADE_WH)
    if not writer.isOpened():
        raise BackendError("this OpenCV cannot write mp4v videos; give one as --source")
    for number in range(options.frames):
        left = 4 * number % width
        writer.write(np.ascontiguousarray(landscape[:, left : left + width]))
    writer.release()
    return path


def _report(result: DetectResult, options: DetectBenchmarkOptions, command: str, machine: str) -> str:
    rows = []
    for way in WAYS:
        taken = statistics.median(result.seconds[way])
        rows.append([way, f"{1e3 * taken / result.frames:.1f}", f"{result.frames / taken:.1f}"])
    steps = ", ".join(f"{step} {figure:.1f} ms" for step, figure in result.steps.items())
    video = options.source or f"{_MADE_WH[0]}x{_MADE_WH[1]} px, made for it"
    setting = paragraph(
        f"Video: {video}, {result.frames} frames; network: {options.weights or 'yolov5n, untrained'} at "
        f"{options.imgsz} px, batches of {options.batch_size}; the annotated video and label files are written. "
        f"A frame's steps in turns, in a first run, which warms up: {steps}."
    )
    outcome = paragraph(
        f"At the same time they are **{result.speedup:.2f}** times as fast (goal: 1.3), the median of "
        f"{counted(len(result.seconds[WAYS[0]]), 'round')} in which both take turns: {_spread(result.seconds)}."
    )
    figures = table(["steps", "ms a frame", "frames a second"], rows, left=1)
    return f"{measured_with(machine, command)}\n{setting}\n{figures}\n{outcome}"


def _spread(seconds: dict[str, Sequence[float]]) -> str:
    ratios = sorted(turns / same for turns, same in zip(*seconds.values(), strict=True))
    return f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
