"""Pictures and videos to run a detector on: from a path, a folder, a pattern or a list, frame by frame.

Streams are in ``streams.py``, the screen in ``screens.py``, the search for files in ``source_files.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from utils.datasets.frames import SourceFrame, network_input
from utils.datasets.source_files import IMG_FORMATS, VID_FORMATS, file_name, find_files, is_url, suffix_of
from utils.errors import DatasetError
from utils.image_io import fetch_image, read_image
from utils.log import LOGGER

__all__ = ["IMG_FORMATS", "VID_FORMATS", "LoadImages", "find_files"]

_CUT_SHORT = 0.9  # share of the announced frames; containers only estimate, but not by this much
_BROKEN_IN_A_ROW = 100  # frames that cannot be decoded, after which a video counts as over

Item = tuple[str, np.ndarray, np.ndarray, "cv2.VideoCapture | None", str]


class LoadImages:
    """Goes through pictures and videos, one frame at a time.

    Gives ``(path, im, im0, cap, s)``: the absolute path; the network's input, (3, h, w) uint8 RGB, contiguous; the
    frame as it is, (H, W, 3) uint8 BGR; the open capture of a video, else None; the beginning of a log line. A file
    that cannot be read is reported, remembered and passed over, and so is a frame within a video. Of an animated GIF
    all frames come, as of a video; of other animated pictures, and of pictures with several pages, the first.

    Attributes:
        files: absolute paths, pictures first.
        nf: their number.
        mode: "image" or "video", of what came last.
        count: index of the file being read.
        frame: number of the frame in its video, from 1; 0 for a picture.
        frames: frames that the video announces, less those that ``vid_stride`` skips.
        unreadable: what went wrong, a text for each file passed over and each video with a damaged part.
        live: False, as the files wait.
    """

    live = False

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], Any] | None = None,
        vid_stride: int = 1,
        *,
        root: Path | None = None,
    ) -> None:
        """List the files; none is opened yet.

        Args:
            path: see :func:`utils.datasets.source_files.find_files`.
            img_size: px, a side or (height, width) to letterbox to.
            stride: px, the network's largest.
            auto: pad to the next multiple of the stride only.
            transforms: makes the network's input from im0 instead of letterboxing.
            vid_stride: take every n-th frame of a video, from the first.
            root: absolute; frames of files below it tell in which subfolder they were.

        Raises:
            DatasetError: when there is nothing to read.
        """
        self.files = find_files(path)
        self.nf = len(self.files)
        self.img_size = img_size
        self.stride = stride
        self.auto = auto
        self.transforms = transforms
        self.vid_stride = vid_stride
        self.root = root
        self.unreadable: list[str] = []
        self._rewind()

    def _rewind(self) -> None:
        self.cap: cv2.VideoCapture | None = None
        self.mode = "image"
        self.count = self.frame = self.frames = self._broken = 0

    def frames_of(self, path: str) -> int:
        """Frames that a file announces, less those that ``vid_stride`` skips; 0 when it does not say."""
        if suffix_of(path) in IMG_FORMATS:
            return 1
        capture = cv2.VideoCapture(path)
        try:
            return self._announced(capture)
        finally:
            capture.release()

    def expected_frames(self) -> int | None:
        """Frames in all files together, as they announce them; None when a video lies on the network."""
        if any(is_url(path) and suffix_of(path) in VID_FORMATS for path in self.files):
            return None
        return sum(map(self.frames_of, self.files))

    def _announced(self, capture: cv2.VideoCapture) -> int:
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        return math.ceil(count / self.vid_stride) if count > 0 else 0

    def iter_frames(self) -> Iterator[SourceFrame]:
        """All frames from the start, each with what is known about it."""
        for path, pixels, image, capture, title in self:
            yield SourceFrame(
                path=Path(file_name(path) if is_url(path) else path),
                pixels=pixels,
                image=image,
                title=title,
                number=self.frame,
                fps=_frame_rate(capture),
                subfolder=self._subfolder(path),
            )

    def _subfolder(self, path: str) -> Path:
        within = self.root is not None and Path(path).is_relative_to(self.root)
        return Path(path).parent.relative_to(self.root) if within else Path()

    def __len__(self) -> int:
        return self.nf

    def __iter__(self) -> Iterator[Item]:
        self.close()
        self._rewind()
        self.unreadable.clear()
        return self

    def __next__(self) -> Item:
        while self.count < self.nf:
            path = self.files[self.count]
            image = self._next_frame(path) if suffix_of(path) in VID_FORMATS else self._picture(path)
            if image is not None:
                return self._item(path, image)
        self.close()
        raise StopIteration

    def _item(self, path: str, image: np.ndarray) -> Item:
        number = self.count + (self.mode == "video")  # a picture is already behind us, a video still open
        total = self.frames or "?"
        place = f"video {number}/{self.nf} ({self.frame}/{total})" if self.frame else f"image {number}/{self.nf}"
        title = f"{place} {path}: "
        if self.transforms:
            return path, self.transforms(image), image, self.cap, title
        return path, network_input(image, self.img_size, self.stride, self.auto), image, self.cap, title

    def _picture(self, path: str) -> np.ndarray | None:
        self.mode, self.frame, self.count = "image", 0, self.count + 1
        try:
            return fetch_image(path) if is_url(path) else read_image(path)
        except DatasetError as error:
            self._pass_over(str(error))
            return None

    def _next_frame(self, path: str) -> np.ndarray | None:
        """The next frame of a video, or None when it is over and the next file has its turn."""
        self.mode = "video"
        if self.cap is None and not self._open(path):
            return None
        for _ in range(_BROKEN_IN_A_ROW):
            skipped = self.vid_stride - 1 if self.frame else 0
            if not all(self.cap.grab() for _ in range(skipped + 1)):
                break
            done, image = self.cap.retrieve()
            if done and image is not None:
                self.frame += 1
                return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            self._broken += 1
        self._end_of_video(path)
        return None

    def _open(self, path: str) -> bool:
        self.frame = self._broken = 0
        self.cap = cv2.VideoCapture(path)
        self.frames = self._announced(self.cap)
        if not self.cap.isOpened():
            self._end_of_video(path)
            return False
        return True

    def _end_of_video(self, path: str) -> None:
        if self.frame == 0:
            self._pass_over(f"{path}: is not a video that can be read, or is damaged")
        elif self._broken:
            self._pass_over(f"{path}: {self._broken} of {self.frames or '?'} frames are damaged")
        elif self.frame < _CUT_SHORT * self.frames:
            self._pass_over(f"{path}: ended after {self.frame} of {self.frames} frames; the rest is damaged or missing")
        self.close()
        self.count += 1

    def _pass_over(self, reason: str) -> None:
        self.unreadable.append(reason)
        LOGGER.warning("skipped: %s", reason)

    def close(self) -> None:
        """Let go of the open video, if any."""
        if self.cap is not None:
            self.cap.release()
            self.cap = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _frame_rate(capture: cv2.VideoCapture | None) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS) if capture is not None else 0.0
    return float(rate) if np.isfinite(rate) and rate > 0 else 0.0
