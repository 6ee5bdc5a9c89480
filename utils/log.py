"""One logger for the whole project; entry points decide what it prints."""

from __future__ import annotations

import logging
import sys

LOGGER = logging.getLogger("yolov5")

_ANSI = {
    "black": "\033[30m",
    "red": "\033[31m",
    "green": "\033[32m",
    "yellow": "\033[33m",
    "blue": "\033[34m",
    "magenta": "\033[35m",
    "cyan": "\033[36m",
    "white": "\033[37m",
    "bold": "\033[1m",
    "underline": "\033[4m",
    "end": "\033[0m",
}


def setup_logging(verbose: bool = True) -> None:
    """Print the project's messages to standard error; called by entry points, never on import.

    Where the surrounding program has set up logging of its own, the messages go there and nothing is added.

    Args:
        verbose: False keeps warnings and errors only.
    """
    if not LOGGER.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO if verbose else logging.WARNING)


def colorstr(*parts: str) -> str:
    """Wrap a text in terminal colours.

    Args:
        *parts: colour and style names, the text last; a text alone is bold blue.

    Raises:
        KeyError: when a name is no known colour or style.
    """
    *styles, text = parts
    codes = "".join(_ANSI[style] for style in (styles or ("blue", "bold")))
    return f"{codes}{text}{_ANSI['end']}"
