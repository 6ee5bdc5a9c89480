"""Keeping to itself what exporters print, log and warn about their own steps."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

_STDOUT = 1  # file descriptor
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir", "root")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let no warning, no log line below an error, and nothing printed through inside."""
    loggers = [logging.getLogger(None if name == "root" else name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    handlers = list(logging.root.handlers)  # the root's first message would add one
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), _nothing_printed():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        logging.root.handlers[:] = handlers


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Drop what Python prints and what C++ does: torch's recorder shows the whole graph when it fails."""
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    try:
        with Path(os.devnull).open("wb") as nowhere, contextlib.redirect_stdout(io.StringIO()):
            os.dup2(nowhere.fileno(), _STDOUT)
            yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
