"""What is fuzzed: which function reads the file, the files to begin with, and what must hold of what it gives."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import cv2
import numpy as np
import torch
import yaml
from PIL import Image

from models.checkpoint import Checkpoint, ModelMeta, model_from_checkpoint, read_checkpoint, write_checkpoint
from models.registry import registered_layers
from models.yolo import DetectionModel
from tools.fuzz.mutators import (
    VALUES,
    change_archive,
    change_image,
    change_index,
    change_label_lines,
    yaml_mutator,
)
from utils.datasets.cache import index_path, scan_images
from utils.datasets.config import check_dataset, dataset_names
from utils.datasets.images import check_image
from utils.datasets.label_view import LabelView
from utils.datasets.labels import LabelFile, read_label_file, refuse_unknown_classes
from utils.image_io import decode_image, read_image

LONGEST_MESSAGE = 2000  # characters that a user is shown of one fault
_NC = 20
_TINY = {
    **{"nc": 2, "depth_multiple": 0.33, "width_multiple": 0.25, "activation": "nn.ReLU()"},
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], {"c3": [-1, 3, "C3", [16]]}, [-1, 1, "SPPF", [16, 5]]],
    "head": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 0], 1, "Concat", [1]],
        [-1, 1, "BiFormerBlock", [0, 7, 4]],
        [[6], 1, "Detect", ["nc", "anchors"]],
    ],
}  # fmt: skip


class BrokenPromiseError(Exception):
    """What was read is not what every caller relies on."""


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        share: percent of all cases.
        place: where the file lies, below the folder in which everything happens and which is the current one.
        prepare: makes what belongs around the file; gives files to begin with.
        change: makes another file of one.
        read: reads the file; raises a ProjectError, or BrokenPromiseError, or nothing.
    """

    share: int
    place: str
    prepare: Callable[[], list[bytes]]
    change: Callable[[bytes, Random], bytes]
    read: Callable[[Path], None]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenPromiseError(what)


def one_line(text: str) -> bool:
    """Whether a message can be shown as it is, and is no flood."""
    return text.isprintable() and len(text) <= LONGEST_MESSAGE


# -- labels --------------------------------------------------------------------------------------------------------


def _label_files() -> list[bytes]:
    return [
        b"0 0.5 0.5 0.25 0.25\n19 0.1 0.2 0.05 0.1\n",
        b"3 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n1 0.5 0.5 1 1\n",
        b"\xef\xbb\xbf0 0 0 1 1\r\n\r\n7 1e-3 .5 5e-2 1.\r\n",
        b"",
    ]


def _require_labels(label: LabelFile) -> None:
    count = len(label.labels)
    _require(label.labels.shape == (count, 5) and label.labels.dtype == np.float32, "labels are not (N, 5) float32")
    _require(len(label.polygons) == len(label.lines) == count, "columns of different lengths")
    _require(bool(np.isfinite(label.labels).all()), "a label that is no number")
    _require(bool(((label.labels[:, 1:] >= 0) & (label.labels[:, 1:] <= 1)).all()), "a coordinate outside 0..1")
    _require(all(one_line(fault) for fault in label.faults), "a fault that cannot be shown in a line")


def _read_labels(path: Path) -> None:
    label = refuse_unknown_classes(read_label_file(path), _NC, str(path))
    _require_labels(label)
    _require(bool((label.labels[:, 0] < _NC).all()), "a class that is not below the class count")


# -- YAML files ----------------------------------------------------------------------------------------------------


def _data_files() -> list[bytes]:
    _draw_images()
    content = {"path": "set", "train": "images/val", "val": ["images/val"], "test": None, "nc": 2, "names": ["a", "b"]}
    download = {"url": "https://example.org/a.zip", "sha256": "0" * 64, "bytes": 1000}
    contents = [content, {**content, "names": {0: "a", 1: "b"}, "path": "."}, {**content, "download": download}]
    texts = [yaml.safe_dump(each, sort_keys=False) for each in contents]
    return [text.encode() for text in (*texts, "names: &n [a, b]\ntrain: ../images/val\nval: images/val\nx: *n\n")]


def _read_data(path: Path) -> None:
    data = check_dataset(path)
    names = data["names"]
    _require(list(names) == list(range(data["nc"])), "classes are not numbered from 0")
    _require(all(isinstance(name, str) for name in names.values()), "a class name is no text")
    _require(dataset_names(path) == names, "two readers, two lists of names")


def _model_files() -> list[bytes]:
    plain = {**_TINY, "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C3", [16]], [-1, 1, "SPPF", [16, 5]]]}
    attention = [
        [-1, 1, name, [16] if name.startswith("C3") else []] for name in ("C3BiFormer", "WindowAttentionBlock")
    ]
    rich = {**plain, "head": [*attention, [[-1], 1, "Detect", ["nc", "anchors"]]], "anchors": 3}
    return [yaml.safe_dump(content, sort_keys=False).encode() for content in (_TINY, plain, rich)]


def _read_model(path: Path) -> None:
    with torch.device("meta"):  # as python -m tools.model does: shapes without memory
        model = DetectionModel(str(path))
    _require(model.nc >= 1 and bool((model.stride > 0).all()), "a network without classes or strides")


# -- images --------------------------------------------------------------------------------------------------------


def _noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _saved(kind: str, mode: str = "RGB", **settings: object) -> bytes:
    stream = io.BytesIO()
    _noise(mode).save(stream, kind, **settings)
    return stream.getvalue()


def _image_files() -> list[bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = cv2.imencode(".png", np.full((16, 16), 40_000, np.uint16))[1].tobytes()
    floats = cv2.imencode(".pfm", np.full((12, 12), 0.5, np.float32))[1].tobytes()
    return [
        *(_saved("JPEG", exif=turned), _saved("JPEG", "L", progressive=True), _saved("JPEG", "CMYK")),
        *(_saved("PNG", exif=turned), _saved("PNG", "P"), _saved("PNG", "1"), _saved("PNG", "RGBA"), deep, floats),
        *(_saved("BMP"), _saved("BMP", "P"), _saved("TIFF"), _saved("TIFF", compression="tiff_lzw", exif=turned)),
        *(_saved("GIF"), _saved("WEBP", exif=turned), _saved("WEBP", lossless=True), _saved("PPM"), _saved("TGA")),
    ]


def _read_image(path: Path) -> None:
    width, height = check_image(path)
    image = read_image(path)
    _require(image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8, "no (H, W, 3) uint8")
    _require(min(width, height) >= 1, "a size of nothing")
    data = np.fromfile(path, np.uint8)
    if data[:1].tobytes() == b"P":
        decode_image(data, "case.pfm")


# -- the label index -----------------------------------------------------------------------------------------------


def _draw_images() -> list[str]:
    """A split of three images, two of them labelled, that looks the same wherever and whenever it is made."""
    for kind in ("images", "labels"):
        Path("set", kind, "val").mkdir(parents=True, exist_ok=True)
    files = [Path("set/images/val", f"{name}.png") for name in "abc"]
    for file in files:
        _noise().save(file)
    Path("set/labels/val/a.txt").write_bytes(_label_files()[0])
    Path("set/labels/val/b.txt").write_bytes(_label_files()[1] + b"bad line\n")
    for file in (*files, *Path("set/labels/val").glob("*.txt")):
        os.utime(file, (1e9, 1e9))
    return [str(file) for file in files]


def _index_files() -> list[bytes]:
    files = _draw_images()
    index = index_path("set/images/val")
    scan_images(files, index, quiet=True)
    return [index.read_bytes()]


def _read_index(path: Path) -> None:
    files = [f"set/images/val/{name}.png" for name in "abc"]
    records = scan_images(files, path, quiet=True)
    _require(len(records) == len(files), "an image without a record")
    _, shown = LabelView(records, nc=_NC).faults(most=9)
    _require(all(map(one_line, shown)), "a fault that cannot be shown in a line")
    for record in records:
        _require_labels(replace(record.label, faults=()))
        _require(record.size_wh is None or min(record.size_wh) > 0, "a size of nothing")


# -- checkpoints ---------------------------------------------------------------------------------------------------


def _checkpoint_files() -> list[bytes]:
    torch.manual_seed(0)
    model = DetectionModel({**_TINY, "width_multiple": 0.1, "channel_multiple": 1})
    own = Checkpoint(model.state_dict(), ModelMeta.of(model), ema=model.state_dict(), opt={"imgsz": 64})
    write_checkpoint("own.pt", own)
    rows = {"head": [[[0], 1, "Detect", ["nc", "anchors"]]], "backbone": _TINY["backbone"][:1]}
    objects = DetectionModel({**_TINY, **rows}).half()
    torch.save({"model": objects, "epoch": 3, "ema": None, "date": "2020"}, "objects.pt")
    torch.save({"model": objects}, "older.pt", _use_new_zipfile_serialization=False)
    content = torch.load("own.pt", weights_only=True)
    torch.save(content, "stream.pt", _use_new_zipfile_serialization=False)
    return [Path(name).read_bytes() for name in ("own.pt", "objects.pt", "older.pt", "stream.pt")]


def _read_checkpoint(path: Path) -> None:
    model = model_from_checkpoint(read_checkpoint(path))
    _require(len(model.names) == model.nc, "a class without a name")


def _yaml_values(words: tuple[str, ...]) -> tuple:
    return (*VALUES, *words)


def make_targets() -> dict[str, Target]:
    """Every kind of file that can be fuzzed, by name."""
    modules = tuple(registered_layers())
    index = str(Path("set/labels/val.label-index"))
    data_mutator, model_mutator = yaml_mutator(_yaml_values(("images/val", "set"))), yaml_mutator(_yaml_values(modules))
    return {
        "labels": Target(54, "labels/case.txt", _label_files, change_label_lines, _read_labels),
        "data": Target(12, "set/data.yaml", _data_files, data_mutator, _read_data),
        "model": Target(8, "case.yaml", _model_files, model_mutator, _read_model),
        "images": Target(14, "case.jpg", _image_files, change_image, _read_image),
        "index": Target(6, index, _index_files, change_index, _read_index),
        "checkpoints": Target(6, "case.pt", _checkpoint_files, change_archive, _read_checkpoint),
    }
