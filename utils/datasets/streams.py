"""Live streams: cameras and network addresses, each read by a thread that keeps the newest frame only."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from utils.datasets.frames import SourceFrame, network_input
from utils.datasets.source_files import is_url, read_lines
from utils.errors import DatasetError
from utils.log import LOGGER

_PATIENCE_MS = 10_000  # for a connection, and for the next frame over it
_FIRST_PAUSE = 0.25  # seconds before a lost stream is opened again; doubles with each failure
_LONGEST_PAUSE = 15.0
_FILE_FPS = 30.0  # at which a video file that stands in for a stream is played when it does not say
_LIKELY_FPS = 1000.0  # streams that announce more do not know
_LONGEST_NAME = 100  # characters; file systems take 255 bytes
_AWAKE = 0.5  # seconds between looks at what is not announced
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")

Round = tuple[list[str], np.ndarray, list[np.ndarray], None, str]


def without_credentials(source: str) -> str:
    """An address without the user name and password that may stand in it."""
    return _CREDENTIALS.sub("", source)


def stream_name(source: str) -> str:
    """A stream's name for files: letters, digits and ``_`` only, and no password."""
    return re.sub(r"\W", "_", without_credentials(source))[:_LONGEST_NAME]


def stream_names(sources: Sequence[str]) -> list[str]:
    """Names for files of several streams, each another one."""
    names: list[str] = []
    for number, source in enumerate(sources, 1):
        name = stream_name(source)
        names.append(f"{name}_{number}" if name in names else name)
    return names


def read_stream_list(source: str | Path | Sequence[str]) -> list[str]:
    """Streams meant by a ``.streams`` or ``.txt`` file, one a line, by a single one, or by several.

    Raises:
        DatasetError: when the file cannot be read or is empty.
    """
    if isinstance(source, (list, tuple)):
        return [str(one) for one in source]
    text = str(source)
    if text.lower().endswith((".streams", ".txt")) and not is_url(text):
        streams = read_lines(Path(text), "streams")
        if not streams:
            raise DatasetError(f"{text}: is empty; expected a camera's number or an address a line")
        return streams
    return [text]


class StreamReader(threading.Thread):
    """Reads one stream, keeps its newest frame, and opens it again when it is lost.

    The pause before a new attempt grows from a quarter of a second to a quarter of a minute. A video file is played at
    its own speed, once.

    Attributes:
        source: camera number or address, or the path of a video.
        shown: the same without a password.
        image: (H, W, 3) uint8 BGR, the newest frame; None before the first.
        number: of that frame, from 0, among those that ``vid_stride`` leaves; -1 before the first.
        connected: whether frames come.
        over: whether none will come any more.
        reason: why there has been no frame yet, None once there was one.
        losses: how often it was lost.
        fps: frames a second that it announces, 0 when it does not.
    """

    def __init__(self, source: str, news: threading.Condition, vid_stride: int = 1) -> None:
        """Get ready; the thread starts with ``start()``.

        Args:
            source: what to read.
            news: notified of each frame and each change of state, and held while they change.
            vid_stride: take every n-th frame.
        """
        super().__init__(name=f"stream {without_credentials(source)}", daemon=True)
        self.source, self.shown = source, without_credentials(source)
        self.vid_stride = vid_stride
        self.image: np.ndarray | None = None
        self.number = -1
        self.connected = self.over = False
        self.reason: str | None = f"{self.shown}: no frame so far"
        self.tried = threading.Event()
        self.losses = 0
        self.fps = 0.0
        self._news = news
        self._ended = threading.Event()

    @property
    def is_file(self) -> bool:
        """Whether it is a video on the disk, which has an end."""
        return not self.source.isdecimal() and not is_url(self.source)

    def run(self) -> None:
        """Read until told to stop."""
        pause = _FIRST_PAUSE
        while not self._ended.is_set():
            pause = _FIRST_PAUSE if self._read_connection() else min(2 * pause, _LONGEST_PAUSE)
            if self.is_file or self._ended.is_set():
                break
            LOGGER.warning("stream %s: no frames, trying again in %.2g s", self.shown, pause)
            self._ended.wait(pause)
        with self._news:
            self.over = True
            self._news.notify_all()

    def _read_connection(self) -> int:
        """Read as long as frames come; returns how many."""
        capture = cv2.VideoCapture()
        before = self.number
        try:
            self._open(capture)
            self._read_frames(capture)
        except (cv2.error, OverflowError) as error:  # some cameras fail this way while they go away
            LOGGER.warning("stream %s: %s", self.shown, str(error).strip().splitlines()[-1])
        finally:
            capture.release()
            self._lose(self.number - before)
        return self.number - before

    def _read_frames(self, capture: cv2.VideoCapture) -> None:
        grabbed = 0
        begun = time.monotonic()
        while not self._ended.is_set() and capture.grab():
            grabbed += 1
            if (grabbed - 1) % self.vid_stride:
                continue
            done, image = capture.retrieve()
            if done and image is not None:  # a damaged frame is not news
                self._keep(image)
            if self.is_file:
                self._ended.wait(max(begun + grabbed / (self.fps or _FILE_FPS) - time.monotonic(), 0))

    def _open(self, capture: cv2.VideoCapture) -> None:
        if self.source.isdecimal():
            capture.open(int(self.source), cv2.CAP_ANY)
        elif self.is_file:
            capture.open(self.source)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _PATIENCE_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _PATIENCE_MS]
            capture.open(self.source, cv2.CAP_FFMPEG, limits)
        rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
        self.fps = float(rate) if np.isfinite(rate) and 0 < rate < _LIKELY_FPS else 0.0

    def _keep(self, image: np.ndarray) -> None:
        with self._news:
            self.image = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            self.number += 1
            self.connected, self.reason = True, None
            self.tried.set()
            self._news.notify_all()

    def _lose(self, received: int) -> None:
        with self._news:
            self.connected = False
            self.losses += received > 0 and not self._ended.is_set()
            if self.number < 0:
                self.reason = f"{self.shown}: cannot be opened, or gives no pictures"
            self.tried.set()
            self._news.notify_all()

    def end(self) -> None:
        """Stop soon; ``join()`` waits for it."""
        self._ended.set()


class LoadStreams:
    """Goes through several live streams at once, with the newest frame of each.

    Iterating gives ``(sources, im, im0s, None, "")`` with one entry a stream: names; the network's input, (B, 3, h, w)
    uint8 RGB; the frames, (H, W, 3) uint8 BGR. A round comes as soon as any stream has a new frame; a stream that is
    lost is black until it is back. :meth:`iter_frames` gives new frames only, and none of lost streams.

    Attributes:
        sources: the streams' names, fit for files.
        readers: the threads.
        mode: "stream".
        count: rounds given, from 0.
        fps: frames a second that each announces, 0 when it does not.
        frames: of each, always infinite.
        unreadable: the streams that never gave a frame.
        live: True.
    """

    live = True
    mode = "stream"

    def __init__(
        self,
        sources: str | Path | Sequence[str] = "file.streams",
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], Any] | None = None,
        vid_stride: int = 1,
    ) -> None:
        """Open all streams at once, and wait until each has given a frame or failed to.

        Args:
            sources: a ``.streams`` or ``.txt`` file, a camera's number, an address, or several of these.
            img_size: px, a side or (height, width) to letterbox to.
            stride: px, the network's largest.
            auto: pad to the next multiple of the stride only; dropped where the streams' shapes differ.
            transforms: makes the network's input from a frame instead of letterboxing.
            vid_stride: take every n-th frame.

        Raises:
            DatasetError: when none of the streams can be opened.
        """
        listed = read_stream_list(sources)
        self.sources = stream_names(listed)
        self.img_size, self.stride, self.auto = img_size, stride, auto
        self.transforms = transforms
        self.count = 0
        self._news = threading.Condition()
        self.readers = [StreamReader(source, self._news, vid_stride) for source in listed]
        for reader in self.readers:
            reader.start()
        for reader in self.readers:
            reader.tried.wait()
        if all(reader.image is None for reader in self.readers):
            reasons = "; ".join(filter(None, (reader.reason for reader in self.readers)))
            self.close()
            raise DatasetError(f"{reasons}. Expected a camera's number or the address of a stream")
        for reason in self.unreadable:
            LOGGER.warning("going on without it so far: %s", reason)

    @property
    def fps(self) -> list[float]:
        """Frames a second that each stream announces."""
        return [reader.fps for reader in self.readers]

    @property
    def frames(self) -> list[float]:
        """Frames in each stream."""
        return [float("inf")] * len(self.readers)

    @property
    def unreadable(self) -> list[str]:
        """Why streams have never given a frame."""
        return [reader.reason for reader in self.readers if reader.reason is not None]

    def expected_frames(self) -> int | None:
        """Nobody knows."""
        return None

    def __len__(self) -> int:
        return len(self.sources)

    def _wait(self, seen: list[int]) -> bool:
        """Wait for a frame that is newer than those seen; False when none will come."""
        with self._news:
            while not any(reader.number > last for reader, last in zip(self.readers, seen, strict=True)):
                if all(reader.over for reader in self.readers):
                    return False
                self._news.wait(_AWAKE)
        return True

    def iter_frames(self) -> Iterator[SourceFrame]:
        """New frames as they come, the streams by turns; those that come too fast are passed over."""
        seen = [-1] * len(self.readers)
        while self._wait(seen):
            for index, reader in enumerate(self.readers):
                with self._news:
                    image, number = reader.image, reader.number
                if number > seen[index]:
                    seen[index] = number
                    yield SourceFrame(
                        path=Path(self.sources[index]),
                        pixels=self._pixels(image, self.auto),
                        image=image,
                        title=f"stream {index + 1}/{len(self)} ({number}) {reader.shown}: ",
                        number=number,
                        stream=True,
                    )

    def _pixels(self, image: np.ndarray, auto: bool) -> np.ndarray:
        return self.transforms(image) if self.transforms else network_input(image, self.img_size, self.stride, auto)

    def __iter__(self) -> Iterator[Round]:
        seen = [-1] * len(self.readers)
        while self._wait(seen):
            with self._news:
                seen = [reader.number for reader in self.readers]
                shots = [(reader.image, reader.connected) for reader in self.readers]
            shape = next(image.shape for image, _ in shots if image is not None)
            images = [_or_black(image, connected, shape) for image, connected in shots]
            auto = self.auto and len({image.shape for image in images}) == 1
            yield list(self.sources), np.stack([self._pixels(one, auto) for one in images]), images, None, ""
            self.count += 1

    def close(self) -> None:
        """End the threads."""
        for reader in self.readers:
            reader.end()
        for reader in self.readers:
            reader.join(timeout=2.0)  # one that hangs in a read is a daemon, and goes with the process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _or_black(image: np.ndarray | None, connected: bool, shape: tuple[int, ...]) -> np.ndarray:
    """A stream's frame, or black of its shape, or of another stream's shape where it has never given one."""
    if connected and image is not None:
        return image
    return np.zeros(shape if image is None else image.shape, np.uint8)
