"""Where a data set's YAML leads: its folder, its splits, and the lists that name images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.datasets.config import SPLITS, check_dataset, possible_roots
from utils.datasets.images import is_image, list_images
from utils.doctor.findings import Finding
from utils.errors import DatasetError, ProjectError
from utils.paths import check_yaml
from utils.yaml_io import yaml_load

_PLACES = ("the current folder", "the YAML's folder", "the project", "`datasets` beside the project")


@dataclass(frozen=True)
class Location:
    """What a YAML leads to.

    Attributes:
        yaml: the file.
        data: its checked content; None when it cannot be used.
        tried: places where the data set's folder was looked for, in order, each with what it is below.
        findings: why it cannot be used.
    """

    yaml: Path
    data: dict[str, Any] | None = None
    tried: tuple[tuple[Path, str], ...] = ()
    findings: tuple[Finding, ...] = ()


def locate(data: str | Path) -> Location:
    """Find a data set as train.py does; nothing is drawn or downloaded.

    Args:
        data: path or bare name of the YAML.

    Raises:
        ConfigError: when there is no such file.
    """
    yaml = Path(check_yaml(data))
    try:
        content = yaml_load(yaml)
        roots = possible_roots(content.get("path"), yaml.resolve().parent)
        places = _PLACES if len(roots) == len(_PLACES) else ("as written",)
        tried = tuple(zip(roots, places, strict=True))
    except ProjectError as error:
        return Location(yaml, None, (), (_about(yaml, error),))
    try:
        return Location(yaml, check_dataset(yaml, autodownload=False), tried)
    except ProjectError as error:
        return Location(yaml, None, tried, (_about(yaml, error),))


def _about(yaml: Path, error: ProjectError) -> Finding:
    """An error as a finding about the YAML, with its line where it names one."""
    text = str(error).removeprefix(str(yaml))
    line, _, rest = text.removeprefix(":").partition(": ")
    if line.isdigit():
        return Finding("data-yaml", rest, str(yaml), int(line))
    return Finding("data-yaml", text.removeprefix(": "), str(yaml))


@dataclass
class Split:
    """The images of train, val or test.

    Attributes:
        name: of the split.
        entries: folders and lists, as resolved.
        files: the images, each once.
        same_as: an earlier split with the same images, "" where there is none.
        findings: what is wrong with the list of them.
        usable: images that training or measuring would use, filled in while going through them.
        objects: labels that it would use, likewise.
    """

    name: str
    entries: list[str]
    files: list[str] = field(default_factory=list)
    same_as: str = ""
    findings: list[Finding] = field(default_factory=list)
    usable: int = 0
    objects: int = 0


def find_splits(data: Mapping[str, Any]) -> dict[str, Split]:
    """List the images of each split that a checked data set has."""
    splits: dict[str, Split] = {}
    for name in (name for name in SPLITS if data.get(name)):
        entries = data[name] if isinstance(data[name], list) else [data[name]]
        split = splits[name] = Split(name, list(entries))
        lost = [entry for entry in entries if not Path(entry).exists()]
        if lost:
            kind = "test-missing" if name == "test" else "split-missing"
            split.findings += [Finding(kind, "is not there", entry, 0, name) for entry in lost]
            continue
        try:
            listed = list_images(entries)
        except DatasetError as error:
            text = str(error).removeprefix(f"{entries[0]}: ")
            split.findings.append(Finding("split-empty", text, entries[0], 0, name))
            continue
        split.files = list(dict.fromkeys(listed))
        split.findings += _listed_twice(listed, name) if len(split.files) < len(listed) else []
        split.findings += [finding for entry in entries for finding in _odd_lines(Path(entry), name)]
        same = next((other for other in splits.values() if other is not split and other.files == split.files), None)
        if same is not None:
            split.same_as = same.name
            split.findings.append(Finding("split-same", f"`{name}:` has the images of `{same.name}:`", split=name))
    return splits


def _listed_twice(listed: list[str], split: str) -> Iterator[Finding]:
    seen = set()
    for file in listed:
        if file in seen:
            yield Finding("image-listed-twice", "counts once here, but each time in training", file, 0, split)
        seen.add(file)


def _odd_lines(entry: Path, split: str) -> Iterator[Finding]:
    """Lines of a list that training passes over without a word."""
    if entry.suffix.lower() != ".txt" or not entry.is_file():
        return
    lines = entry.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip() and not is_image(line.strip()):
            yield Finding("list-line", f"{line.strip()[:80]!r} has no image's suffix", str(entry), number, split)
