"""A corrected copy of a data set in a new folder; the original is only read.

Corrected is what has one right answer: coordinates that overshoot by up to 0.01 and boxes beyond the border are cut at
it, commas and semicolons between numbers become blanks, other encodings become UTF-8, repeated lines and boxes without
area go, labels of a wrong name or place come along, images that cannot be used stay behind, and so does a picture that
another split measures with. What only a person can decide is copied as it is, for the doctor to find again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.annotations.json_file import is_json
from utils.datasets.config import SPLITS
from utils.datasets.images import img2label_paths
from utils.datasets.labels import LabelLineError, format_label, parse_line, split_lines
from utils.doctor.diagnosis import Diagnosis
from utils.doctor.labels import BORDER, overhang
from utils.doctor.paths import Split
from utils.errors import DatasetError
from utils.yaml_io import yaml_save

CHANGES_FILE = "changes.txt"
_OVERSHOOT = 0.01  # share of the image; more is another mistake than rounding
_SEPARATORS = str.maketrans(",;", "  ")
_LEFT_BEHIND = ("download", "drawn_by")  # entries about where the original came from


def require_new(folder: Path) -> None:
    """Refuse a folder for the copy that has something in it.

    Raises:
        DatasetError: naming it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"--fix {folder}: is there already and not an empty folder; choose another or remove it")


def write_corrected(found: Diagnosis, folder: Path, link: bool = False, quiet: bool = False) -> int:
    """Write ``images/<split>``, ``labels/<split>``, ``data.yaml`` and ``changes.txt``.

    Args:
        found: what the doctor found in the original.
        folder: new or empty.
        link: link to the images instead of copying them; labels are always copies.
        quiet: show no progress bar.

    Returns:
        How many changes there are; ``changes.txt`` has a line for each.

    Raises:
        DatasetError: when the folder has something in it or lies among the images, or a split has no usable image.
    """
    require_new(folder)
    root = folder.resolve()
    _require_outside(root, found)
    _require_images(root, found)
    root.mkdir(parents=True, exist_ok=True)
    place, changed = _link if link else shutil.copyfile, 0
    with (root / CHANGES_FILE).open("w", encoding="utf-8", errors="surrogateescape") as log:
        for split in found.splits.values():
            if split.files and not split.same_as:
                for change in _write_split(found, split, root, place, quiet):
                    log.write(f"{change}\n")
                    changed += 1
    entries = {split.name: f"images/{split.same_as or split.name}" for split in found.splits.values() if split.files}
    kept = {key: value for key, value in found.location.data.items() if key not in (*_LEFT_BEHIND, *SPLITS)}
    yaml_save(root / "data.yaml", {**kept, "path": str(root), **entries})  # last: what is interrupted has none
    return changed


def _require_outside(root: Path, found: Diagnosis) -> None:
    """Refuse a copy among the original's images, of which it would be a part from then on."""
    for entry in (Path(entry).resolve() for split in found.splits.values() for entry in split.entries):
        if root.is_relative_to(entry):
            raise DatasetError(f"--fix {root}: is within {entry}, the images to copy; choose a folder outside")


def _require_images(root: Path, found: Diagnosis) -> None:
    """Refuse a copy that could not be trained on, or whose labels are in no label files."""
    for entry in (entry for split in found.splits.values() for entry in split.entries):
        if is_json(entry):
            raise DatasetError(
                f"--fix {root}: {entry} holds the labels; python -m tools.convert coco makes label files"
            )
    for name in ("train", "val"):
        split = found.splits.get(name)
        if split is None or not (split.same_as or split.usable):
            raise DatasetError(f"--fix {root}: {name} has no image that could be copied; put that right first")


def _link(source: str, target: Path) -> None:
    target.symlink_to(Path(source).resolve())


def _write_split(
    found: Diagnosis, split: Split, root: Path, place: Callable[[str, Path], object], quiet: bool
) -> Iterator[str]:
    """Copy the images and labels of a split; yields what was changed."""
    names, taken = _names_within(split.files), set()
    spared = {file for file in split.files if (split.name, file) in found.copies.to_drop}
    if len(spared) == split.usable:
        spared = set()  # an empty split helps nobody: which of the two is right only a person knows
    steps = zip(split.files, names, img2label_paths(split.files), strict=True)
    for image, name, label in tqdm(steps, f"{split.name}: writing", len(names), leave=False, disable=quiet or None):
        if image in found.unusable or image in spared:
            yield f"{image}: left out of {split.name}"
            continue
        target = root / "images" / split.name / _free_name(Path(name), taken)
        target.parent.mkdir(parents=True, exist_ok=True)
        place(image, target)
        source = found.pairs.found_elsewhere.get(image, label)
        if source != label:
            yield f"{source}: taken for the labels of {image}"
        yield from _write_labels(Path(source), Path(img2label_paths([target])[0]))


def _names_within(files: Sequence[str]) -> list[str]:
    """Paths relative to the folder that has all of them."""
    whole = [os.path.abspath(file) for file in files]  # noqa: PTH100 - keeps the names of links
    common = os.path.commonpath([str(Path(file).parent) for file in whole])
    return [os.path.relpath(file, common) for file in whole]


def _free_name(relative: Path, taken: set[str]) -> Path:
    """A path within the split whose label file no other image has: ``a.png`` beside ``a.jpg`` becomes ``a-2.png``."""
    free, number = relative, 2
    while str(free.with_suffix("")).lower() in taken:
        free, number = relative.with_stem(f"{relative.stem}-{number}"), number + 1
    taken.add(str(free.with_suffix("")).lower())
    return free


def _write_labels(source: Path, target: Path) -> Iterator[str]:
    """Write a label file's corrected content; nothing where there is none."""
    if not source.is_file():
        if source.exists():
            yield f"{source}: left out: no file that can be read"
        return
    text, recoded = _decode(source.read_bytes())
    if recoded:
        yield f"{source}: {recoded} became UTF-8"
    lines = []
    for number, line, change in correct_lines(text):
        if change:
            yield f"{source}:{number}: {change}"
        if line is not None:
            lines.append(f"{line}\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes("".join(lines).encode(errors="surrogateescape"))


def _decode(content: bytes) -> tuple[str, str]:
    """Text, and the name of its encoding where that is not UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), "UTF-16"
    return content.decode("utf-8-sig", errors="surrogateescape"), ""


def correct_lines(text: str) -> Iterator[tuple[int, str | None, str]]:
    """Correct the lines of a label file.

    Args:
        text: its content.

    Yields:
        Line number from 1; the line, None where it goes; and what was changed, "" where nothing was. Blank lines go
        without a word, and lines that are right or that only a person can put right stay as they are.
    """
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        corrected, change = _correct(line.strip())
        if corrected is None:
            yield number, None, change
            continue
        try:
            label, _ = parse_line(corrected.split())
        except LabelLineError:
            yield number, line.strip(), ""
            continue
        if label in seen:
            yield number, None, f"{line.strip()!r} was there before and went"
            continue
        seen.add(label)
        yield number, corrected, change


def _correct(line: str) -> tuple[str | None, str]:
    """A line put right, None where it goes, and what was changed."""
    words = _separated(line)
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        return line, ""
    coordinates, is_box = numbers[1:], len(words) == 5
    has_form = is_box or (len(words) >= 7 and len(words) % 2 == 1)
    if not has_form or not ((coordinates >= -_OVERSHOOT) & (coordinates <= 1 + _OVERSHOOT)).all():  # NaN is neither
        return line, ""
    inside = _cut_box(coordinates) if is_box else coordinates.clip(0, 1)
    if _has_no_area(inside):
        return None, f"{line!r} has no area inside the image and went"
    if (inside != coordinates).any() and numbers[0].is_integer():
        words = format_label(int(numbers[0]), inside.tolist()).split()
    if words == line.split():
        return line, ""
    return " ".join(words), f"{line!r} became {' '.join(words)!r}"


def _separated(line: str) -> list[str]:
    """The words of a line, also where commas or semicolons part them; a comma within a number parts nothing."""
    words = line.split()
    parted = (len(words) == 1 and "." in line) or all(word.endswith((",", ";")) for word in words[:-1])
    return line.translate(_SEPARATORS).split() if parted else words


def _cut_box(box: np.ndarray) -> np.ndarray:
    """The part of a box x y w h that is inside the image; one that overhangs by rounding only stays as it is."""
    as_kept = box[None].astype(np.float32)
    if overhang(as_kept)[0] <= BORDER and (box >= 0).all() and (box <= 1).all():
        return box
    low, high = (box[:2] - box[2:] / 2).clip(0, 1), (box[:2] + box[2:] / 2).clip(0, 1)
    return np.concatenate([(low + high) / 2, high - low])


def _has_no_area(coordinates: np.ndarray) -> bool:
    coordinates = coordinates.astype(np.float32)  # as labels are kept
    if len(coordinates) == 4:
        return bool((coordinates[2:] <= 0).any())
    points = coordinates.reshape(-1, 2)
    return bool((np.ptp(points, axis=0) <= 0).any())
