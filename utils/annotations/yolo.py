"""YOLO: this project's own form, ``data.yaml`` with ``images/<split>`` and ``labels/<split>``.

Labels have no crowds (a detector would learn them as one object): they are left out and counted. Areas are those of
boxes, or of outlines where a label is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.annotations.checks import class_name, cut_box
from utils.annotations.image_files import measured
from utils.annotations.json_file import is_json
from utils.annotations.names import unique_names
from utils.annotations.output import Output, with_bar
from utils.annotations.record import SPLITS, AnnotatedImage, AnnotatedSet, Annotation, Category
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings
from utils.boxes import xyxy2xywhn
from utils.datasets.config import check_dataset
from utils.datasets.images import img2label_paths, list_images
from utils.datasets.labels import format_label, read_label_file, refuse_unknown_classes
from utils.errors import DatasetError
from utils.threads import in_threads
from utils.yaml_io import yaml_save


def read(source: Path, settings: ReadSettings, report: Report) -> AnnotatedSet:
    """Read a data set by its YAML, or by the folder that has a ``data.yaml``.

    Raises:
        DatasetError: when the YAML or the images that it names cannot be used.
    """
    file = source / "data.yaml" if source.is_dir() else source
    if not file.is_file():
        raise DatasetError(f"{file}: expected the data set's YAML, or a folder with data.yaml")
    if settings.image_folder is not None:
        raise DatasetError(f"{file}: says itself where its images are; leave out --image-folder")
    data = check_dataset(file, autodownload=False)
    names = _class_names(data["names"], file, report)
    seen: set[str] = set()
    listed = []
    for split in SPLITS:
        for path, name in _images_of(data[split], Path(data["path"])) if data.get(split) else ():
            if path not in seen:  # a YAML may validate on its training images
                seen.add(path)
                listed.append((path, name, split))

    def read_one(entry: tuple[str, str, str]) -> AnnotatedImage | None:
        path, name, split = entry
        label_file = img2label_paths([path])[0]
        size_wh = measured(Path(path), None, label_file, report, required=True)
        if size_wh is None:
            return None
        return AnnotatedImage(Path(path), name, size_wh, _objects(label_file, size_wh, names, report), split)

    images = list(filter(None, in_threads(read_one, listed, "reading labels")))
    return AnnotatedSet(images, list(map(Category, dict.fromkeys(names))))


def _class_names(names: Mapping[int, str], file: Path, report: Report) -> list[str]:
    """The name of each class number."""
    found: list[str] = []
    for number in sorted(names):
        try:
            name = class_name(names[number])
        except ValueError as error:
            raise DatasetError(f"{file}: `names:` {number}: {error}") from None
        if name in found:
            report.add("classes that share their name with another: taken as one", f"{file}: {number} {name}")
        found.append(name)
    return found


def _images_of(entry: str | Sequence[str], root: Path) -> Iterator[tuple[str, str]]:
    """Each image of a split with its name below the folder that the YAML names, or below the data set's."""
    for source in [entry] if isinstance(entry, str) else entry:
        if is_json(source):
            raise DatasetError(f"{source}: its labels are no label files; convert it as coco")
        for path in list_images(source):
            folder = next((base for base in (Path(source), root) if Path(path).is_relative_to(base)), None)
            name = Path(path).relative_to(folder).as_posix() if folder else Path(path).name
            yield path, name


def _objects(label_file: str, size_wh: tuple[int, int], names: Sequence[str], report: Report) -> tuple[Annotation, ...]:
    content = refuse_unknown_classes(read_label_file(label_file), len(names), label_file)
    for fault in content.faults:
        report.add("label lines that cannot be meant: left out", fault)
    found = []
    scale, rows = np.array(size_wh, np.float64), content.labels.astype(np.float64)
    for row, points, line in zip(rows, content.polygons, content.lines.tolist(), strict=True):
        low, high = (row[1:3] - row[3:5] / 2) * scale, (row[1:3] + row[3:5] / 2) * scale
        where = f"{label_file}:{line}"
        try:
            box, cut = cut_box((*low.tolist(), *high.tolist()), size_wh)
        except ValueError as error:
            report.add("label lines that cannot be meant: left out", f"{where}: {error}")
            continue
        if cut:
            report.add("boxes beyond the edge of their image: cut", where)
        parts = (points.astype(np.float64) * scale,) if len(points) else ()
        found.append(Annotation(names[int(row[0])], box, outlines=parts))
    return tuple(found)


def write(content: AnnotatedSet, output: Output, settings: WriteSettings, report: Report) -> None:
    """Write images, labels and ``data.yaml``; a set without validation images validates on its first split."""
    numbers = {name: number for number, name in enumerate(content.names)}
    for split in content.splits:
        images = content.of_split(split)
        names = unique_names(images, report)
        for image, name in with_bar(list(zip(images, names, strict=True)), "labels"):
            lines = "".join(f"{line}\n" for line in _lines(image, numbers, settings.polygons, report))
            output.put_text(img2label_paths([f"images/{split}/{name}"])[0], lines)
        output.put_images([(f"images/{split}/{name}", image.file) for image, name in zip(images, names, strict=True)])
    yaml_save(output.folder / "data.yaml", _yaml(content, output.home))


def _lines(image: AnnotatedImage, numbers: dict[str, int], polygons: bool, report: Report) -> Iterator[str]:
    for one in image.annotations:
        if one.crowd:
            report.add("crowd regions: left out, as training has no use for them", str(image.file))
            continue
        if polygons and len(one.outlines) == 1:
            shares = np.clip(one.outlines[0] / np.array(image.size_wh, np.float64), 0, 1)
            yield format_label(numbers[one.category], shares.reshape(-1).tolist())
            continue
        if one.outlines or one.mask:
            kind = "outlines of several parts" if polygons else "outlines (--polygons keeps those of one part)"
            report.add(f"{kind}: their boxes alone are written", str(image.file))
        row = xyxy2xywhn(np.array(one.box_xyxy, np.float64), *image.size_wh)
        yield format_label(numbers[one.category], row.tolist())


def _yaml(content: AnnotatedSet, home: Path) -> dict[str, object]:
    splits = content.splits
    described: dict[str, object] = {"path": str(home)}
    described |= {split: f"images/{split if split in splits else splits[0]}" for split in ("train", "val")}
    if "test" in splits:
        described["test"] = "images/test"
    return {**described, "names": dict(enumerate(content.names))}
