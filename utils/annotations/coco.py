"""COCO: ``annotations/instances_<split>.json`` and ``images/<split>/``, as pycocotools reads them.

Numbers of images and categories are kept where the source has them; where it has none, categories count from 1 and an
image takes the number that its name is, as COCO's do, else one of its own. Annotations count from 1 in each file
(pycocotools takes 0 for "no match"). ``area`` is that of the mask where it is known, ``iscrowd`` marks ignored regions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils.annotations.coco_file import (
    CocoFile,
    CocoImage,
    annotations_of,
    image_folder_of,
    image_paths_of,
    read_coco_file,
    split_of,
)
from utils.annotations.image_files import measured
from utils.annotations.names import unique_names
from utils.annotations.output import Output, with_bar
from utils.annotations.record import AnnotatedImage, AnnotatedSet, Annotation, Category
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings
from utils.errors import DatasetError
from utils.threads import in_threads

_DIGITS = 6  # of a pixel's fraction: more than any of the formats has
_PLACES = ("annotations/instances_*.json", "annotations/*.json", "*.json", "*/*.json")


def read(source: Path, settings: ReadSettings, report: Report) -> AnnotatedSet:
    """Read a JSON file, or every one of a data set's folder; see ``docs/converters.md`` for where they are looked for.

    Raises:
        DatasetError: when there is none, one is no such file, or two are about the same split.
    """
    images: list[AnnotatedImage] = []
    categories: list[Category] = []
    for file in _files_of(source):
        content = read_coco_file(file, report)
        categories = _joined(categories, content, report)
        images += _read_images(content, settings, report)
    return AnnotatedSet(_with_own_ids(images), categories)


def _files_of(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    for pattern in _PLACES:
        files = sorted(source.glob(pattern))
        if files:
            break
    else:
        raise DatasetError(f"{source}: expected a JSON file, or a folder with annotations/*.json")
    splits = [split_of(file) for file in files]
    for split, count in Counter(splits).items():
        if count > 1:
            first, second, *_ = (file for file, own in zip(files, splits, strict=True) if own == split)
            about = f"{count} files are about one split ({split or 'none named'})"
            raise DatasetError(f"{source}: {about}, such as {first.name} and {second.name}; give one file as SRC")
    return files


def _joined(known: Sequence[Category], content: CocoFile, report: Report) -> list[Category]:
    """The categories of several files by name; the number of a name is that of the first file that has it."""
    names, numbers = {one.name for one in known}, {one.category_id for one in known}
    joined = list(known)
    for category in content.categories:
        if category.name in names:
            continue
        if category.category_id in numbers:
            where = f"{content.file}: category {category.category_id}, {category.name}"
            report.add("categories whose number another file gives to another name: numbered anew", where)
            category = replace(category, category_id=None)
        joined.append(category)
    return joined


def _read_images(content: CocoFile, settings: ReadSettings, report: Report) -> Iterator[AnnotatedImage]:
    names = [image.name for image in content.images]
    if settings.image_folder is not None:
        files = [settings.image_folder / name for name in names]
    elif settings.images_required or image_folder_of(content.file, names):
        files = list(map(Path, image_paths_of(content)))
    else:
        files = [content.file.parent / name for name in names]
    split = split_of(content.file)

    def read_one(entry: tuple[CocoImage, Path]) -> AnnotatedImage | None:
        image, file = entry
        where = f"{content.file}: image id {image.image_id}"
        size_wh = measured(file, image.declared_wh, where, report, required=settings.images_required)
        if size_wh is None:
            return None
        objects = annotations_of(image, content.names, size_wh, report)
        return AnnotatedImage(file, image.name, size_wh, objects, split, image.image_id)

    pairs = list(zip(content.images, files, strict=True))
    yield from filter(None, in_threads(read_one, pairs, f"reading {content.file.name}"))


def _with_own_ids(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Files of their own may number their images alike; together each number stands for one image."""
    counts = Counter(image.image_id for image in images)
    return [replace(image, image_id=None) if counts[image.image_id] > 1 else image for image in images]


def write(content: AnnotatedSet, output: Output, settings: WriteSettings, report: Report) -> None:
    """Write a JSON file for each split, and the images beside it."""
    categories = _numbered(content.categories)
    category_ids = {category.name: category.category_id for category in categories}
    content = replace(content, images=_with_ids(content.images))
    for split in content.splits:
        images = content.of_split(split)
        names = unique_names(images, report)
        with output.open(f"annotations/instances_{split}.json") as stream:
            stream.write('{"info": {}, "licenses": [],\n"images": [\n')
            entries = (
                {"id": image.image_id, "file_name": name, "width": image.size_wh[0], "height": image.size_wh[1]}
                for image, name in zip(images, names, strict=True)
            )
            stream.writelines(_lines(entries))
            stream.write('],\n"annotations": [\n')
            stream.writelines(_lines(_annotation_entries(images, category_ids)))
            stream.write('],\n"categories": [\n')
            stream.writelines(_lines(map(_category_entry, categories)))
            stream.write("]}\n")
        output.put_images([(f"images/{split}/{name}", image.file) for image, name in zip(images, names, strict=True)])


def _category_entry(category: Category) -> dict[str, Any]:
    return {"id": category.category_id, "name": category.name, "supercategory": category.supercategory}


def _annotation_entries(
    images: Sequence[AnnotatedImage], category_ids: dict[str, int | None]
) -> Iterator[dict[str, Any]]:
    number = 0
    for image in with_bar(images, "annotations"):
        for one in image.annotations:
            number += 1
            left, top, right, bottom = one.box_xyxy
            entry = {
                "id": number,
                "image_id": image.image_id,
                "category_id": category_ids[one.category],
                "bbox": [round(value, _DIGITS) for value in (left, top, right - left, bottom - top)],
                "area": round(one.effective_area, _DIGITS),
                "iscrowd": int(one.crowd),
                "segmentation": _segmentation(one),
            }
            yield {**entry, "difficult": 1} if one.difficult else entry


def _segmentation(one: Annotation) -> Any:
    if one.mask is not None:
        return one.mask
    return [[round(value, _DIGITS) for value in points.reshape(-1).tolist()] for points in one.outlines]


def _lines(entries: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Entries of a JSON list one by one, so that a large one is never in memory as a whole."""
    before = ""
    for entry in entries:
        yield before + json.dumps(entry, ensure_ascii=False)
        before = ",\n"


def _numbered(categories: Sequence[Category]) -> list[Category]:
    """Categories with the numbers they have; the others get the lowest free ones from 1."""
    taken = {one.category_id for one in categories}
    free = iter(sorted(set(range(1, 2 * len(categories) + 2)) - taken))
    return [one if one.category_id is not None else replace(one, category_id=next(free)) for one in categories]


def _with_ids(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Images with the numbers they have; else, where all names are different numbers, those; else free ones from 1."""
    ids = [image.image_id for image in images]
    if all(number is None for number in ids):
        stems = [Path(image.name).stem for image in images]
        numbers = {int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) < 16}
        if len(numbers) == len(images):
            ids = list(map(int, stems))
    free = iter(sorted(set(range(1, len(images) + 1 + len(set(ids)))) - set(ids)))
    return [
        replace(image, image_id=next(free) if number is None else number)
        for image, number in zip(images, ids, strict=True)
    ]
