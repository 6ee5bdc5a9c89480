"""From frames to detections: a stream of results in the pixels of each original frame. Nothing is drawn or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.features import FeatureMap, FeatureTap
from engine.images import to_network
from models.backends.multi import DetectMultiBackend
from models.graph_nms import suppression_of
from utils.boxes import scale_boxes
from utils.datasets.sources import LoadImages
from utils.profiling import Profile


@dataclass(frozen=True)
class FrameResult:
    """What was found in one frame.

    Attributes:
        path: the picture or video, absolute.
        image: (H, W, 3) uint8 BGR, as read; not to be drawn on.
        boxes: (n, 6) float32 of x1 y1 x2 y2 in whole px of ``image``, confidence 0..1, class; most confident first.
        names: class names by number.
        frame: number in its video, from 1; 0 for a picture.
        fps: frames a second of its video; 0 when unknown and for a picture.
        input_hw: height and width that the network saw, px.
        title: beginning of a log line, such as ``image 1/2 PATH: ``.
        seconds: spent in the network.
        features: layers' outputs, when asked for.
    """

    path: Path
    image: np.ndarray
    boxes: np.ndarray
    names: Mapping[int, str]
    frame: int = 0
    fps: float = 0.0
    input_hw: tuple[int, int] = (0, 0)
    title: str = ""
    seconds: float = 0.0
    features: Sequence[FeatureMap] = ()

    @property
    def stem(self) -> str:
        """Name for files about this frame: the source's, with the frame's number in a video."""
        return f"{self.path.stem}_{self.frame}" if self.frame else self.path.stem


@dataclass(frozen=True)
class Selection:
    """Which predictions count.

    Attributes:
        conf_thres: least confidence, 0..1.
        iou_thres: overlap above which the less confident box goes, 0..1.
        classes: class numbers to keep; all when None.
        agnostic: classes suppress each other.
        max_det: most boxes a frame.
    """

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    classes: Sequence[int] | None = None
    agnostic: bool = False
    max_det: int = 1000


@dataclass
class Stopwatches:
    """Time spent in each step over all frames."""

    prepare: Profile = field(default_factory=Profile)
    infer: Profile = field(default_factory=Profile)
    select: Profile = field(default_factory=Profile)
    frames: int = 0

    def milliseconds(self) -> tuple[float, float, float]:
        """Means per frame of pre-processing, inference and suppression."""
        return tuple(1e3 * watch.t / max(self.frames, 1) for watch in (self.prepare, self.infer, self.select))


class Predictor:
    """Runs a detector over a source.

    Attributes:
        watches: time spent so far.
    """

    def __init__(
        self,
        backend: DetectMultiBackend,
        selection: Selection | None = None,
        *,
        augment: bool = False,
        tap: FeatureTap | None = None,
    ) -> None:
        """Bind a detector to its settings.

        Args:
            backend: the loaded detector.
            selection: which predictions count.
            augment: test-time augmentation.
            tap: where to take feature maps from.
        """
        self.backend = backend
        self.selection = selection or Selection()
        self.augment = augment
        self.tap = tap
        self.watches = Stopwatches()

    def stream(self, source: LoadImages) -> Iterator[FrameResult]:
        """Detect in every frame of a source, one at a time, as the caller asks for them."""
        for path, pixels, image, capture, title in source:
            boxes, features = self.detect(pixels, image.shape[:2])
            yield FrameResult(
                path=Path(path),
                image=image,
                boxes=boxes,
                names=self.backend.names,
                frame=source.frame if source.mode == "video" else 0,
                fps=_frame_rate(capture),
                input_hw=pixels.shape[-2:],
                title=title,
                seconds=self.watches.infer.dt,
                features=features,
            )

    def detect(self, pixels: np.ndarray, frame_hw: tuple[int, int]) -> tuple[np.ndarray, list[FeatureMap]]:
        """Detect in one letterboxed frame.

        Args:
            pixels: (3, h, w) uint8 RGB.
            frame_hw: height and width of the original frame, px.

        Returns:
            Boxes as in :class:`FrameResult`, and feature maps when there is a tap.
        """
        with self.watches.prepare, torch.inference_mode():
            batch = to_network(torch.from_numpy(pixels)[None], self.backend.device, self.backend.fp16)
        with self.watches.infer, torch.inference_mode():
            predictions = self.backend(batch, augment=self.augment)
        with self.watches.select, torch.inference_mode():
            boxes = self._select(predictions, batch.shape[2:], frame_hw)
        self.watches.frames += 1
        return boxes, self.tap.take() if self.tap else []

    def _select(self, predictions: list, input_hw: Sequence[int], frame_hw: tuple[int, int]) -> np.ndarray:
        """Suppress, then go back to the frame's own pixels."""
        wanted = self.selection
        (found,) = suppression_of(self.backend)(
            predictions,
            wanted.conf_thres,
            wanted.iou_thres,
            classes=wanted.classes,
            agnostic=wanted.agnostic,
            max_det=wanted.max_det,
        )
        corners = scale_boxes(input_hw, found[:, :4].clone(), frame_hw).round()
        return torch.cat([corners, found[:, 4:6]], 1).float().cpu().numpy()


def _frame_rate(capture: cv2.VideoCapture | None) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS) if capture is not None else 0.0
    return float(rate) if np.isfinite(rate) and rate > 0 else 0.0
