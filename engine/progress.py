"""What a detection run shows while it works: a line a frame when there are few, a bar when there are many."""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from engine.predictor import FrameResult
from utils.log import LOGGER
from utils.wording import count_classes

_FEW = 25  # frames up to which each has its line


class Progress:
    """Counts what is found and shows it; a context manager.

    Attributes:
        frames: results so far.
        detections: boxes so far.
    """

    def __init__(self, expected: int | None, every_frame: bool = False) -> None:
        """Choose how to show it.

        Args:
            expected: frames to come; None when nobody knows, which counts as many.
            every_frame: log a line for each in any case.
        """
        self.frames = self.detections = 0
        self._lines = every_frame or (expected is not None and expected <= _FEW)
        self._bar = tqdm(
            total=expected or None,
            desc="detecting",
            unit=" frames",
            dynamic_ncols=True,
            disable=True if self._lines else None,  # None: where there is no terminal
        )
        above_bar = LOGGER.handlers and not self._bar.disable
        self._redirect = logging_redirect_tqdm([LOGGER]) if above_bar else nullcontext()

    def show(self, result: FrameResult) -> None:
        """Count a result and show it."""
        self.frames += 1
        self.detections += len(result.boxes)
        if self._lines:
            LOGGER.info(describe(result))
        else:
            self._bar.update()

    def __enter__(self) -> Self:
        self._redirect.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._redirect.__exit__(kind, error, trace)


def describe(result: FrameResult) -> str:
    """The log line of one frame."""
    height, width = result.input_hw
    counts = count_classes(result.boxes[:, 5], result.names)
    return f"{result.title}{height}x{width} {counts}, {1e3 * result.seconds:.1f}ms"
