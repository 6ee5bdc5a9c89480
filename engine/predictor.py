"""From frames to detections: a stream of results in the pixels of each original frame. Nothing is drawn or written."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engine.features import FeatureMap, FeatureTap
from models.attention.recording import LayerRouting, RoutingRecorder
from models.backends.multi import DetectMultiBackend
from models.graph_nms import suppression_of
from utils.boxes import scale_boxes
from utils.datasets.frames import SourceFrame
from utils.network_input import to_network
from utils.profiling import Profile

_WINDOW = 4  # batches' worth of frames among which those of one shape are put together


@dataclass(frozen=True)
class FrameResult:
    """What was found in one frame.

    Attributes:
        path: the picture or video, absolute; the bare name of a stream, the screen or a file on the network.
        image: (H, W, 3) uint8 BGR, as read; not to be drawn on.
        boxes: (n, 6) float32 of x1 y1 x2 y2 in whole px of ``image``, confidence 0..1, class; most confident first.
        names: class names by number.
        frame: number in its video from 1, in its stream from 0; 0 for a picture.
        fps: frames a second of its video; 0 when unknown and for a picture.
        input_hw: height and width that the network saw, px.
        title: beginning of a log line, such as ``image 1/2 PATH: ``.
        seconds: spent on detecting; a batch's time is shared out evenly.
        features: layers' outputs, when asked for.
        routing: what its routed attention looked at, a layer each, when asked for.
        stream: whether it comes from a stream or the screen.
        subfolder: for files about this frame, below the run's folder; empty unless subfolders were searched.
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
    routing: Sequence[LayerRouting] = ()
    stream: bool = False
    subfolder: Path = Path()

    @property
    def moving(self) -> bool:
        """Whether it is one of many frames of a video or stream."""
        return self.stream or self.frame > 0

    @property
    def stem(self) -> str:
        """Name for files about this frame: the source's, with the frame's number in a video."""
        return f"{self.path.stem}_{self.frame}" if self.moving else self.path.stem


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

    def add(self, prepare: Profile, infer: Profile, select: Profile, frames: int) -> None:
        """Count a batch."""
        for total, part in ((self.prepare, prepare), (self.infer, infer), (self.select, select)):
            total.dt = part.dt
            total.t += part.t
        self.frames += frames

    def milliseconds(self) -> tuple[float, float, float]:
        """Means per frame of pre-processing, inference and suppression."""
        return tuple(1e3 * watch.t / max(self.frames, 1) for watch in (self.prepare, self.infer, self.select))


@dataclass
class _Turn:
    """A frame waiting for its result, or for those before it to have theirs."""

    frame: SourceFrame
    batch: Future[list[FrameResult]] | None = None
    place: int = 0  # in the batch


class Predictor:
    """Runs a detector over frames.

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
        recorder: RoutingRecorder | None = None,
        batch_size: int = 1,
        workers: int = 1,
    ) -> None:
        """Bind a detector to its settings.

        Args:
            backend: the loaded detector.
            selection: which predictions count.
            augment: test-time augmentation.
            tap: where to take feature maps from; frames then go one by one.
            recorder: where to take the routing of attention from; likewise.
            batch_size: most frames that go through the network together.
            workers: batches that :meth:`stream` sends through the network at the same time; torch's threads are shared
                out among them. Two with half the threads each do more than one with all of them, which wait for each
                other at every layer, and for whatever else has a processor.
        """
        self.backend = backend
        self.selection = selection or Selection()
        self.augment = augment
        self.tap = tap
        self.recorder = recorder
        self.batch_size = 1 if tap or recorder else batch_size
        self.workers = 1 if tap or recorder else workers
        self.watches = Stopwatches()
        self._counting = threading.Lock()

    def stream(self, frames: Iterable[SourceFrame]) -> Iterator[FrameResult]:
        """Detect in every frame; the results come in the frames' order.

        A batch holds frames that are letterboxed to one shape, so that each is seen as it would be alone. They are put
        together among the next few batches' worth of frames; a batch that finds no more of its shape there runs
        smaller.

        Args:
            frames: such as a source's :meth:`iter_frames`.
        """
        turns: deque[_Turn] = deque()
        most = _WINDOW * self.batch_size * self.workers
        with _network_threads(self.workers) as submit:
            for frame in frames:
                turns.append(_Turn(frame))
                alike = _waiting_alike(turns, turns[-1])
                if len(alike) == self.batch_size:
                    self._begin(alike, submit)
                if len(turns) >= most and turns[0].batch is None:
                    self._begin(_waiting_alike(turns, turns[0]), submit)
                yield from _finished(turns, self.workers)
            while turns:
                if turns[0].batch is None:
                    self._begin(_waiting_alike(turns, turns[0]), submit)
                yield from _finished(turns, 0)

    def _begin(self, turns: Sequence[_Turn], submit: Callable[..., Future[list[FrameResult]]]) -> None:
        """Send frames of one shape on their way."""
        batch = submit(self._run, [turn.frame for turn in turns])
        for place, turn in enumerate(turns):
            turn.batch, turn.place = batch, place

    def _run(self, frames: Sequence[SourceFrame]) -> list[FrameResult]:
        """Detect in frames of one shape."""
        begun = time.perf_counter()
        try:
            found = self.detect_frames(frames)
        except Exception as error:
            error.add_note(f"while detecting in {', '.join(str(frame.path) for frame in frames)}")
            raise
        seconds = (time.perf_counter() - begun) / len(frames)
        features = self.tap.take() if self.tap else []
        routing = self.recorder.take() if self.recorder else []
        return [
            FrameResult(
                path=frame.path,
                image=frame.image,
                boxes=boxes,
                names=self.backend.names,
                frame=frame.number,
                fps=frame.fps,
                input_hw=frame.pixels.shape[-2:],
                title=frame.title,
                seconds=seconds,
                features=features,
                routing=routing,
                stream=frame.stream,
                subfolder=frame.subfolder,
            )
            for frame, boxes in zip(frames, found, strict=True)
        ]

    def detect_frames(self, frames: Sequence[SourceFrame]) -> list[np.ndarray]:
        """Detect in frames letterboxed to one shape; what a subclass replaces that looks at frames in another way.

        Args:
            frames: one at least.

        Returns:
            Boxes of each as in :class:`FrameResult`.
        """
        return self.detect_batch(np.stack([one.pixels for one in frames]), [one.image.shape[:2] for one in frames])

    def detect(self, pixels: np.ndarray, frame_hw: tuple[int, int]) -> tuple[np.ndarray, list[FeatureMap]]:
        """Detect in one letterboxed frame.

        Args:
            pixels: (3, h, w) uint8 RGB.
            frame_hw: height and width of the original frame, px.

        Returns:
            Boxes as in :class:`FrameResult`, and feature maps when there is a tap.
        """
        (boxes,) = self.detect_batch(pixels[None], [frame_hw])
        return boxes, self.tap.take() if self.tap else []

    def detect_batch(self, pixels: np.ndarray, frames_hw: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Detect in several letterboxed frames of one shape.

        Args:
            pixels: (B, 3, h, w) uint8 RGB.
            frames_hw: heights and widths of the original frames, px.

        Returns:
            Boxes of each as in :class:`FrameResult`.
        """
        prepare, infer, select = Profile(), Profile(), Profile()
        with prepare, torch.inference_mode():
            batch = to_network(torch.from_numpy(pixels), self.backend.device, self.backend.fp16)
        with infer, torch.inference_mode():
            predictions = self.backend(batch, augment=self.augment)
        with select, torch.inference_mode():
            boxes = self._select(predictions, batch.shape[2:], frames_hw)
        with self._counting:
            self.watches.add(prepare, infer, select, len(frames_hw))
        return boxes

    def _select(
        self, predictions: list, input_hw: Sequence[int], frames_hw: Sequence[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Suppress, then go back to each frame's own pixels."""
        placed = []
        for found, frame_hw in zip(self._suppress(predictions), frames_hw, strict=True):
            corners = scale_boxes(input_hw, found[:, :4].clone(), frame_hw).round()
            placed.append(torch.cat([corners, found[:, 4:6]], 1).float().cpu().numpy())
        return placed

    def _suppress(self, predictions: list) -> list[torch.Tensor]:
        """Of the network's predictions for each image what counts, in px of its input."""
        wanted = self.selection
        return suppression_of(self.backend)(
            predictions,
            wanted.conf_thres,
            wanted.iou_thres,
            classes=wanted.classes,
            agnostic=wanted.agnostic,
            max_det=wanted.max_det,
        )


def _waiting_alike(turns: Iterable[_Turn], like: _Turn) -> list[_Turn]:
    """The frames that wait for their turn and have the shape of one of them."""
    shape = like.frame.pixels.shape
    return [turn for turn in turns if turn.batch is None and turn.frame.pixels.shape == shape]


def _finished(turns: deque[_Turn], under_way: int) -> Iterator[FrameResult]:
    """Take results off the front, as far as they are there; wait for them while more batches are under way."""
    while turns and turns[0].batch is not None:
        unfinished = {id(turn.batch) for turn in turns if turn.batch is not None and not turn.batch.done()}
        if not turns[0].batch.done() and len(unfinished) <= under_way:
            break
        turn = turns.popleft()
        yield turn.batch.result()[turn.place]


@contextmanager
def _network_threads(workers: int) -> Iterator[Callable[..., Future]]:
    """A function that runs another one, in one of so many threads, or at once where one is enough."""
    if workers == 1:
        yield _at_once
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(before // workers, 1))
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="network") as pool:
            yield pool.submit
    finally:
        torch.set_num_threads(before)


def _at_once(function: Callable[..., list[FrameResult]], *arguments: object) -> Future[list[FrameResult]]:
    done: Future[list[FrameResult]] = Future()
    done.set_result(function(*arguments))
    return done
