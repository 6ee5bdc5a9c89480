"""One logger for the whole project; entry points decide what it prints."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("yolov5")

_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")  # in the terminal's own order
_CODES = {
    **{name: 30 + place for place, name in enumerate(_COLOURS)},
    **{f"bright_{name}": 90 + place for place, name in enumerate(_COLOURS)},
    **{"end": 0, "bold": 1, "underline": 4},
}


_ANSI = re.compile(r"\033\[\d+m")


class PlainFormatter(logging.Formatter):
    """Leaves the colours out, for files and pipes."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text without terminal codes."""
        return _ANSI.sub("", super().format(record))


def setup_logging(verbose: bool = True) -> None:
    """Print the project's messages to standard error; called by entry points, never on import.

    Where the surrounding program has set up logging of its own, the messages go there and nothing is added.

    Args:
        verbose: False keeps warnings and errors only.
    """
    if not LOGGER.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s") if sys.stderr.isatty() else PlainFormatter("%(message)s"))
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO if verbose else logging.WARNING)


@contextmanager
def at_level(level: int) -> Iterator[None]:
    """Let only messages of a level and above through inside, such as ``logging.WARNING``."""
    before = LOGGER.level
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


def colorstr(*parts: str) -> str:
    """Wrap a text in terminal colours.

    Args:
        *parts: colours (``red``, ``bright_red``, ...) and ``bold``, ``underline``, the text last; a text alone is bold
            blue.

    Raises:
        KeyError: when a name is no known colour or style.
    """
    *styles, text = parts
    codes = "".join(_escape(style) for style in styles or ("blue", "bold"))
    return f"{codes}{text}{_escape('end')}"


def _escape(style: str) -> str:
    return f"\033[{_CODES[style]}m"
