"""Questions about what is installed and about the caller; nothing is ever installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from utils.errors import BackendError
from utils.log import LOGGER, colorstr

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")  # the name in front of extras, versions and markers

# Package -> the module by which its import alone reports to its maker; where there is none, it does without
_REPORTERS = {"openvino": "openvino_telemetry"}


def check_requirements(
    requirements: str | Path | Iterable[str] = "requirements.txt", exclude: Iterable[str] = ()
) -> None:
    """Make sure that packages are installed; their versions are pip's business.

    Args:
        requirements: a requirements file, one requirement, or several.
        exclude: names to leave out.

    Raises:
        BackendError: listing what is missing and the command that installs it.
    """
    skipped = {name.lower() for name in exclude}
    missing = []
    for line in _requirement_lines(requirements):
        found = _REQUIREMENT.match(line)
        if found and found[1].lower() not in skipped and not _is_installed(found[1]):
            missing.append(line.split("#")[0].strip())
    if missing:
        quoted = " ".join(f'"{line}"' for line in missing)
        raise BackendError(f"missing packages: {', '.join(missing)}; install them with: pip install {quoted}")


def _requirement_lines(requirements: str | Path | Iterable[str]) -> list[str]:
    if isinstance(requirements, Path) or (isinstance(requirements, str) and requirements.endswith(".txt")):
        return Path(requirements).read_text(encoding="utf-8").splitlines()
    return [requirements] if isinstance(requirements, str) else list(requirements)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def import_optional(module: str, purpose: str) -> ModuleType:
    """Import a package that only some commands need.

    Args:
        module: its name, in Python and on the package index alike; a part of it, such as ``a.b``, is imported too.
        purpose: who needs it, to begin the error with.

    Raises:
        BackendError: when it is not installed, with the command that installs it.
    """
    package = module.partition(".")[0]
    try:
        with _absent(_REPORTERS.get(package)):
            return importlib.import_module(module)
    except ImportError as error:
        if _is_installed(package):
            raise BackendError(f"{purpose} needs {package}, which cannot be loaded here ({error})") from error
        raise BackendError(f"{purpose} needs {package}: pip install {package}") from error


@contextmanager
def _absent(module: str | None) -> Iterator[None]:
    """While inside, a module that is not loaded yet is as if it were not installed; None for no module."""
    if module is None or module in sys.modules:
        yield
        return
    sys.modules[module] = None  # Python's own way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules[module]


def check_imshow(warn: bool = False) -> bool:
    """Whether OpenCV can open a window here.

    Args:
        warn: log why not.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        if warn:  # without this question first, OpenCV's window toolkit ends the whole process
            LOGGER.warning("OpenCV cannot show images here: there is no display (DISPLAY is not set)")
        return False
    try:
        cv2.imshow("check", np.zeros((1, 1, 3), np.uint8))
        cv2.waitKey(1)
        cv2.destroyAllWindows()
    except cv2.error as error:
        if warn:
            LOGGER.warning(f"OpenCV cannot show images here: {str(error).strip().splitlines()[-1]}")
        return False
    return True


def print_args(args: Mapping[str, Any] | None = None, show_file: bool = True, show_func: bool = False) -> None:
    """Log a function's arguments as one line.

    Args:
        args: names and values; those of the calling function when omitted.
        show_file: put the caller's file in front.
        show_func: put the caller's name in front.
    """
    caller = inspect.currentframe().f_back
    if args is None:
        names, _, _, local = inspect.getargvalues(caller)
        args = {name: local[name] for name in names}
    title = f"{Path(caller.f_code.co_filename).stem}: " if show_file else ""
    title += f"{caller.f_code.co_name}: " if show_func else ""
    LOGGER.info(colorstr(title) + ", ".join(f"{name}={value}" for name, value in args.items()))
