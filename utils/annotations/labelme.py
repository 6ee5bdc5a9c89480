"""LabelMe: a JSON file beside each image, with ``shapes`` of points in pixels.

Read are rectangles, polygons and circles; polygons of one label and ``group_id`` are the parts of one object. Written
are polygons where the outlines and the box agree, else rectangles. Crowd and difficult are ``flags`` of a shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from utils.annotations.checks import class_name, cut_box, finite, inside_name, outline, whole_size
from utils.annotations.image_files import measured
from utils.annotations.json_file import read_json
from utils.annotations.names import unique_names
from utils.annotations.output import Output, with_bar
from utils.annotations.record import (
    SPLIT_WORDS,
    AnnotatedImage,
    AnnotatedSet,
    Annotation,
    Box,
    bounds,
    categories_by_name,
)
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings
from utils.errors import DatasetError
from utils.threads import in_threads

_VERSION = "5.5.0"  # of the LabelMe whose files ours are like
_AGREE = 1.0  # px between a box and its outlines' bounds
_DIGITS = 6


def read(source: Path, settings: ReadSettings, report: Report) -> AnnotatedSet:
    """Read every LabelMe file below a folder; a first folder named train, val or test is the split.

    Raises:
        DatasetError: when there is none, or one is no such file.
    """
    files = sorted(source.rglob("*.json")) if source.is_dir() else []
    if not files:
        raise DatasetError(f"{source}: expected a folder with LabelMe's .json files, found none")
    images = list(filter(None, in_threads(_Reader(source, settings, report), files, "reading annotations")))
    return AnnotatedSet(_first_of_each(images, report), categories_by_name(images))


def _first_of_each(images: Sequence[AnnotatedImage], report: Report) -> list[AnnotatedImage]:
    """Without images that an earlier file annotates too."""
    found: dict[Path, AnnotatedImage] = {}
    for image in images:
        if found.setdefault(image.file, image) is not image:
            report.add("files about an image that another one annotates: left out", str(image.file))
    return list(found.values())


class _Reader:
    """Reads one file after another of a folder.

    Args:
        source: the folder.
        settings: how to read.
        report: gets what is left out.
    """

    def __init__(self, source: Path, settings: ReadSettings, report: Report):
        self.source, self.settings, self.report = source, settings, report

    def __call__(self, file: Path) -> AnnotatedImage | None:
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise DatasetError(f"{file}: expected an object with a list `shapes`, as LabelMe writes")
        try:
            image = self._image_of(file, content.get("imagePath"))
        except ValueError as error:
            self.report.add("images outside the folder: left out", f"{file}: {error}")
            return None
        declared = whole_size(content.get("imageWidth"), content.get("imageHeight"))
        size_wh = measured(image, declared, str(file), self.report, required=self.settings.images_required)
        if size_wh is None:
            return None
        name = PurePosixPath(image.relative_to(self.settings.image_folder or self.source))
        split = SPLIT_WORDS.get(name.parts[0].lower()) if len(name.parts) > 1 else None
        name = name.relative_to(name.parts[0]) if split else name
        return AnnotatedImage(image, str(name), size_wh, self._objects(content["shapes"], file, size_wh), split)

    def _image_of(self, file: Path, written: Any) -> Path:
        """Where ``imagePath`` says; outside the source, which is not looked into, its bare name beside the JSON."""
        if not isinstance(written, str):
            raise ValueError("expected a text as `imagePath`")
        path = PurePosixPath(written.replace("\\", "/"))
        bare = inside_name(path.name)
        if self.settings.image_folder is not None:
            return self.settings.image_folder / bare
        parts: list[str] = []
        for part in (*file.parent.relative_to(self.source).parts, *path.parts):
            if part != "..":
                parts.append(part)
            elif parts:
                parts.pop()
            else:
                return file.with_name(bare)
        return file.with_name(bare) if path.is_absolute() else self.source / inside_name("/".join(parts))

    def _objects(self, shapes: Sequence[Any], file: Path, size_wh: tuple[int, int]) -> tuple[Annotation, ...]:
        found = []
        for where, members in _objects_of(shapes, file):
            try:
                one, cut = _annotation(members, size_wh)
            except ValueError as error:
                self.report.add("shapes that are no objects: left out", f"{where}: {error}")
                continue
            if cut:
                self.report.add("boxes beyond the edge of their image: cut", where)
            found.append(one)
        return tuple(found)


def _objects_of(shapes: Sequence[Any], file: Path) -> Iterator[tuple[str, list[Any]]]:
    """Shapes that make one object together: polygons with one label and one ``group_id``, or a single one."""
    objects: dict[tuple, tuple[str, list[Any]]] = {}
    for number, shape in enumerate(shapes, 1):
        key: tuple = (number,)
        if isinstance(shape, dict) and shape.get("shape_type") == "polygon":
            group, label = shape.get("group_id"), shape.get("label")
            if isinstance(group, (int, str)) and isinstance(label, str):
                key = (label, group)
        objects.setdefault(key, (f"{file}: shape {number}", []))[1].append(shape)
    yield from objects.values()


def _annotation(shapes: Sequence[Any], size_wh: tuple[int, int]) -> tuple[Annotation, bool]:
    first = shapes[0]
    if not isinstance(first, dict):
        raise ValueError(f"expected an object, found a {type(first).__name__}")
    name = class_name(first.get("label"))
    kind, outlines = first.get("shape_type", "polygon"), ()
    if kind == "polygon":
        outlines = tuple(outline(shape.get("points")) for shape in shapes)
        box = bounds(outlines)
    elif kind in ("rectangle", "circle"):
        box = _box_of_points(first.get("points"), kind)
    else:
        raise ValueError(f"a {str(kind)[:60]!r} has no box")
    inside, cut = cut_box(box, size_wh)
    flags = first["flags"] if isinstance(first.get("flags"), dict) else {}
    one = Annotation(name, inside, flags.get("crowd") is True, flags.get("difficult") is True, outlines=outlines)
    return one, cut


def _box_of_points(points: Any, kind: str) -> Box:
    if not isinstance(points, list) or len(points) < 2 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise ValueError(f"a {kind} needs two points of two numbers")
    pairs = np.array([[finite(value, "a coordinate") for value in point] for point in points])
    if kind == "rectangle":
        return bounds([pairs])
    (x, y), (edge_x, edge_y) = pairs[:2].tolist()
    radius = math.hypot(edge_x - x, edge_y - y)
    return x - radius, y - radius, x + radius, y + radius


def write(content: AnnotatedSet, output: Output, settings: WriteSettings, report: Report) -> None:
    """Write ``<split>/<image>`` and a JSON file beside each."""
    for split in content.splits:
        images = content.of_split(split)
        names = unique_names(images, report)
        for image, name in with_bar(list(zip(images, names, strict=True)), "annotations"):
            path = PurePosixPath(name)
            text = json.dumps(_document(image, path.name, report), ensure_ascii=False, indent=1)
            output.put_text(f"{split}/{path.with_suffix('.json')}", text + "\n")
        output.put_images([(f"{split}/{name}", image.file) for image, name in zip(images, names, strict=True)])


def _document(image: AnnotatedImage, name: str, report: Report) -> Mapping[str, Any]:
    shapes = [shape for number, one in enumerate(image.annotations, 1) for shape in _shapes(one, number, image, report)]
    width, height = image.size_wh
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shapes(one: Annotation, number: int, image: AnnotatedImage, report: Report) -> Iterator[Mapping[str, Any]]:
    """One polygon for each outline, or a rectangle."""
    left, top, right, bottom = one.box_xyxy
    kind, parts = "rectangle", [np.array([[left, top], [right, bottom]])]
    if one.outlines:
        if np.abs(np.subtract(cut_to(bounds(one.outlines), image.size_wh), one.box_xyxy)).max() <= _AGREE:
            kind, parts = "polygon", list(one.outlines)
        else:
            report.add("outlines that do not fit their box: the box alone is written", f"{image.file}: object {number}")
    if one.mask is not None:
        report.add("run-length masks: their boxes alone are written", f"{image.file}: object {number}")
    flags = {"crowd": one.crowd, "difficult": one.difficult}
    for points in parts:
        yield {
            "label": one.category,
            "points": [[round(value, _DIGITS) for value in point] for point in points.tolist()],
            "group_id": number if len(parts) > 1 else None,
            "description": "",
            "shape_type": kind,
            "flags": {flag: True for flag, is_set in flags.items() if is_set},
        }


def cut_to(box_xyxy: Box, size_wh: tuple[int, int]) -> Box:
    """A box as far as it lies in the image, px; empty where it does not."""
    return tuple(min(max(value, 0.0), size_wh[axis % 2]) for axis, value in enumerate(box_xyxy))
