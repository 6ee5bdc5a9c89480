"""COCO's JSON as a split of a data set: its images, and labels as if they had been converted into label files.

A category belongs to the class of its name. Crowd regions are no labels: a detector would learn many objects as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from utils.annotations.coco_file import CocoFile, CocoImage, annotations_of, image_paths_of, read_coco_file
from utils.annotations.json_file import is_json
from utils.annotations.report import Report
from utils.boxes import xyxy2xywhn
from utils.datasets.images import img2label_paths
from utils.datasets.label_index import ImageRecord, IndexWriter, LabelIndex
from utils.datasets.labels import LabelFile
from utils.errors import DatasetError

_COMPARED = ("id", "bbox", "area", "iscrowd")  # what pycocotools reads in an annotation


@dataclass(frozen=True)
class _Split:
    """One JSON file: its content, the images' paths in its order, and the class number of each category's name."""

    content: CocoFile
    paths: Sequence[str]
    class_of: Mapping[str, int]


class JsonLabels:
    """The labels of those parts of a split that are JSON files; nothing at all where there is none.

    Args:
        source: a split as :func:`list_images` takes it.
        names: of the data set's classes; None takes the categories in the order of their numbers.
        say: gets a line about whatever is left out.

    Raises:
        DatasetError: when a file is none of COCO's, its images are not there, or its categories are no classes.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        names: Mapping[int, str] | None,
        say: Callable[[str], None],
    ):
        self._say = say
        self._splits: dict[Path, _Split] = {}
        self._of_image: dict[str, tuple[_Split, CocoImage]] = {}
        for entry in map(Path, [source] if isinstance(source, (str, Path)) else source):
            if is_json(entry) and entry.is_file():
                self._splits[entry] = split = self._read(entry, names)
                pairs = zip(split.paths, split.content.images, strict=True)
                self._of_image |= {path: (split, image) for path, image in pairs}

    def _read(self, file: Path, names: Mapping[int, str] | None) -> _Split:
        report = Report()
        content = read_coco_file(file, report)
        for line in report.lines():
            self._say(line)
        crowds = sum(entry.get("iscrowd") in (1, True) for image in content.images for _, entry in image.entries)
        if crowds:
            self._say(f"{file}: {crowds} crowd regions are left out of the labels")
        return _Split(content, image_paths_of(content), class_numbers(content, names, self._say))

    @property
    def files(self) -> list[Path]:
        """The JSON files among the parts of the split."""
        return list(self._splits)

    def images_of(self, file: Path) -> list[str]:
        """Paths of a file's images, in its order."""
        return list(self._splits[file].paths)

    def label_files(self, image_files: Iterable[str]) -> list[str]:
        """Where the labels of each image are: the JSON, or the usual label file."""
        return [
            str(self._of_image[path][0].content.file) if path in self._of_image else img2label_paths([path])[0]
            for path in image_files
        ]

    def relabelled(self, index: LabelIndex) -> LabelIndex:
        """An index with the labels of the JSON files in place of those beside their images; as it is without any.

        It is in this process's memory alone: a JSON file is read as a whole in any case.
        """
        if not self._splits:
            return index
        with IndexWriter(BytesIO) as writer:
            pairs = zip(index.image_files, index, strict=True)
            writer.append(index.image_files, [self.relabelled_record(file, record) for file, record in pairs])
            return writer.in_memory()

    def relabelled_record(self, image_file: str, record: ImageRecord) -> ImageRecord:
        """The record of an image with the labels of its JSON; that of an image of no JSON, or no use, as it is."""
        if record.size_wh is None or image_file not in self._of_image:
            return record
        return replace(record, label=_label_of(*self._of_image[image_file], record.size_wh))


def _label_of(split: _Split, image: CocoImage, size_wh: tuple[int, int]) -> LabelFile:
    """The labels of an image."""
    report = Report()
    objects = annotations_of(image, split.content.names, size_wh, report)
    if image.declared_wh not in (None, size_wh):
        declared, found = ("x".join(map(str, size)) for size in (image.declared_wh, size_wh))
        report.add(f"declared {declared} px, the file is {found} px upright", f"{split.content.file}: {image.name}")
    single = [one for one in objects if not one.crowd]
    different = list(dict.fromkeys((split.class_of[one.category], *one.box_xyxy) for one in single))
    if len(different) < len(single):
        report.add("objects that repeat another: left out", f"{split.content.file}: {image.name}")
    rows = np.array(different, np.float64).reshape(-1, 5)
    labels = np.hstack([rows[:, :1], xyxy2xywhn(rows[:, 1:], *size_wh)]).astype(np.float32)
    outlines = (np.zeros((0, 2), np.float32),) * len(labels)
    faults = tuple(f"{where} ({kind})" for kind, examples in sorted(report.examples.items()) for where in examples)
    places = np.arange(1, len(labels) + 1, dtype=np.int32)
    return LabelFile(labels, outlines, places, faults)


@dataclass(frozen=True)
class JsonNumbers:
    """How a JSON file numbers what a detector finds.

    Attributes:
        category_ids: for each class number; one that the file does not use for a class that it does not have.
        image_ids: for each image path.
    """

    category_ids: Sequence[int]
    image_ids: Mapping[str, int | str]


def json_numbers(file: Path, names: Mapping[int, str]) -> JsonNumbers:
    """Read the numbers of a JSON file's images and categories.

    Args:
        file: of COCO's form.
        names: of the data set's classes.

    Raises:
        DatasetError: as :class:`JsonLabels`; or when an annotation lacks what pycocotools needs to compare with it.
    """
    content = read_coco_file(file, Report())
    _refuse_incomplete(content)
    id_of_class = dict.fromkeys(sorted(names))
    for name, number in class_numbers(content, names).items():
        id_of_class[number] = next(one.category_id for one in content.categories if one.name == name)
    unused = max(content.names, default=0) + 1
    category_ids = [unused + number if one is None else one for number, one in id_of_class.items()]
    paths = zip(image_paths_of(content), content.images, strict=True)
    return JsonNumbers(category_ids, {path: image.image_id for path, image in paths})


def _refuse_incomplete(content: CocoFile) -> None:
    for image in content.images:
        for where, entry in image.entries:
            lacking = [key for key in _COMPARED if key not in entry]
            box = entry.get("bbox")
            if lacking or not isinstance(box, list) or len(box) != 4:
                raise DatasetError(
                    f"{where}: pycocotools needs {', '.join(_COMPARED)}; missing here: {', '.join(lacking) or 'bbox'}; "
                    "python -m tools.convert coco SRC DST --to coco writes a complete file"
                )


def class_numbers(
    content: CocoFile, names: Mapping[int, str] | None, say: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """The class number of each category's name.

    By name, wherever every category with an annotation has one of the names. Where not one category does and there are
    as many categories as names, these are taken for translations, in order, and the pairs are told.

    Args:
        content: the JSON file.
        names: of the data set's classes; None takes the categories in the order of their numbers.
        say: gets the pairs.

    Raises:
        DatasetError: naming the categories that are no classes.
    """
    categories = [category.name for category in content.categories]
    if names is None:
        return {name: number for number, name in enumerate(categories)}
    number_of = {name: number for number, name in sorted(names.items(), reverse=True)}
    if categories and len(categories) == len(names) and not set(categories) & set(number_of):
        pairs = {name: number for number, name in enumerate(categories)}
        told = ", ".join(f"{name} is {names[number]}" for name, number in pairs.items())
        say(f"{content.file}: none of its categories is in `names:`; taken in their order: {told}")
        return pairs
    used = {content.names[int(entry["category_id"])] for image in content.images for _, entry in image.entries}
    unknown = [
        f"{category.category_id} {category.name!r}"
        for category in content.categories
        if category.name in used and category.name not in number_of
    ]
    if unknown:
        listed = ", ".join(unknown[:10])
        raise DatasetError(
            f"{content.file}: {len(unknown)} categories are not in `names:` of the data set ({listed}); "
            "add them there, or convert the set with the classes you want (python -m tools.convert coco, --classes)"
        )
    return {name: number_of[name] for name in categories if name in number_of}
