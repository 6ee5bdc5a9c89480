"""Going through a whole data set, image by image, on several threads; memory holds paths and counts, no pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.annotations.json_file import is_json
from utils.datasets.images import img2label_paths
from utils.datasets.json_labels import JsonLabels
from utils.datasets.label_index import ImageRecord
from utils.datasets.labels import LabelFile
from utils.doctor.balance import Balance
from utils.doctor.copies import Copies
from utils.doctor.findings import Finding, Findings
from utils.doctor.labels import LabelCheck, check_annotations, check_label_file
from utils.doctor.pairs import Pairs
from utils.doctor.paths import Location, Split, find_splits, locate
from utils.doctor.pictures import Picture, check_picture
from utils.doctor.sizes import Sizes
from utils.errors import DatasetError
from utils.threads import in_threads


class Diagnosis:
    """What was found out about a data set.

    Attributes:
        location: what its YAML leads to.
        imgsz: training size that objects are measured at, px.
        splits: by name; empty when the YAML cannot be used.
        findings: all faults.
        balance: objects by class; ``sizes`` by size.
        copies: pictures that are there more than once.
        pairs: images and labels that belong together.
        unusable: images that training leaves out.
    """

    def __init__(self, location: Location, imgsz: int) -> None:
        self.location, self.imgsz = location, imgsz
        self.findings = Findings()
        self.findings.add(location.findings)
        self.splits: dict[str, Split] = find_splits(location.data) if location.data else {}
        self.balance = Balance(location.data["names"] if location.data else {})
        self.sizes = Sizes(imgsz)
        self.copies, self.pairs = Copies(), Pairs()
        self.unusable: set[str] = set()


@dataclass(frozen=True)
class _Seen:
    """An image with its label file, looked at."""

    picture: Picture
    check: LabelCheck
    has_label: bool


def diagnose(data: str | Path, imgsz: int = 640, pixels: bool = True, quiet: bool = False) -> Diagnosis:
    """Look at all of a data set, without changing anything.

    Args:
        data: path or bare name of its YAML.
        imgsz: training size that objects are measured at, px.
        pixels: False reads headers only, which is quick: damage within an image and copies stay unknown.
        quiet: show no progress bar.

    Raises:
        ConfigError: when there is no such file.
    """
    found = Diagnosis(locate(data), imgsz)
    for split in found.splits.values():
        found.findings.add(split.findings)
        if split.files and not split.same_as:
            _go_through(found, split, pixels, quiet)
            _sum_up(found, split)
    found.findings.add(found.pairs.findings())
    found.findings.add(found.balance.findings())
    return found


def _go_through(found: Diagnosis, split: Split, pixels: bool, quiet: bool) -> None:
    """Look at each image of a split."""
    found.pairs.add_sources(split.entries)
    notes: list[str] = []
    try:
        annotations = JsonLabels(split.entries, found.balance.names, notes.append)
    except DatasetError as error:
        found.findings.add([Finding("annotations-unusable", str(error), split=split.name)])
        return
    found.findings.add(Finding("annotation", note, split=split.name) for note in notes)
    label_files = annotations.label_files(split.files)
    look = partial(_look, nc=len(found.balance.names), split=split.name, pixels=pixels, annotations=annotations)
    pairs = list(zip(split.files, label_files, strict=True))
    seen = in_threads(look, pairs, f"{split.name}: looking", quiet=quiet)
    for (file, label_file), one in zip(pairs, seen, strict=True):
        _take_up(found, split, file, label_file, one)


def _look(files: tuple[str, str], nc: int, split: str, pixels: bool, annotations: JsonLabels) -> _Seen:
    """The part that threads do: all reading, nothing that they share."""
    file, label_file = files
    picture = check_picture(file, split, pixels)
    if is_json(label_file):
        record = annotations.relabelled_record(file, ImageRecord(picture.size_wh, LabelFile()))
        return _Seen(picture, check_annotations(file, record.label, split), True)
    is_there = os.path.exists(label_file)  # noqa: PTH110 - a Path raises in folders that are closed
    return _Seen(picture, check_label_file(label_file, nc, split), is_there)


def _take_up(found: Diagnosis, split: Split, file: str, label_file: str, seen: _Seen) -> None:
    """Count what a thread has seen."""
    label, size_wh = seen.check.label, seen.picture.size_wh
    found.findings.add((*seen.picture.findings, *seen.check.findings))
    in_json = is_json(label_file)
    shared = None if in_json else found.pairs.add(split.name, file, label_file, seen.has_label)
    found.findings.add([shared] if shared else [])
    if size_wh is None:
        found.unusable.add(file)
        return
    split.usable += 1
    split.objects += len(label.labels)
    found.balance.add(split.name, label.labels[:, 0])
    found.balance.unknown.update(seen.check.unknown)
    found.findings.add(found.sizes.add(split.name, file if in_json else label_file, label, size_wh))
    same = seen.picture.digest or os.path.abspath(file).encode(errors="surrogateescape")  # noqa: PTH100 - keeps links
    copied = found.copies.add(split.name, file, same, hash(label.labels.tobytes()))
    found.findings.add([copied] if copied else [])


def _sum_up(found: Diagnosis, split: Split) -> None:
    """What is wrong with a split as a whole."""
    if not split.usable:
        text = f"none of its {len(split.files)} images can be used"
        found.findings.add([Finding("split-empty", text, split.entries[0], 0, split.name)])
    elif not split.objects and split.name != "test":
        text = f"the first label file was looked for at {img2label_paths(split.files[:1])[0]}"
        found.findings.add([Finding("split-unlabelled", text, split.entries[0], 0, split.name)])
