"""Find objects in pictures, videos and live streams.

    python detect.py --weights yolov5s.pt --source photo.jpg        # or a folder, a video, 'folder/*.jpg', list.txt
    python detect.py --weights yolov5s.pt --source rtsp://host/live # or cameras.streams, 0, screen, http://...

Exit codes: 0 done; 1 done, but something could not be read; 2 a wrong option, source or weights file; 130 Ctrl-C, 143
SIGTERM, both with all files finished.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.cli import run_command
from engine.options.detect import DetectOptions

EXIT_UNREADABLE = 1


def parse_opt(argv: Sequence[str] | None = None) -> DetectOptions:
    """Read the command line."""
    return DetectOptions.parse(argv, description=__doc__.splitlines()[0])


def main(opt: DetectOptions) -> int:
    """Detect as the options say.

    Returns:
        The exit code: 0, or 1 when a file could not be read.
    """
    from engine.detection import run_detection  # noqa: PLC0415 - --help must not wait for torch

    return EXIT_UNREADABLE if run_detection(opt).unreadable else 0


def run(**kwargs: Any) -> None:
    """Detect from Python: keywords are the flags with ``_`` for ``-``.

    Raises:
        ProjectError: when an option, the source or the weights cannot be used. Files that cannot be read are logged.
    """
    main(DetectOptions.from_kwargs(**kwargs))


def _script() -> None:
    code = main(parse_opt())
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(run_command(_script))
