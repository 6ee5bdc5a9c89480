"""Where files are: the project's own folder, run folders, and the search rules for names given on the command line."""

from __future__ import annotations

import re
import stat
import time
from pathlib import Path

from utils.errors import CheckpointError, ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent  # of the clone; the folder of the package when installed
_NUMBERED_RUNS = 9999  # more runs than this in one folder is a loop gone wild, not a user
_SPECIAL_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_CLOCKS_DIFFER = 120.0  # seconds between this machine and a file server
_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


def home_of_data() -> Path:
    """Where the project puts a data set that it draws itself: its own folder, or the current one when installed."""
    return PROJECT_ROOT if (PROJECT_ROOT / "pyproject.toml").is_file() else Path.cwd()


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """Return the path itself when it is free, else the first free of ``path2``, ``path3``, ...

    Args:
        path: a folder, or a file, whose number then goes before the suffix.
        exist_ok: take the path as it is even when something is there.
        sep: text between name and number.
        mkdir: also create it as a folder.

    Raises:
        ConfigError: when no number up to 9999 is free, or the folder cannot be made.
    """
    target = Path(path)
    if target.exists() and not exist_ok:
        stem, suffix = (target.with_suffix(""), target.suffix) if target.is_file() else (target, "")
        candidates = (Path(f"{stem}{sep}{number}{suffix}") for number in range(2, _NUMBERED_RUNS))
        target = next((candidate for candidate in candidates if not candidate.exists()), None)
        if target is None:
            raise ConfigError(f"{path}: every name up to {_NUMBERED_RUNS} is taken; clean up or choose another --name")
    return make_folder(target) if mkdir else target


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are not there yet; returns the path.

    Raises:
        ConfigError: when that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"this folder cannot be made ({error.strerror or error})"
        raise ConfigError(f"{path}: {reason}; choose another --project or --name") from error
    return path


def safe_name(name: str) -> str:
    """A class name as the name of one folder, whatever characters it has."""
    cleaned = _UNSAFE.sub("_", name).strip().rstrip(".")
    return cleaned or "_"


def check_suffix(file: str | Path | list, suffix: str | tuple[str, ...] = (".pt",), msg: str = "") -> None:
    """Refuse a file, or a list of files, whose suffix is not among those given (a missing suffix passes)."""
    wanted = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    for name in file if isinstance(file, (list, tuple)) else [file]:
        found = Path(str(name)).suffix.lower()
        if found and wanted and found not in wanted:
            raise ConfigError(f"{msg}{name}: expected a file ending in {' or '.join(wanted)}")


def check_file(file: str | Path, suffix: str | tuple[str, ...] = "") -> str:
    """Find a file by the name given on the command line.

    Looked up as given, then beside the project, then at every depth of ``data/`` and ``models/``, where exactly one
    file must have that name. An empty name passes through.

    Raises:
        ConfigError: when nothing, or more than one file, has that name.
    """
    name = str(file)
    if name == "":
        return name
    if suffix:
        check_suffix(name, suffix)
    for candidate in (Path(name), PROJECT_ROOT / name):
        if candidate.is_file():
            return str(candidate)
    found = _search_project(name)
    if not found:
        raise ConfigError(
            f"{name}: no such file; looked in {Path.cwd()}, in {PROJECT_ROOT}, and below its data/ and models/"
        )
    if len(found) > 1:
        listing = ", ".join(str(path) for path in found)
        raise ConfigError(f"{name}: several files have this name ({listing}); give the path")
    return str(found[0])


def _search_project(name: str) -> list[Path]:
    """All files of that name below data/ and models/; only plain relative names are searched for."""
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.name:
        return []
    folders = (PROJECT_ROOT / "data", PROJECT_ROOT / "models")
    return sorted({path for folder in folders for path in folder.rglob(relative.name) if path.match(name)})


def check_yaml(file: str | Path, suffix: tuple[str, ...] = (".yaml", ".yml")) -> str:
    """Find a YAML file by name; see :func:`check_file`."""
    return check_file(file, suffix)


def find_weights(name: str | Path) -> Path:
    """Find a weights file: as given, beside the project, or in its ``weights/`` folder. Nothing is downloaded.

    Raises:
        ConfigError: when it is in none of these places, or the name is empty.
    """
    if not str(name):
        raise ConfigError("--weights '': expected the path of a weights file")
    path = Path(name)
    places = [path] if path.is_absolute() else [path, PROJECT_ROOT / path, PROJECT_ROOT / "weights" / path]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        raise ConfigError(
            f"{name}: no such weights file (looked at {looked}); nothing is downloaded: "
            "give the path of a file you have; train.py also starts from scratch, with --weights '' and --cfg"
        )
    return found


def special_kind(path: str | Path) -> str:
    """What a path is whose reading may never end: ``a named pipe``, ``a socket`` or ``a device``; else ''.

    Files, folders and paths where nothing is are no such thing.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return ""
    return next((name for is_kind, name in _SPECIAL_KINDS if is_kind(mode)), "")


def get_latest_run(search_dir: str | Path = ".") -> str:
    """Path of the most recently written ``last*.pt`` anywhere below a folder, or "" when there is none.

    Raises:
        CheckpointError: when there are several, and one was written later than now: the clock has been set back, and
            which is the newest cannot be told.
    """
    times = {path: path.stat().st_mtime for path in Path(search_dir).rglob("last*.pt") if path.is_file()}
    newest = max(times, key=times.__getitem__, default="")
    if len(times) > 1 and times[newest] > time.time() + _CLOCKS_DIFFER:
        raise CheckpointError(
            f"{newest}: was written later than now, so the clock has been set back, and which of {len(times)} runs is "
            "the newest cannot be told; give the path of one"
        )
    return str(newest)
