"""The dataset YAML: where its images are, and what its classes are called.

``path`` is the data set's folder. A relative one is looked for below the current folder, below the YAML's own folder,
below the project, and below a ``datasets`` folder beside the project, in this order. ``train``, ``val`` and ``test``
are below it: folders, lists of images, or COCO's JSON. Nothing is downloaded unless :func:`fetch_dataset` is called,
which ``--download`` does; ``drawn_by: shapes`` marks the one set that the project draws itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.datasets.download import fetch_archive, read_download
from utils.datasets.shapes import draw_shapes
from utils.errors import DatasetError, first_line
from utils.log import LOGGER
from utils.paths import PROJECT_ROOT, check_yaml, home_of_data
from utils.yaml_io import yaml_load

SPLITS = ("train", "val", "test")
_DRAWN: dict[str, Callable[[Path], None]] = {"shapes": draw_shapes}


def check_dataset(data: str | Path | Mapping[str, Any], autodownload: bool = True) -> dict[str, Any]:
    """Read a dataset YAML, find its files and check its names.

    Args:
        data: path or bare name of the YAML, or its content.
        autodownload: draw the embedded set when it is not there yet. Nothing is ever downloaded.

    Returns:
        A new mapping with ``path`` (a Path), ``train``, ``val``, ``test`` (text or list of texts, absolute; ``test``
        None when the file names none), ``names`` (index to name) and ``nc``; other entries as they are.

    Raises:
        DatasetError: when an entry is missing or contradicts another, or the validation images are not there.
    """
    content, origin, folder = _read(data)
    for key in ("train", "val", "names"):
        if content.get(key) is None:
            raise DatasetError(f"{origin}: entry `{key}:` is missing")
        if content[key] == []:
            raise DatasetError(f"{origin}: entry `{key}:` is an empty list")
    names = _read_names(content["names"], content.get("nc"), origin)
    splits = {split: _as_entries(content.get(split), split, origin) for split in SPLITS}
    with _usable_paths(origin):
        roots = possible_roots(content.get("path"), folder)
        root = _find_root(roots, splits)
    if "drawn_by" in content and (root or autodownload):
        root = _draw(content["drawn_by"], root, content.get("path"), origin)
    hint = f"; --download fetches its `download:` entry: {content['download']}" if content.get("download") else ""
    if root is None:
        looked = ", ".join(dict.fromkeys(map(str, roots)))
        raise DatasetError(
            f"{origin}: neither validation nor training images found below {looked}; "
            f"nothing is downloaded: put them there, or correct `path:`{hint}"
        )
    with _usable_paths(origin):
        resolved = {split: _resolve(root, entries) for split, entries in splits.items()}
        lost = [path for path in resolved["val"] if not Path(path).exists()]
    if lost:
        raise DatasetError(f"{origin}: validation images not found at {', '.join(lost)}; nothing is downloaded{hint}")
    texts = {split: _as_given(content.get(split), paths) for split, paths in resolved.items()}
    return {**content, "path": root, **texts, "names": names, "nc": len(names)}


def fetch_dataset(data: str | Path | Mapping[str, Any]) -> None:
    """Fetch and unpack the archive that a dataset YAML names, where its images are not there yet.

    Raises:
        DatasetError: when the YAML names none, or one that is not safe to fetch, or has it unpacked anywhere but below
            the current folder or, as YOLOv5's own YAMLs do, the folder ``datasets`` beside the project.
        OSError: when the disk is full or the folder cannot be made.
    """
    content, origin, folder = _read(data)
    splits = {split: _as_entries(content.get(split), split, origin) for split in SPLITS}
    with _usable_paths(origin):
        if not splits["val"] or _find_root(possible_roots(content.get("path"), folder), splits) is not None:
            return
    if "drawn_by" in content:
        return
    if not content.get("download"):
        raise DatasetError(f"{origin}: its images are not there, and --download finds no `download:` entry in it")
    download = read_download(content["download"], origin)
    fetch_archive(download, _new_home(content.get("path"), origin), lambda top: _find_root([top], splits) is not None)


def _new_home(path: Any, origin: str) -> Path:
    """Where a fetched data set goes: a YAML from anywhere must not have files written anywhere."""
    relative, base = Path(str(path or "")), Path.cwd()
    if relative.parts[:2] == ("..", "datasets"):
        relative, base = Path(*relative.parts[1:]), home_of_data().parent
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or str(relative).startswith("~"):
        raise DatasetError(
            f"{origin}: `path: {path}`: --download unpacks only below the current folder, or into ../datasets: name a "
            "relative folder without `..`"
        )
    return base / relative


def dataset_names(data: str | Path | Mapping[str, Any]) -> dict[int, str]:
    """Class names of a dataset YAML, whose images need not be there.

    Raises:
        DatasetError: when the names are missing or contradict `nc`.
    """
    content, origin, _ = _read(data)
    if content.get("names") is None:
        raise DatasetError(f"{origin}: entry `names:` is missing")
    return _read_names(content["names"], content.get("nc"), origin)


def _read(data: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str, Path | None]:
    """Content, a name for messages, and the folder of the file."""
    if isinstance(data, Mapping):
        return dict(data), "data set", None
    file = Path(check_yaml(data))
    return yaml_load(file), str(file), file.resolve().parent


def _read_names(names: Any, nc: Any, origin: str) -> dict[int, str]:
    listed = list(names.values()) if isinstance(names, Mapping) else names
    nested = [name for name in listed if isinstance(name, (list, dict))] if isinstance(listed, (list, tuple)) else []
    if nested:
        raise DatasetError(f"{origin}: `names:` holds {nested[0]!r}, which is no name")
    if isinstance(names, (list, tuple)):
        table = dict(enumerate(map(str, names)))
    elif isinstance(names, Mapping):
        try:
            table = {int(key): str(name) for key, name in names.items()}
        except (TypeError, ValueError):
            raise DatasetError(f"{origin}: the keys of `names:` must be whole numbers, found {list(names)}") from None
        if sorted(table) != list(range(len(names))):
            raise DatasetError(f"{origin}: the keys of `names:` must be 0 to {len(names) - 1}, found {list(names)}")
        table = dict(sorted(table.items()))
    else:
        raise DatasetError(f"{origin}: `names:` must be a list or a mapping of numbers, found {names!r}")
    if not table:
        raise DatasetError(f"{origin}: `names:` is empty")
    if nc is not None and nc != len(table):
        raise DatasetError(f"{origin}: `nc: {nc!r}` contradicts the {len(table)} names")
    return table


def _as_entries(value: Any, split: str, origin: str) -> list[str]:
    entries = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    if not all(isinstance(entry, (str, Path)) and str(entry) for entry in entries):
        kinds = "a folder, a .txt list, COCO's .json, or a list of these"
        raise DatasetError(f"{origin}: `{split}:` must be {kinds}, found {value!r}")
    return [str(entry) for entry in entries]


def _as_given(value: Any, paths: list[str]) -> str | list[str] | None:
    """A list where the file has a list, a text where it has a text."""
    if value is None:
        return None
    return paths if isinstance(value, (list, tuple)) else paths[0]


def possible_roots(path: Any, yaml_folder: Path | None) -> list[Path]:
    """Where a data set's folder may be, best first.

    Args:
        path: the entry ``path`` of its YAML.
        yaml_folder: where the YAML is; None where there is no file.
    """
    relative = Path(str(path)).expanduser() if path else Path()
    if relative.is_absolute():
        return [relative]
    bases = [Path.cwd(), yaml_folder, PROJECT_ROOT, PROJECT_ROOT.parent / "datasets"]
    return [(base / relative).resolve() for base in bases if base is not None]


def _find_root(roots: Iterable[Path], splits: Mapping[str, list[str]]) -> Path | None:
    """The first root with validation images, else the first with training images, else none."""
    roots = list(roots)
    for split in ("val", "train"):
        for root in roots:
            if all(Path(path).exists() for path in _resolve(root, splits[split])):
                return root
    return None


def _resolve(root: Path, entries: Iterable[str]) -> list[str]:
    paths = []
    for entry in entries:
        path = (root / entry).resolve()
        if not path.exists() and entry.startswith("../"):  # Roboflow's files point one folder too high
            inside = (root / entry.removeprefix("../")).resolve()
            path = inside if inside.exists() else path
        paths.append(str(path))
    return paths


@contextmanager
def _usable_paths(origin: str) -> Iterator[None]:
    """Name the YAML where one of its texts is too long for a path, of an unknown user, or behind a closed folder."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{origin}: `path:` or a split cannot be looked for ({first_line(error)})") from error


def _draw(painter: Any, found: Path | None, path: Any, origin: str) -> Path:
    """Draw the embedded set, or see that what is there is the whole of it.

    A YAML from anywhere must not have files written anywhere: only a relative ``path`` without ``..`` is drawn into.
    """
    if not isinstance(painter, str) or painter not in _DRAWN:
        raise DatasetError(f"{origin}: `drawn_by: {painter}` is unknown; known: {', '.join(_DRAWN)}")
    relative = Path(str(path))
    if not path or relative.is_absolute() or ".." in relative.parts or str(path).startswith("~"):
        if found is None:
            raise DatasetError(f"{origin}: the set is drawn only where `path:` is relative and without `..`")
        return found
    root = found or (home_of_data() / relative).resolve()
    if not root.exists():
        LOGGER.info(f"{origin}: drawing the data set into {root} (once)")
    _DRAWN[painter](root)
    return root
