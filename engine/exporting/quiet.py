"""Keeping to itself what exporters print, log and warn about their own steps."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

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
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        logging.root.handlers[:] = handlers
