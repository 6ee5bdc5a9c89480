"""Write a detector for other runtimes: ``python export.py --weights best.pt --include onnx``; see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import run_command
from engine.options.export import ExportOptions
from utils.log import setup_logging


def parse_opt(argv: Sequence[str] | None = None) -> ExportOptions:
    """Read the command line."""
    return ExportOptions.parse(argv, description=__doc__.split(":")[0])


def main(opt: ExportOptions) -> list[Path]:
    """Export as the options say; returns what was written."""
    from engine.exporting.exporter import run_export  # noqa: PLC0415 - --help must not wait for torch

    return run_export(opt)


def run(**kwargs: Any) -> list[str]:
    """Export from Python: keywords are the flags with ``_`` for ``-``; ``include`` is TorchScript and ONNX by default.

    Returns:
        Paths of what was written.

    Raises:
        ProjectError: when an option cannot be met, a package is missing, or a file does not give what PyTorch gives.
    """
    setup_logging()
    options = ExportOptions.from_kwargs(**{"include": ["torchscript", "onnx"], **kwargs})
    return [str(path) for path in main(options)]


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(parse_opt())))
