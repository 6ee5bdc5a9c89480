"""The formats by name. A new one is a module with ``read`` and ``write``, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.annotations import coco, labelme, voc, yolo
from utils.annotations.output import Output
from utils.annotations.record import AnnotatedSet
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        title: what it is, for the help.
        read: makes the neutral form of a source.
        write: writes it below the output's folder.
    """

    title: str
    read: Callable[[Path, ReadSettings, Report], AnnotatedSet]
    write: Callable[[AnnotatedSet, Output, WriteSettings, Report], None]


FORMATS: Mapping[str, Format] = {
    "coco": Format("COCO: JSON of instances", coco.read, coco.write),
    "voc": Format("PASCAL VOC: XML annotations", voc.read, voc.write),
    "labelme": Format("LabelMe: a JSON file beside each image", labelme.read, labelme.write),
    "yolo": Format("YOLO: this project's own labels and data.yaml", yolo.read, yolo.write),
}
