"""Images without labels, labels without images, and labels that are there but not where they are looked for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils.datasets.images import img2label_paths, is_image
from utils.doctor.findings import Finding

_NO_LABELS = {"classes.txt", "labels.txt", "readme.txt", "readme.roboflow.txt", "readme.dataset.txt"}


class Pairs:
    """Finds what belongs together by name and what has no partner; keeps the paths of labels.

    Attributes:
        found_elsewhere: image to the label file that it seems to have, where that is not the one it should have.
    """

    def __init__(self) -> None:
        self._expected: dict[str, tuple[str, str]] = {}  # label path -> split and image
        self._missing: list[str] = []
        self._trees: set[str] = set()
        self._no_labels: set[str] = set()
        self.found_elsewhere: dict[str, str] = {}

    def add_sources(self, entries: Iterable[str]) -> None:
        """Take up the entries of a split: below the label folder of each, every text is a label's."""
        for entry in map(Path, entries):
            labels = Path(img2label_paths([entry / "any.jpg"])[0]).parent
            if entry.is_dir() and labels != entry:
                self._trees.add(_absolute(labels))
            self._no_labels.add(_absolute(entry))

    def add(self, split: str, image: str, label: str, is_there: bool) -> Finding | None:
        """Take up an image; a finding when another image has its label file, too.

        Args:
            split: train, val or test.
            image: its path.
            label: where its label is looked for.
            is_there: whether anything is there.
        """
        path = _absolute(label)
        if path not in self._expected:
            self._expected[path] = split, image
            if not is_there:
                self._missing.append(path)
            return None
        other = self._expected[path][1]
        if _absolute(other) == _absolute(image):
            return None  # in two splits, which is another matter
        return Finding("label-shared", f"{label} is also the label file of {other}", image, 0, split)

    def findings(self) -> Iterator[Finding]:
        """What has no partner, once all images have been added."""
        without_image = self._texts_of_no_image()
        by_lower_name = {path.lower(): path for path in without_image}
        taken = set()
        for label in self._missing:
            split, image = self._expected[label]
            renamed, beside = by_lower_name.get(label.lower()), _absolute(Path(image).with_suffix(".txt"))
            if renamed is not None:
                text = f"belongs to {image}: rename it to {Path(label).name}"
                yield Finding("label-misnamed", text, renamed, 0, split)
            elif beside != label and Path(beside).is_file():
                yield Finding("label-misplaced", f"belongs to {image}: move it to {label}", beside, 0, split)
            else:
                yield Finding("image-unlabelled", f"there is no {label}", image, 0, split)
                continue
            self.found_elsewhere[image] = renamed or beside
            taken.add(renamed)
        pictured = self._pictured() if without_image else set()
        for path in without_image:
            if path not in taken and os.path.splitext(path)[0] not in pictured:  # noqa: PTH122 - keeps the folder
                yield Finding("label-orphan", "no image of a split has this name", path)

    def _texts_of_no_image(self) -> list[str]:
        """Texts in the folders of the labels that no image of a split asks for, sorted."""
        folders = {Path(label).parent for label in self._expected}
        listed = {str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()}
        for tree in self._trees:
            listed.update(str(Path(parent, name)) for parent, _, names in os.walk(tree) for name in names)
        return sorted(path for path in listed if self._is_label(path) and path not in self._expected)

    def _is_label(self, path: str) -> bool:
        name = Path(path).name.lower()
        return name.endswith(".txt") and name not in _NO_LABELS and path not in self._no_labels

    def _pictured(self) -> set[str]:
        """Label paths, without suffix, of images that are there although no split lists them."""
        images = defaultdict(set)
        for label, (_, image) in self._expected.items():
            images[Path(_absolute(image)).parent].add(Path(label).parent)
        found = set()
        for folder, label_folders in images.items():
            stems = {path.stem for path in folder.iterdir() if is_image(path.name)} if folder.is_dir() else set()
            found |= {str(labels / stem) for labels in label_folders for stem in stems}
        return found


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - keeps the names of links
