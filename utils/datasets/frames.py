"""What every source of pictures gives, be it files, streams or the screen: frames that are ready for a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.augmentations import letterbox


@dataclass(frozen=True)
class SourceFrame:
    """One frame on its way to a detector.

    Attributes:
        path: the picture or video, absolute; the bare name of a stream, the screen or a file on the network.
        pixels: (3, h, w) uint8 RGB, letterboxed, contiguous.
        image: (H, W, 3) uint8 BGR, as it is.
        title: beginning of a log line, such as ``image 1/2 PATH: ``.
        number: in its video from 1, in its stream from 0; 0 for a picture.
        fps: frames a second of its video; 0 when unknown and for a picture.
        stream: whether it comes from a stream or the screen.
        subfolder: of the path below the folder that is searched with its subfolders; empty otherwise.
    """

    path: Path
    pixels: np.ndarray
    image: np.ndarray
    title: str = ""
    number: int = 0
    fps: float = 0.0
    stream: bool = False
    subfolder: Path = Path()


class FrameSource(Protocol):
    """What every source can do.

    Attributes:
        live: frames come when they come, and a late reader misses some: reading ahead would only make them old.
        unreadable: what went wrong, a text for each file, stream or part of a video passed over.
    """

    live: bool
    unreadable: list[str]

    def iter_frames(self) -> Iterator[SourceFrame]:
        """All frames from the start, one at a time."""

    def expected_frames(self) -> int | None:
        """How many frames there will be, as far as the files say; None when nobody knows."""

    def close(self) -> None:
        """Let go of files, devices and threads; may be called twice."""


def network_input(image: np.ndarray, img_size: int | Sequence[int], stride: int, auto: bool) -> np.ndarray:
    """Letterbox a picture for a network.

    Args:
        image: (H, W, 3) uint8 BGR.
        img_size: px, a side or (height, width) to letterbox to.
        stride: px, the network's largest.
        auto: pad to the next multiple of the stride only.

    Returns:
        (3, h, w) uint8 RGB, contiguous.
    """
    boxed, _, _ = letterbox(image, img_size, stride=stride, auto=auto)
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))  # BGR to RGB, channels first
