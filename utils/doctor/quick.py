"""What train.py says about its data by itself: only what the loaded labels already tell, which costs next to nothing.

Unreadable images and lines that are no labels have been reported by then; damage within images, copies of pictures and
whatever else needs the files again is for ``python -m tools.doctor``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from utils.doctor.balance import Balance
from utils.doctor.findings import Finding, Findings
from utils.doctor.kinds import KINDS
from utils.doctor.sizes import SMALLEST, longer_sides
from utils.log import LOGGER

if TYPE_CHECKING:
    from utils.datasets.detection import LoadImagesAndLabels

_BLOCK = 4096  # images whose labels are in memory at a time


def warn_of_data(
    train: LoadImagesAndLabels, val: LoadImagesAndLabels, names: Mapping[int, str], imgsz: int, data: str
) -> None:
    """Log what is odd about the data of a run, a line for each kind.

    Args:
        train: images to train on.
        val: images to measure on.
        names: of the classes, by number.
        imgsz: training size, px.
        data: the data set's YAML, for the command that says more.
    """
    found = Findings()
    found.add(quick_findings(train, val, names, imgsz))
    for kind, count in found.counts.items():
        finding = found.of(kind)[0]
        others = f" (and {count - 1} more: {KINDS[kind].title})" if count > 1 else ""
        LOGGER.warning(f"{finding.split}: {finding}{others}")
    if found.counts:
        command = shlex.join(["python", "-m", "tools.doctor", data, "--img", str(imgsz)])
        LOGGER.info(f"{command} says more about the data, and what to do")


def quick_findings(
    train: LoadImagesAndLabels, val: LoadImagesAndLabels, names: Mapping[int, str], imgsz: int
) -> Iterator[Finding]:
    """What loaded data sets tell about classes, boxes and shared images; see :func:`warn_of_data`."""
    balance = Balance(names)
    for split, dataset in (("train", train), ("val", val)):
        yield from _boxes(dataset, split, balance, imgsz)
    if not balance.counts["val"].any():
        text = f"not one label; the first was looked for at {val.label_files[0]}"
        yield Finding("split-unlabelled", text, split="val")
    yield from balance.findings()
    yield from _shared(train, val)


def _boxes(dataset: LoadImagesAndLabels, split: str, balance: Balance, imgsz: int) -> Iterator[Finding]:
    """Boxes without area, and a single finding for all that are tiny; their classes go into ``balance``."""
    objects = tiny = 0
    for begin in range(0, len(dataset), _BLOCK):
        parts = dataset.labels[begin : begin + _BLOCK]
        labels = np.concatenate(parts)  # (N, 5)
        images = begin + np.repeat(np.arange(len(parts)), [len(rows) for rows in parts])  # (N,) index of each one's
        balance.add(split, labels[:, 0])
        drawn = (labels[:, 3:5] > 0).all(axis=1)
        for image in images[~drawn].tolist():
            yield Finding("label-no-area", "a box has no width or no height", dataset.label_files[image], 0, split)
        objects += len(labels)
        tiny += int(((longer_sides(labels[:, 3:5], dataset.shapes[images], imgsz) < SMALLEST) & drawn).sum())
    if tiny:
        text = f"{tiny} of {objects} objects have no side of {SMALLEST} px at --img {imgsz}: hardly to be found"
        yield Finding("objects-tiny", text, split=split)


def _shared(train: LoadImagesAndLabels, val: LoadImagesAndLabels) -> Iterator[Finding]:
    """One finding for all images that are in both splits."""
    trained = np.fromiter(map(hash, train.im_files), np.int64, len(train))  # of a million, far smaller than the texts
    shared = np.flatnonzero(np.isin(np.fromiter(map(hash, val.im_files), np.int64, len(val)), trained))
    if len(shared) == len(train) == len(val):
        yield Finding("split-same", "the images are those of the training: figures will look too good", split="val")
    elif len(shared):
        text = f"{len(shared)} of {len(val)} images are also trained on, such as {val.im_files[int(shared[0])]}"
        yield Finding("split-overlap", text, split="val")
