"""The screen as a source of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from utils.datasets.frames import SourceFrame, network_input
from utils.errors import BackendError, DatasetError

Shot = tuple[str, np.ndarray, np.ndarray, None, str]


def screen_region(source: str) -> tuple[int, tuple[int, int, int, int] | None]:
    """Read ``screen [number] [left top width height]``.

    Returns:
        The screen's number, 0 for all together, and the region in px of that screen, None for the whole of it.

    Raises:
        DatasetError: when it is written otherwise.
    """
    _, *words = source.split()
    if len(words) not in (0, 1, 4, 5) or not all(word.removeprefix("-").isdecimal() for word in words):
        raise DatasetError(f"{source}: expected screen [number] [left top width height]")
    numbers = [int(word) for word in words]
    number = numbers.pop(0) if len(numbers) in (1, 5) else 0
    if number < 0 or (numbers and min(numbers[2:]) < 1):
        raise DatasetError(f"{source}: expected a screen's number from 0, and a width and height from 1")
    return number, tuple(numbers) or None


class LoadScreenshots:
    """Takes one picture of the screen after the other, as fast as the caller asks, without end.

    Gives ``(screen number, im, im0, None, s)``; see :class:`utils.datasets.sources.LoadImages`.

    Attributes:
        screen: its number, 0 for all together.
        mode: "stream".
        frame: number of the next picture, from 0.
        live: True.
    """

    live = True
    mode = "stream"

    def __init__(
        self,
        source: str,
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], Any] | None = None,
        *,
        vid_stride: int = 1,
    ) -> None:
        """Find the screen.

        Args:
            source: ``screen [number] [left top width height]``, px.
            img_size: px, a side or (height, width) to letterbox to.
            stride: px, the network's largest.
            auto: pad to the next multiple of the stride only.
            transforms: makes the network's input from im0 instead of letterboxing.
            vid_stride: of no use here, where pictures are taken on demand.

        Raises:
            BackendError: when the package mss is missing, or there is no screen.
            DatasetError: when the source is written wrong, or there is no such screen.
        """
        self.screen, region = screen_region(source)
        self.img_size, self.stride, self.auto = img_size, stride, auto
        self.transforms = transforms
        self.frame = 0
        self.unreadable: list[str] = []
        self._grabber = _open_grabber(source)
        monitors = self._grabber.monitors
        if self.screen >= len(monitors):
            self.close()
            raise DatasetError(f"{source}: there are {len(monitors) - 1} screens, and 0 for all of them together")
        whole = monitors[self.screen]
        left, top, width, height = region or (0, 0, whole["width"], whole["height"])
        self.monitor = {
            "left": whole["left"] + left,
            "top": whole["top"] + top,
            "width": width,
            "height": height,
        }

    def expected_frames(self) -> int | None:
        """It has no end."""
        return None

    def _take(self) -> tuple[np.ndarray, str]:
        """One picture, (H, W, 3) uint8 BGR, and its title."""
        image = np.ascontiguousarray(np.asarray(self._grabber.grab(self.monitor))[..., :3])  # BGRA
        region = ",".join(str(self.monitor[side]) for side in ("left", "top", "width", "height"))
        return image, f"screen {self.screen} ({self.frame}) {region}: "

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        if self.transforms:
            return self.transforms(image)
        return network_input(image, self.img_size, self.stride, self.auto)

    def iter_frames(self) -> Iterator[SourceFrame]:
        """Pictures of the screen, each taken when it is asked for."""
        while True:
            image, title = self._take()
            name = Path(f"screen_{self.screen}")
            yield SourceFrame(name, self._pixels(image), image, title, number=self.frame, stream=True)
            self.frame += 1

    def __iter__(self) -> Iterator[Shot]:
        for frame in self.iter_frames():
            yield str(self.screen), frame.pixels, frame.image, None, frame.title

    def close(self) -> None:
        """Let go of the screen."""
        self._grabber.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_grabber(source: str) -> Any:
    """The object of mss that takes pictures of the screen."""
    try:
        import mss  # noqa: PLC0415 - optional package
    except ImportError as error:
        raise BackendError(f'--source {source}: needs a package; install it with: pip install "mss>=10.2"') from error
    try:
        return mss.MSS()
    except mss.exception.ScreenShotError as error:
        raise BackendError(f"--source {source}: no screen can be seen here ({error})") from error
