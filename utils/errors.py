"""The errors that a user can cause and a user can mend.

Each says what was expected, what was found, where (file and line, YAML row, tensor) and what to do. The scripts print
one of these as a single line and exit with code 2; anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 1000  # characters of a message; what a file says goes into it, and may be anything


class ProjectError(Exception):
    """Base of every error that is meant to be read by a user rather than debugged; its text is always one line."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), _LONGEST))


class ConfigError(ProjectError):
    """A model YAML, hyperparameter file or other setting says something impossible."""


class DatasetError(ProjectError):
    """A data set, its YAML, an image or a label file cannot be used."""


class CheckpointError(ProjectError):
    """A weights file cannot be read, or does not fit what it is asked to do."""


class BackendError(ProjectError):
    """The machine, a device or an optional package cannot do what was asked."""


class TrainingError(ProjectError):
    """Training went wrong in a way that settings can mend."""


class OptionError(ProjectError):
    """A command-line flag or a keyword of ``run(**kwargs)`` is unknown, wrong or not available."""


def printable(text: str, longest: int = 160) -> str:
    """Text from anywhere as one line, without its middle where it is too long; control characters become ``?``."""
    if len(text) > longest:
        head = longest * 2 // 3  # the culprit; what to do stands at the end
        text = f"{text[:head]}...{text[head + 3 - longest :]}"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.splitlines()))


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of an error's text, cut to ``longest`` characters; its type where it has no text."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:longest]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean a or b?`` with the known words closest to a wrong one; empty where none is close."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else ""
