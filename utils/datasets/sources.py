"""Pictures and videos to run a detector on: from a path, a folder, a pattern or a list, frame by frame."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from utils.augmentations import letterbox
from utils.errors import DatasetError
from utils.image_io import read_image
from utils.log import LOGGER

IMG_FORMATS = ("bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm")
VID_FORMATS = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "wmv")

_CUT_SHORT = 0.9  # share of the announced frames; containers only estimate, but not by this much

Item = tuple[str, np.ndarray, np.ndarray, "cv2.VideoCapture | None", str]


def _suffix(path: str) -> str:
    return Path(path).suffix[1:].lower()


def _read_list(file: Path) -> list[str]:
    """Paths in a text file, one a line; those that are not below the current folder are tried beside the list."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read as a list of paths ({error})") from error
    found = []
    for line in filter(None, map(str.strip, lines)):
        beside = file.parent / line
        found.append(str(beside) if not Path(line).exists() and beside.exists() else line)
    return found


def _expand(source: str) -> list[str]:
    """Files meant by one path: itself, a folder's, or a pattern's."""
    path = Path(source).expanduser()
    if path.is_dir():
        return sorted(str(entry) for entry in path.iterdir() if entry.is_file() and _is_known(str(entry)))
    if path.exists():  # before patterns: a name may have brackets
        return [str(path)]
    if glob.has_magic(source):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return sorted(filter(_is_known, found))
    raise DatasetError(f"{source}: no such file or folder")


def _is_known(path: str) -> bool:
    return _suffix(path) in IMG_FORMATS + VID_FORMATS


def find_files(path: str | Path | Sequence[str | Path]) -> list[str]:
    """Absolute paths of the pictures and videos behind a source; pictures first, then videos.

    Args:
        path: a file, a folder (not deeper), a pattern, a ``.txt`` list of paths, or several of these.

    Raises:
        DatasetError: when one does not exist, or there is nothing to look at. A missing file inside a list is only
            found out when its turn comes.
    """
    entries = [str(entry) for entry in path] if isinstance(path, (list, tuple)) else [str(path)]
    files: list[str] = []
    for entry in entries:
        if _suffix(entry) == "txt":
            files += _read_list(Path(entry))
        elif len(entries) > 1 and not Path(entry).exists() and not glob.has_magic(entry):
            files.append(entry)
        else:
            files += _expand(entry)
    files = [os.path.abspath(file) for file in files]  # noqa: PTH100 - Path.resolve would rename links
    known = [file for file in files if _is_known(file)]
    if not known:
        formats = f"pictures: {' '.join(IMG_FORMATS)}; videos: {' '.join(VID_FORMATS)}"
        raise DatasetError(f"{', '.join(entries)}: no pictures or videos there ({formats})")
    for file in files:
        if not _is_known(file):
            LOGGER.warning("%s: neither a picture nor a video by its suffix, left out", file)
    return [file for file in known if _suffix(file) in IMG_FORMATS] + [
        file for file in known if _suffix(file) in VID_FORMATS
    ]


class LoadImages:
    """Goes through pictures and videos, one frame at a time.

    Gives ``(path, im, im0, cap, s)``: the absolute path; the network's input, (3, h, w) uint8 RGB, contiguous; the
    frame as it is, (H, W, 3) uint8 BGR; the open capture of a video, else None; the beginning of a log line. A file
    that cannot be read is reported, remembered and passed over.

    Attributes:
        files: absolute paths, pictures first.
        nf: their number.
        mode: "image" or "video", of what came last.
        count: index of the file being read.
        frame: number of the frame in its video, from 1; 0 for a picture.
        frames: frames that the video announces, less those that ``vid_stride`` skips.
        unreadable: what went wrong, a text for each file passed over.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], Any] | None = None,
        vid_stride: int = 1,
    ) -> None:
        """List the files; none is opened yet.

        Args:
            path: see :func:`find_files`.
            img_size: px, a side or (height, width) to letterbox to.
            stride: px, the network's largest.
            auto: pad to the next multiple of the stride only.
            transforms: makes the network's input from im0 instead of letterboxing.
            vid_stride: take every n-th frame of a video, from the first.

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
        self.unreadable: list[str] = []
        self._rewind()

    def _rewind(self) -> None:
        self.cap: cv2.VideoCapture | None = None
        self.mode = "image"
        self.count = self.frame = self.frames = 0

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
            image = self._next_frame(path) if _suffix(path) in VID_FORMATS else self._picture(path)
            if image is not None:
                return self._item(path, image)
        self.close()
        raise StopIteration

    def _item(self, path: str, image: np.ndarray) -> Item:
        number = self.count + (self.mode == "video")  # a picture is already behind us, a video still open
        total = self.frames or "?"
        place = f"video {number}/{self.nf} ({self.frame}/{total})" if self.frame else f"image {number}/{self.nf}"
        if self.transforms:
            return path, self.transforms(image), image, self.cap, f"{place} {path}: "
        boxed, _, _ = letterbox(image, self.img_size, stride=self.stride, auto=self.auto)
        planes = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))  # BGR to RGB, channels first
        return path, planes, image, self.cap, f"{place} {path}: "

    def _picture(self, path: str) -> np.ndarray | None:
        self.mode, self.frame, self.count = "image", 0, self.count + 1
        try:
            return read_image(path)
        except DatasetError as error:
            self._pass_over(str(error))
            return None

    def _next_frame(self, path: str) -> np.ndarray | None:
        """The next frame of a video, or None when it is over and the next file has its turn."""
        self.mode = "video"
        if self.cap is None and not self._open(path):
            return None
        skipped = self.vid_stride - 1 if self.frame else 0
        alive = all(self.cap.grab() for _ in range(skipped + 1))
        done, image = self.cap.retrieve() if alive else (False, None)
        if done and image is not None:
            self.frame += 1
            return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        self._end_of_video(path)
        return None

    def _open(self, path: str) -> bool:
        self.frame = 0
        self.cap = cv2.VideoCapture(path)
        announced = self.cap.get(cv2.CAP_PROP_FRAME_COUNT) if self.cap.isOpened() else 0
        self.frames = math.ceil(announced / self.vid_stride) if announced > 0 else 0
        if not self.cap.isOpened():
            self._end_of_video(path)
            return False
        return True

    def _end_of_video(self, path: str) -> None:
        if self.frame == 0:
            self._pass_over(f"{path}: is not a video that can be read, or is damaged")
        elif self.frame < _CUT_SHORT * self.frames:
            LOGGER.warning("%s: ended after %d of %d frames; it may be damaged", path, self.frame, self.frames)
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
