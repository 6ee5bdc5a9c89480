"""What ``--source`` means: files, streams, cameras or the screen."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from utils.datasets.frames import FrameSource
from utils.datasets.screens import LoadScreenshots, screen_region
from utils.datasets.source_files import find_files, is_url, is_web_file
from utils.datasets.sources import LoadImages
from utils.datasets.streams import LoadStreams, read_stream_list
from utils.errors import OptionError
from utils.paths import PROJECT_ROOT


def resolve_source(source: str | Path) -> str:
    """A source as it was given; a path or pattern that is not here is looked for beside the project.

    Raises:
        OptionError: when it is empty.
    """
    text = str(source)
    if not text.strip():
        raise OptionError(
            "--source '': expected a picture, video, folder, pattern, .txt list of paths, .streams list, camera "
            "number, URL, or screen"
        )
    beside = PROJECT_ROOT / text
    return str(beside) if not Path(text).exists() and not is_url(text) and beside.exists() else text


def find_source(source: str | Path, recursive: bool = False) -> Callable[..., FrameSource]:
    """Find out what a source is, without opening anything yet.

    Args:
        source: see :func:`resolve_source`.
        recursive: take the files in the folders below a folder too.

    Returns:
        A function of the keywords ``img_size, stride, auto, vid_stride`` that opens it.

    Raises:
        ProjectError: when there is nothing to look at, or the source is written wrong.
    """
    text = resolve_source(source)
    here = Path(text).expanduser()
    if text.isdecimal() or (is_url(text) and not is_web_file(text)):
        return partial(LoadStreams, [text])
    if here.suffix.lower() == ".streams":
        return partial(LoadStreams, read_stream_list(here))
    if text.lower().split()[0] == "screen" and not here.exists():
        screen_region(text)
        return partial(LoadScreenshots, text)
    files = find_files(text, recursive)
    root = Path(os.path.abspath(here)) if recursive and here.is_dir() else None  # noqa: PTH100 - keeps names of links
    return partial(LoadImages, files, root=root)
