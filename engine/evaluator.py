"""Measuring a detector on a loader: the one way, used after every epoch and by ``val.py``.

The model's parameters and buffers are bit for bit the same afterwards: half precision runs under autocast, never by
converting the weights. Several processes may share the batches out; all of them get the result of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from engine.gathering import EvalRecords, gathered, global_number
from models.graph_nms import suppression_of
from utils.boxes import scale_boxes, xywh2xyxy
from utils.coco_eval import CocoFigures, coco_figures
from utils.confusion import ConfusionMatrix
from utils.dist import from_main, is_main
from utils.matching import ImageRecord
from utils.metrics import DetectionMetrics, MetricResult
from utils.network_input import to_network
from utils.profiling import Profile
from utils.slices import SliceResult, measure_slices

LossFunction = Callable[[list[torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Thresholds:
    """What counts as a detection: confidence and IoU in 0..1, and how many per image."""

    conf: float = 0.001
    iou: float = 0.6
    max_det: int = 300


@dataclass(frozen=True)
class EvaluatedBatch:
    """One batch with what was found on it, for whoever writes files or draws.

    Attributes:
        index: number of the batch among those of all processes.
        images: (B, 3, H, W) in 0..1 as the network saw them.
        targets: (n, 6) image, class, centre x, y, w, h in px of ``images``.
        paths: image files.
        shapes_hw: original (height, width) of each image.
        detections: per image (n, 6) x1 y1 x2 y2 confidence class in px of ``images``.
        native: the same boxes in px of the original images.
    """

    index: int
    images: torch.Tensor
    targets: torch.Tensor
    paths: Sequence[str]
    shapes_hw: Sequence[tuple[int, int]]
    detections: list[torch.Tensor]
    native: list[torch.Tensor]


@dataclass
class EvalResult:
    """What an evaluation found.

    Attributes:
        metrics: precision, recall and AP of each class and their means.
        losses: mean box, obj and cls loss; zeros without a loss function.
        speed_ms: milliseconds per image of pre-processing, inference and NMS.
        images: number of images.
        confusion: matrix, when one was asked for.
        coco: what pycocotools says, when it was asked.
        slices: average precision of parts of the data, when they were asked for.
        notes: what a reader of the figures should know.
    """

    metrics: MetricResult
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0)
    speed_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    images: int = 0
    confusion: ConfusionMatrix | None = None
    coco: CocoFigures | None = None
    slices: list[SliceResult] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> tuple[float, ...]:
        """P, R, mAP50, mAP50-95, then box, obj and cls loss."""
        means = (self.metrics.mp, self.metrics.mr, self.metrics.map50, self.metrics.map)
        return (*(float(value) for value in means), *self.losses)


def evaluate(
    model: nn.Module,
    loader: Iterable,
    *,
    device: torch.device,
    nc: int,
    names: dict[int, str],
    autocast: torch.dtype | None = None,
    thresholds: Thresholds | None = None,
    single_cls: bool = False,
    augment: bool = False,
    hybrid: bool = False,
    compute_loss: LossFunction | None = None,
    confusion: bool = False,
    coco: bool = False,
    slices: bool = False,
    observers: Sequence[Callable[[EvaluatedBatch], None]] = (),
    progress: str | None = None,
) -> EvalResult:
    """Run a model over a loader and compare what it finds with the labels.

    Where several processes are connected, each brings its own loader: batch ``i`` of process ``r`` of ``n`` is batch
    ``i * n + r`` of the whole. All must call; all get the same result, that of one process with all the batches.

    Args:
        model: a DetectionModel, or a backend that returns predictions (and raw levels); unchanged afterwards.
        loader: gives images uint8 (B, 3, H, W), targets (n, 6) normalised, paths, shapes.
        device: where the model is.
        nc: number of classes.
        names: class names by index.
        autocast: run the network in this precision: float16 on CUDA, bfloat16 on the CPU too; None keeps float32.
        thresholds: confidence, IoU and number of detections; :class:`Thresholds`' defaults when omitted.
        single_cls: count every class as class 0.
        augment: test-time augmentation.
        hybrid: labels join the predictions with score 1.
        compute_loss: called with raw levels and normalised targets.
        confusion: also fill a confusion matrix.
        coco: also ask pycocotools.
        slices: also measure parts of the data: object sizes, crowded images, occluded objects.
        observers: called with every batch of this process.
        progress: text in front of the progress bar of the main process; None shows no bar.
    """
    limits = thresholds or Thresholds()
    run = _Run(model, device, autocast, limits, single_cls, augment, hybrid, compute_loss)
    matrix = ConfusionMatrix(nc=nc) if confusion else None
    own = EvalRecords(confusion=matrix.matrix if matrix else None)
    bar = tqdm(loader, desc=progress, disable=progress is None or not is_main(), dynamic_ncols=True)
    with _evaluation_mode(model), torch.no_grad():
        for number, batch in enumerate(bar):
            evaluated, labels = run.batch(global_number(number), *batch)
            pairs = list(zip(evaluated.native, labels, strict=True))
            own.images[evaluated.index] = [ImageRecord.of(found, wanted) for found, wanted in pairs]
            for found, wanted in pairs if matrix else ():
                matrix.process_batch(found, wanted)
            for observer in observers:
                observer(evaluated)
    own.losses, own.seconds = run.losses, run.seconds()
    whole = gathered(own)
    metrics = DetectionMetrics(nc=nc, names=names)
    return from_main(_conclude(whole, metrics, limits, coco, slices) if is_main() else None)


def _conclude(
    records: EvalRecords, metrics: DetectionMetrics, limits: Thresholds, coco: bool, slices: bool
) -> EvalResult:
    """Figures from all records."""
    metrics.records = records.in_order()
    result = EvalResult(metrics.compute(), records.mean_losses(), records.speed_ms(), len(metrics.records))
    if records.confusion is not None:
        result.confusion = ConfusionMatrix(nc=metrics.nc)
        result.confusion.matrix = records.confusion
    if coco:
        result.coco = coco_figures(metrics.records, metrics.nc, limits.max_det)
    if slices:
        result.slices = measure_slices(metrics.records)
    result.notes.extend(_notes(metrics.records, limits))
    return result


def _notes(records: Sequence[ImageRecord], limits: Thresholds) -> list[str]:
    """Why the figures are zero, when they are zero for a reason."""
    if not records:
        return ["there was no image to evaluate on: all figures are 0"]
    if not any(len(record.labels) for record in records):
        return ["no labels in this split: all figures are 0"]
    if not any(len(record.detections) for record in records):
        return [f"nothing was found above confidence {limits.conf:g}: all figures are 0"]
    return []


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, whatever mode there was afterwards."""
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


class _Run:
    """The steps from a batch to detections in each original image, timed."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        autocast: torch.dtype | None,
        limits: Thresholds,
        single_cls: bool,
        augment: bool,
        hybrid: bool,
        compute_loss: LossFunction | None,
    ) -> None:
        self.model, self.device, self.limits = model, device, limits
        self.single_cls, self.augment, self.hybrid, self.compute_loss = single_cls, augment, hybrid, compute_loss
        self.half_inputs = bool(getattr(model, "fp16", False))  # a backend that was loaded in half precision
        self.autocast = autocast if not self.half_inputs else None
        self.watches = (Profile(), Profile(), Profile())
        self.losses: dict[int, list[float]] = {}  # by the number of the batch

    def batch(
        self, index: int, images: torch.Tensor, targets: torch.Tensor, paths: Sequence[str], shapes: Sequence[Any]
    ) -> tuple[EvaluatedBatch, list[torch.Tensor]]:
        """One batch: what was found, and per image the labels (M, 5) class x1 y1 x2 y2 in original px."""
        prepare, infer, suppress = self.watches
        with prepare:
            images = to_network(images, self.device, self.half_inputs)
            targets = targets.to(self.device)
        with infer:
            predictions, levels = self._forward(images)
        if self.compute_loss is not None and levels is not None:
            self.losses[index] = self.compute_loss([level.float() for level in levels], targets)[1].tolist()
        in_px = _targets_in_px(targets, images.shape[-2:])
        with suppress:
            detections = self._suppress(predictions.float(), in_px, len(images))
        frame = images.shape[-2:]
        native = [_to_original(found, 0, frame, shape) for found, shape in zip(detections, shapes, strict=True)]
        wanted = self._labels(in_px)
        labels = [_to_original(wanted[in_px[:, 0] == number], 1, frame, shape) for number, shape in enumerate(shapes)]
        originals = [shape[0] for shape in shapes]
        return EvaluatedBatch(index, images, in_px, paths, originals, detections, native), labels

    def _forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.model(images, augment=True) if self.augment else self.model(images)
        if isinstance(output, torch.Tensor):
            return output, None
        return output[0], output[1] if len(output) > 1 else None

    def _suppress(self, predictions: torch.Tensor, in_px: torch.Tensor, count: int) -> list[torch.Tensor]:
        known = [in_px[in_px[:, 0] == number, 1:] for number in range(count)] if self.hybrid else ()
        detections = suppression_of(self.model)(
            predictions,
            self.limits.conf,
            self.limits.iou,
            labels=known,
            multi_label=True,
            agnostic=self.single_cls,
            max_det=self.limits.max_det,
        )
        return [_as_one_class(found) for found in detections] if self.single_cls else detections

    def _labels(self, in_px: torch.Tensor) -> torch.Tensor:
        """(n, 5) labels of a batch: class x1 y1 x2 y2 in px of the batch."""
        classes = torch.zeros_like(in_px[:, 1:2]) if self.single_cls else in_px[:, 1:2]
        return torch.cat((classes, xywh2xyxy(in_px[:, 2:6])), 1)

    def seconds(self) -> tuple[float, float, float]:
        """Time of the three stages."""
        prepare, infer, suppress = (watch.t for watch in self.watches)
        return prepare, infer, suppress


def _as_one_class(detections: torch.Tensor) -> torch.Tensor:
    merged = detections.clone()
    merged[:, 5] = 0
    return merged


def _targets_in_px(targets: torch.Tensor, frame: torch.Size) -> torch.Tensor:
    """(n, 6) targets with their boxes scaled from 0..1 to px of the batch."""
    height, width = frame
    return targets * targets.new_tensor([1, 1, width, height, width, height])


def _to_original(rows: torch.Tensor, first: int, frame: torch.Size, shape: Any) -> torch.Tensor:
    """(n, ...) rows with the corners that begin at column ``first`` mapped from the batch into the original image."""
    original_hw, ratio_pad = shape
    mapped = rows.clone()
    scale_boxes(frame, mapped[:, first : first + 4], original_hw, ratio_pad)
    return mapped
