"""COCO's JSON of instances, checked entry by entry: images, categories, and the annotations of each image.

What contradicts the form as a whole is an error. Single entries that cannot be meant (ids that lead nowhere, boxes
without a finite number, file names that lead out of the folder) are left out and reported with their id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.annotations.checks import (
    class_name,
    cut_box,
    finite,
    inside_name,
    is_plain,
    outline,
    run_lengths,
    whole_size,
)
from utils.annotations.json_file import read_json
from utils.annotations.record import SPLIT_WORDS, Annotation, Box, Category, bounds
from utils.annotations.report import Report
from utils.errors import DatasetError

_PARTS = ("images", "annotations", "categories")
_LARGEST_AREA = 1e14  # px²
_PROBED = 20  # images by which the folder of images is recognised


@dataclass(frozen=True)
class CocoImage:
    """One image entry and its annotations as they are written.

    Attributes:
        image_id: its number, or text.
        name: ``file_name``, checked.
        declared_wh: width and height, px; None where the entry has none.
        entries: (where, annotation) pairs.
    """

    image_id: int | str
    name: str
    declared_wh: tuple[int, int] | None
    entries: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class CocoFile:
    """A JSON file of instances.

    Attributes:
        file: where it is.
        images: in its order.
        categories: in the order of their numbers.
        names: name of each category number.
    """

    file: Path
    images: Sequence[CocoImage]
    categories: Sequence[Category]
    names: Mapping[int, str]


def read_coco_file(file: Path, report: Report) -> CocoFile:
    """Read a JSON file of instances.

    Raises:
        DatasetError: naming the file, when it cannot be read or is no such file.
    """
    content = read_json(file)
    if isinstance(content, list):
        raise DatasetError(f"{file}: is a list, as COCO's results are; expected the annotations, with {_PARTS}")
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected an object with {_PARTS}, found a {type(content).__name__}")
    for part in _PARTS:
        if not isinstance(content.get(part), list):
            found = f"a {type(content[part]).__name__}" if part in content else "none"
            raise DatasetError(f"{file}: expected a list `{part}`, found {found}")
    categories = _read_categories(content["categories"], file, report)
    names = {number: category.name for number, category in categories.items()}
    images = _read_images(content["images"], file, report)
    _hand_out(content["annotations"], images, names, file, report)
    first_of_name = {category.name: category for _, category in sorted(categories.items(), reverse=True)}
    unique = sorted(first_of_name.values(), key=lambda category: category.category_id)
    return CocoFile(file, list(images.values()), unique, names)


def _read_categories(entries: Sequence[Any], file: Path, report: Report) -> dict[int, Category]:
    found: dict[int, Category] = {}
    names: set[str] = set()
    for place, entry in enumerate(entries, 1):
        where = f"{file}: category {place} of the list"
        try:
            number = _whole_id(_entry(entry).get("id"), "id")
            group = entry.get("supercategory")
            group = group if isinstance(group, str) and is_plain(group) else ""
            category = Category(class_name(entry.get("name")), number, group)
        except ValueError as error:
            raise DatasetError(f"{where}: {error}") from None
        if number in found:
            raise DatasetError(f"{where}: id {number} is also that of {found[number].name!r}")
        if category.name in names:
            report.add("categories that share their name with another: taken as one", f"{where}: {category.name}")
        names.add(category.name)
        found[number] = category
    return found


def _read_images(entries: Sequence[Any], file: Path, report: Report) -> dict[int | str, CocoImage]:
    found: dict[int | str, CocoImage] = {}
    seen: set[str] = set()
    for place, entry in enumerate(entries, 1):
        where = f"{file}: image {place} of the list"
        try:
            number = _image_id(_entry(entry).get("id"))
            where = f"{file}: image id {number}"
            name = inside_name(entry.get("file_name"))
            if number in found:
                raise ValueError("an earlier image has the same id")
            if name in seen:
                raise ValueError(f"an earlier image has the same file name {name!r}")
        except ValueError as error:
            report.add("image entries that cannot be meant: left out with their annotations", f"{where}: {error}")
            continue
        seen.add(name)
        found[number] = CocoImage(number, name, whole_size(entry.get("width"), entry.get("height")))
    return found


def _hand_out(
    entries: Sequence[Any], images: Mapping[int | str, CocoImage], names: Mapping[int, str], file: Path, report: Report
) -> None:
    """Give each annotation to its image."""
    for place, entry in enumerate(entries, 1):
        where = f"{file}: annotation {place} of the list"
        try:
            if isinstance(_entry(entry).get("id"), int):
                where = f"{file}: annotation id {entry['id']}"
            image = images.get(_image_id(entry.get("image_id")))
            category = _whole_id(entry.get("category_id"), "category_id")
            if image is None:
                raise ValueError(f"no image with id {entry['image_id']!r}")
            if category not in names:
                raise ValueError(f"no category with id {category}")
        except ValueError as error:
            report.add("annotations without image or category: left out", f"{where}: {error}")
            continue
        image.entries.append((where, entry))


def annotations_of(
    image: CocoImage, names: Mapping[int, str], size_wh: tuple[int, int], report: Report
) -> tuple[Annotation, ...]:
    """The annotations of an image that can be meant.

    Args:
        image: of a :class:`CocoFile`.
        names: name of each category number.
        size_wh: of the image's file, px.
        report: gets the others.
    """
    found = []
    for where, entry in image.entries:
        try:
            found.append(_annotation(entry, names, size_wh, where, report))
        except ValueError as error:
            report.add("objects whose box cannot be meant: left out", f"{where}: {error}")
    return tuple(found)


def _annotation(
    entry: Mapping[str, Any], names: Mapping[int, str], size_wh: tuple[int, int], where: str, report: Report
) -> Annotation:
    outlines, mask = _segmentation(entry.get("segmentation"), where, report)
    whole = _box(entry.get("bbox"), outlines)
    box, cut = cut_box(whole, size_wh)
    if cut:
        report.add("boxes beyond the edge of their image: cut", where)
    area = entry.get("area")
    plain = not outlines and mask is None
    return Annotation(
        category=names[int(entry["category_id"])],
        box_xyxy=box,
        crowd=entry.get("iscrowd") in (1, True),
        difficult=entry.get("difficult") in (1, True),
        area=None if area is None or (cut and plain) else _area(area, where, report),
        outlines=outlines,
        mask=mask,
    )


def _box(values: Any, outlines: Sequence[np.ndarray]) -> Box:
    """Corners of COCO's left, top, width, height; those of the outlines where there is no box."""
    if not values and outlines:
        return bounds(outlines)
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError("expected `bbox` with four numbers: left, top, width, height")
    left, top, width, height = (finite(value, "a number of `bbox`") for value in values)
    if width < 0 or height < 0:
        raise ValueError(f"bbox is {width:g} x {height:g} px: negative")
    return left, top, left + width, top + height


def _area(value: Any, where: str, report: Report) -> float | None:
    """The area written; None where it cannot be meant (it may well be beyond any coordinate)."""
    if not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= _LARGEST_AREA:
        return float(value)
    report.add("areas that cannot be meant: taken from outline or box", where)
    return None


def _segmentation(value: Any, where: str, report: Report) -> tuple[tuple[np.ndarray, ...], Mapping[str, Any] | None]:
    """Outlines, or a run-length mask; one that cannot be meant is reported, and the box stays."""
    parts = value if isinstance(value, list) else []
    try:
        if isinstance(value, dict):
            return (), run_lengths(value)
        return tuple(map(outline, parts)), None
    except ValueError as error:
        report.add("outlines that cannot be meant: the box alone is kept", f"{where}: {error}")
        return (), None


def split_of(file: Path) -> str | None:
    """The split that a JSON file is about: a word of its name, or else the name of its folder."""
    words = re.findall(r"[a-z]+", file.stem.lower())
    words.append(file.resolve().parent.name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def image_folder_of(file: Path, names: Sequence[str]) -> Path | None:
    """The folder below which the images of a JSON file are: the first of these that has one of its first images.

    The file's own folder, ``images`` in it, and from the data set's folder (above ``annotations``, where the file is in
    such a folder): ``images/<key>``, ``images/<split>``, ``<key>``, ``<split>``, ``images``, and that folder itself.
    ``<key>`` is what follows the first ``_`` of the file's name: ``val2017`` of ``instances_val2017.json``.

    Args:
        file: the JSON.
        names: file names of its images.

    Returns:
        None when none of the first images is anywhere there.
    """
    beside = file.parent
    base = beside.parent if beside.resolve().name == "annotations" else beside
    keys = [file.stem.partition("_")[2], split_of(file)]
    folders = [beside, beside / "images"]
    folders += [base / above / key for above in ("images", "") for key in keys if key]
    folders += [base / "images", base]
    for name in names[:_PROBED]:
        for folder in folders:
            if (folder / name).is_file():
                return folder
    return None


def image_paths_of(content: CocoFile) -> list[str]:
    """Where the images of a JSON file are, in its order; single ones need not be there.

    Raises:
        DatasetError: when none of the first ones is anywhere that :func:`image_folder_of` looks.
    """
    names = [image.name for image in content.images]
    folder = image_folder_of(content.file, names)
    if folder is None and names:
        raise DatasetError(
            f"{content.file}: its images, such as {names[0]}, were not found: expected beside it, in images/, or for a "
            "file in annotations/ in the images/ folder above"
        )
    return [str(folder / name) for name in names] if folder else []


def _entry(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found a {type(value).__name__}")
    return value


def _whole_id(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 2**53:
        raise ValueError(f"{what} must be a whole number, found {str(value)[:60]!r}")
    if int(value) != value:
        raise ValueError(f"{what} must be a whole number, found {value!r}")
    return int(value)


def _image_id(value: Any) -> int | str:
    return value if isinstance(value, str) and value and is_plain(value) else _whole_id(value, "image id")
