"""What stands around the network in validation and in detecting, beside the network alone."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from engine.benchmarks.figures import Figure, ratios
from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from engine.detection import detect_frames, network_workers
from engine.evaluator import evaluate
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.predictor import Predictor, Selection
from engine.sinks import DrawingStyle, MediaSink
from models.backends.multi import DetectMultiBackend
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel
from utils.augmentations import letterbox
from utils.datasets.images import list_images
from utils.datasets.sources import LoadImages
from utils.network_input import to_network
from utils.sizes import check_img_size

_VALIDATION_LIMIT = 0.25
_INFERENCE_LIMIT = 1.2


def detector_of(weights: str, trained: DetectionModel, device: torch.device, scratch: Path) -> DetectMultiBackend:
    """The weights asked for, else those of a model that was just trained.

    Args:
        weights: file, or ''.
        trained: the model.
        device: where to detect.
        scratch: folder to write the model's weights into.
    """
    if not weights:
        weights = str(scratch / "trained.pt")
        write_checkpoint(Path(weights), Checkpoint(trained.state_dict(), ModelMeta.of(trained)))
    return DetectMultiBackend(weights, device=device)


def measure_validation(backend: DetectMultiBackend, batches: Sequence[Any], repeats: int) -> Figure:
    """What NMS, mapping back, matching and metrics take, as a share of the network's time.

    Args:
        backend: the detector.
        batches: of a validation loader, in memory.
        repeats: rounds; one before them warms up.
    """
    network, rest, found = [], [], 0
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        result = evaluate(backend, batches, device=backend.device, nc=len(backend.names), names=backend.names)
        taken = time.perf_counter() - begun
        prepare, infer, _ = (result.images * milliseconds / 1e3 for milliseconds in result.speed_ms)
        network.append(infer)
        rest.append(taken - prepare - infer)
        found = result.images
    shares = [one / other for one, other in zip(rest[1:], network[1:], strict=True)]
    infer, around = (1e3 * statistics.median(taken[1:]) / found for taken in (network, rest))
    about = f"{around:.2f} ms an image for all but the network's {infer:.2f} ms; {found} images"
    return Figure("validation: NMS, matching and metrics through network", about, shares, _VALIDATION_LIMIT)


def measure_inference(
    backend: DetectMultiBackend, data: Mapping[str, Any], options: PipelineBenchmarkOptions, scratch: Path
) -> Figure:
    """detect.py's work on a folder, beside decoding, bare network and encoding in turns.

    Args:
        backend: the detector.
        data: a checked data set; its validation images are detected in.
        options: the benchmark's.
        scratch: folder for pictures.
    """
    folder = scratch / "pictures"
    folder.mkdir()
    for number, file in enumerate(list_images(data["val"])[: options.images]):
        shutil.copy(file, folder / f"{number:04d}{Path(file).suffix}")
    size_hw = check_img_size((options.imgsz, options.imgsz), backend.stride)
    runs = {
        "detect": partial(_detect, backend, folder, size_hw, scratch / "detected"),
        "bare": partial(_bare, backend, folder, size_hw, scratch / "bare"),
    }
    (scratch / "bare").mkdir()
    for run in runs.values():
        run()
    seconds = interleaved_rounds(runs, backend.device, Rounds(options.repeats, options.repeats, 0.0))
    count = len(list(folder.iterdir()))
    detect, bare = (1e3 * statistics.median(taken) / count for taken in seconds.values())
    about = f"{detect:.1f} ms an image; decoding, bare network and encoding {bare:.1f} ms; {count} images"
    return Figure("inference: `detect.py` on a folder", about, ratios(seconds), _INFERENCE_LIMIT)


def _detect(backend: DetectMultiBackend, folder: Path, size_hw: tuple[int, int], target: Path) -> None:
    predictor = Predictor(backend, Selection(), workers=network_workers(backend))
    with (
        closing(LoadImages(folder, size_hw, backend.stride)) as source,
        closing(MediaSink(target)) as media,
    ):
        detect_frames(source, predictor, [media], DrawingStyle())


def _bare(backend: DetectMultiBackend, folder: Path, size_hw: tuple[int, int], target: Path) -> None:
    for file in sorted(folder.iterdir()):
        image = cv2.imread(str(file))
        boxed, _, _ = letterbox(image, size_hw, stride=backend.stride)
        pixels = torch.from_numpy(np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1)))
        with torch.inference_mode():
            backend.model(to_network(pixels[None], backend.device))
        cv2.imwrite(str(target / file.name), image)
