"""Where results go: annotated pictures and videos, label files, a table, JSON, crops, feature maps, a window.

A sink takes one frame after the other and is closed at the end, after an interruption too. Boxes come least confident
first, so that the most confident one is drawn on top.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from engine.predictor import FrameResult
from utils.coco_results import coco_image_id, coco_rows
from utils.datasets.labels import format_label
from utils.drawing import Annotator, colors, save_one_box, tile_channels
from utils.environment import check_imshow
from utils.errors import BackendError, OptionError
from utils.image_io import write_image
from utils.log import LOGGER
from utils.paths import make_folder, safe_name

_DEFAULT_FPS = 30.0  # of videos that do not say theirs
_CODEC = "mp4v"  # the one that every build of OpenCV can write
_NOT_WRITABLE = (".dng", ".mpo", ".pfm")  # pictures of these kinds are saved as JPEG
_CSV_COLUMNS = ("Image Name", "Prediction", "Confidence")


@dataclass(frozen=True)
class DrawingStyle:
    """How boxes look."""

    line_width: int = 3
    hide_labels: bool = False
    hide_conf: bool = False


@dataclass(frozen=True)
class Found:
    """One detection: corners in whole px, class number and name, confidence 0..1."""

    corners: tuple[float, float, float, float]
    number: int
    name: str
    confidence: float


class Frame:
    """A result on its way through the sinks; it is drawn at most once, and only when a sink asks."""

    def __init__(self, result: FrameResult, style: DrawingStyle | None = None) -> None:
        self.result = result
        self.style = style or DrawingStyle()

    def __iter__(self) -> Iterator[Found]:
        """Detections, least confident first."""
        for *corners, confidence, number in self.result.boxes[::-1].tolist():
            name = str(self.result.names.get(int(number), int(number)))
            yield Found(tuple(corners), int(number), name, confidence)

    @cached_property
    def drawn(self) -> np.ndarray:
        """(H, W, 3) BGR copy of the frame with its boxes."""
        found = list(self)
        annotator = Annotator(self.result.image.copy(), line_width=self.style.line_width)
        for one in found:
            annotator.box_label(one.corners, color=colors(one.number, bgr=True))
        for one in found if not self.style.hide_labels else ():  # last, so that no box lies over a label
            annotator.label(self._label(one), *one.corners[:2], color=colors(one.number, bgr=True))
        return annotator.result()

    def _label(self, one: Found) -> str:
        return one.name if self.style.hide_conf else f"{one.name} {one.confidence:.2f}"


class Sink(Protocol):
    """What every sink can do."""

    def write(self, frame: Frame) -> None:
        """Take one frame."""

    def close(self) -> None:
        """Finish files; may be called twice."""


@dataclass
class OpenVideo:
    """A video being written, for one source."""

    writer: cv2.VideoWriter
    file: Path
    size_wh: tuple[int, int]
    part: int = 1
    frames: int = 0
    least_free: int = 1 << 16  # bytes on the disk

    def write(self, image: np.ndarray) -> None:
        """Add a frame.

        Raises:
            OSError: when the disk is full; OpenCV itself would go on without a word.
        """
        disk = shutil.disk_usage(self.file.parent)
        if disk.total > 0 and disk.free < self.least_free:  # of some file systems nothing is known
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        self.writer.write(image)
        self.frames += 1

    def close(self) -> None:
        """Finish the file, and look at it.

        Raises:
            BackendError: when it does not hold the frames that were written.
        """
        self.writer.release()
        capture = cv2.VideoCapture(str(self.file))
        opened, found = capture.isOpened(), max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()
        if not opened or 0 < found < self.frames:  # 0 where OpenCV's reader does not count
            raise BackendError(
                f"{self.file}: the video is not whole ({found} of {self.frames} frames): is the disk full, or the file "
                "too large for it? Make room, or choose another --project"
            )


class MediaSink:
    """Annotated pictures under their own names, videos as ``<stem>.mp4`` with their own frame rate.

    A stream whose frames change their size goes on in ``<stem>_2.mp4``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._videos: dict[Path, OpenVideo] = {}  # of files one at a time, of streams all of them
        self._origins: dict[Path, Path] = {}

    def write(self, frame: Frame) -> None:
        """Save one picture, or add one frame to its video.

        Raises:
            BackendError: when OpenCV cannot write videos here, or an earlier video is not whole.
            OSError: when the disk is full.
            OptionError: when the result would replace its own source.
        """
        result = frame.result
        if result.moving:
            self._video_for(result).write(frame.drawn)
        else:
            self.close()
            suffix = ".jpg" if result.path.suffix.lower() in _NOT_WRITABLE else result.path.suffix
            write_image(self._claim(result, f"{result.path.stem}{suffix}"), frame.drawn)

    def _video_for(self, result: FrameResult) -> OpenVideo:
        """The open video that a frame belongs to."""
        size_wh = (result.image.shape[1], result.image.shape[0])
        video = self._videos.get(result.path)
        begins = video is None or (result.frame == 1 and not result.stream)
        if not begins and video.size_wh == size_wh:
            return video
        if result.stream and video is not None:
            video.close()
        elif not result.stream:
            self.close()
        part = 1 if begins else video.part + 1
        self._videos[result.path] = self._open(result, size_wh, part)
        return self._videos[result.path]

    def _open(self, result: FrameResult, size_wh: tuple[int, int], part: int) -> OpenVideo:
        stem = result.path.name if result.stream else result.path.stem
        target = self._claim(result, f"{stem}{f'_{part}' if part > 1 else ''}.mp4")
        codec = cv2.VideoWriter.fourcc(*_CODEC)
        writer = cv2.VideoWriter(str(target), codec, result.fps or _DEFAULT_FPS, size_wh)
        if not writer.isOpened():
            raise BackendError(f"{target}: this OpenCV cannot write {_CODEC} videos there; use --nosave")
        return OpenVideo(writer, target, size_wh, part)

    def _claim(self, result: FrameResult, name: str) -> Path:
        """The file for a source, with a word where it replaces something."""
        source = result.path
        target = make_folder(self.folder / result.subfolder) / name
        if target.exists() and source.exists() and target.samefile(source):
            raise OptionError(f"{source}: the result would replace its source; choose another --project or --name")
        earlier = self._origins.setdefault(target, source)
        if earlier != source:
            LOGGER.warning("%s: the result of %s is replaced by that of %s", target, earlier, source)
        return target

    def close(self) -> None:
        """Finish the open videos; one that is not whole is reported when all are finished."""
        with ExitStack() as stack:
            for video in self._videos.values():
                stack.callback(video.close)
            self._videos.clear()


class TextSink:
    """Label files ``labels/<stem>.txt``, in videos ``<stem>_<frame>.txt``; lines are appended.

    Attributes:
        count: files written to.
    """

    def __init__(self, folder: Path, corners: bool = False, confidence: bool = False) -> None:
        """Make the folder.

        Args:
            folder: the run's; files go to ``labels`` below.
            corners: write x1 y1 x2 y2 instead of centre and size; both normalised by the frame.
            confidence: add it as a last column.
        """
        self.folder = folder / "labels"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.corners, self.confidence = corners, confidence
        self._written: set[Path] = set()

    @property
    def count(self) -> int:
        """Files written to."""
        return len(self._written)

    def write(self, frame: Frame) -> None:
        """Append one frame's lines; no file where nothing was found."""
        height, width = frame.result.image.shape[:2]
        lines = [self._line(one, width, height) for one in frame]
        if lines:
            file = make_folder(self.folder / frame.result.subfolder) / f"{frame.result.stem}.txt"
            with file.open("a", encoding="utf-8") as stream:
                stream.writelines(lines)
            self._written.add(file)

    def _line(self, one: Found, width: int, height: int) -> str:
        left, top, right, bottom = one.corners
        box = (left, top, right, bottom)
        if not self.corners:
            box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        numbers = [value / side for value, side in zip(box, (width, height, width, height), strict=True)]
        if self.confidence:
            numbers.append(one.confidence)
        return f"{format_label(one.number, numbers)}\n"

    def close(self) -> None:
        """Nothing stays open between frames."""


class CsvSink:
    """``predictions.csv``, a row a detection; rows are appended."""

    def __init__(self, folder: Path) -> None:
        path = folder / "predictions.csv"
        self._stream = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._stream)
        if path.stat().st_size == 0:
            self._writer.writerow(_CSV_COLUMNS)

    def write(self, frame: Frame) -> None:
        """Append one frame's rows."""
        name = (frame.result.subfolder / frame.result.path.name).as_posix()
        self._writer.writerows((name, one.name, f"{one.confidence:.2f}") for one in frame)
        self._stream.flush()

    def close(self) -> None:
        """Close the table."""
        self._stream.close()


class JsonSink:
    """``predictions.json``, a list of detections in COCO's result form; written anew by each run.

    Frames of videos and streams are images of their own, ``<stem>_<frame>``.
    """

    def __init__(self, folder: Path) -> None:
        self._stream = (folder / "predictions.json").open("w", encoding="utf-8")
        self._stream.write("[")
        self._between = "\n"

    def write(self, frame: Frame) -> None:
        """Add one frame's detections, most confident first."""
        for row in coco_rows(coco_image_id(frame.result.stem), frame.result.boxes):
            self._stream.write(f"{self._between}{json.dumps(row)}")
            self._between = ",\n"

    def close(self) -> None:
        """End the list."""
        if not self._stream.closed:
            self._stream.write("\n]\n")
            self._stream.close()


class CropSink:
    """``crops/<class name>/<stem>.jpg``, then ``<stem>2.jpg``, ..., cut from the clean frame."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "crops"
        self._next: dict[tuple[str, str], int] = defaultdict(lambda: 1)

    def write(self, frame: Frame) -> None:
        """Save each detection as a picture."""
        for one in frame:
            target = self._free_file(safe_name(one.name), frame.result.path.stem)
            save_one_box(one.corners, frame.result.image, file=target, BGR=True)

    def _free_file(self, name: str, stem: str) -> Path:
        """Next free name; remembering the last number keeps long videos fast."""
        while True:
            number = self._next[name, stem]
            self._next[name, stem] += 1
            target = self.folder / name / f"{stem}{number if number > 1 else ''}.jpg"
            if not target.exists():
                return target

    def close(self) -> None:
        """Nothing stays open between frames."""


class FeatureSink:
    """``<stem>/stage<i>_<type>_features.png``, up to 32 channels, and ``.npy``, all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, frame: Frame) -> None:
        """Save the feature maps of one frame."""
        target = make_folder(self.folder / frame.result.subfolder / frame.result.stem)
        for feature in frame.result.features:
            name = f"stage{feature.layer}_{feature.kind}_features"
            write_image(target / f"{name}.png", tile_channels(feature.values))
            np.save(target / f"{name}.npy", feature.values)

    def close(self) -> None:
        """Nothing stays open between frames."""


class WindowSink:
    """Annotated frames in a window on the screen."""

    def __init__(self) -> None:
        """Check that there is a screen.

        Raises:
            BackendError: when there is none.
        """
        if not check_imshow(warn=True):
            raise BackendError("--view-img: no window can be opened here; leave it out and look at the saved pictures")

    def write(self, frame: Frame) -> None:
        """Show one frame."""
        cv2.imshow(frame.result.path.name, frame.drawn)
        cv2.waitKey(1)

    def close(self) -> None:
        """Close the windows."""
        cv2.destroyAllWindows()
