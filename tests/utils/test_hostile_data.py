"""What fuzzing found in data sets and settings, each fault by its smallest input; `python -m tools.fuzz` finds more."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_index import write_index
from PIL import Image

from models.config import parse_config
from utils.datasets.config import check_dataset
from utils.datasets.images import check_image
from utils.datasets.label_index import ImageRecord, open_index
from utils.datasets.label_view import LabelView
from utils.datasets.labels import LabelFile, parse_labels, refuse_unknown_classes
from utils.errors import ConfigError, DatasetError, ProjectError, printable
from utils.image_io import read_image
from utils.yaml_io import yaml_load

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
TWICE = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: *a{n - 1}\n  <<: *a{n - 1}\n" for n in range(1, 40))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 80))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "stand for more than"),
        (CHAIN, "levels"),
        ("a: &a [*a]", "or for themselves"),
        (MERGES, "data.yaml:2: not valid YAML .`<<` takes one mapping"),
        (TWICE, "`<<` takes one mapping"),
        ("a: &a {" + ",".join(f"k{n}: 1" for n in range(1001)) + "}\nb: {<<: *a}", "more than 1,000 entries"),
        ("a: " + "[" * 60 + "]" * 60, "50 levels"),
        pytest.param("a: [" + "1," * 100_001 + "]", "100,000 values", marks=pytest.mark.slow),
        ("a: '" + "x" * (2 << 20) + "'", "larger than 2 MB"),
        ("nc: 0x" + "f" * 5000, "whole number of 20,000 bits"),
        ('a: "\\ud800"', "no file can have|not valid YAML"),
        ('a: "x\\0"', "no file can have"),
        ("a: !!int ''", "not valid YAML"),
        ("a: !!bool maybe", "not valid YAML"),
        ("a: !!timestamp soon", "not valid YAML"),
        ("a: \0", "not valid YAML"),
    ],
)
def test_a_yaml_that_would_take_for_ever_or_fits_nothing(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    begun = time.process_time()
    with pytest.raises(ConfigError, match=words) as caught:
        yaml_load(file)
    assert time.process_time() - begun < 5
    assert "\n" not in str(caught.value)


def test_what_people_write_is_read(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n")
    one = {"x": 1, "y": [1, 2]}
    assert yaml_load(file) == {"a": one, "b": {**one, "x": 2}, "c": [one, one]}


def test_a_message_is_one_short_line() -> None:
    assert str(ConfigError("a\nb\x1b[2J\ud800c")) == "a b?[2J?c"
    text = str(DatasetError("file.yaml: " + "x" * 100_000 + "; do this"))
    assert len(text) == 1000 and text.startswith("file.yaml: xx") and text.endswith("xx; do this")
    assert printable("short") == "short"


def test_a_model_of_hundreds_of_blocks_is_refused_before_it_is_built() -> None:
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1000, "BiFormerBlock", [0, 7, 4]]]
    content = {"depth_multiple": 0.33, "anchors": 1, "backbone": rows, "head": [[[1], 1, "Detect", ["nc", "anchors"]]]}
    with pytest.raises(ConfigError, match="ask for 332 layers, more than 250"):
        parse_config(content)


@pytest.mark.parametrize("path", ["~nobody_of_this_name/x", "x" * 300, "a/" * 3000, "\ud800", "a\0b"])
@pytest.mark.parametrize("key", ["path", "val"])
def test_paths_that_no_system_has(path: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="data set: "):
        check_dataset({"path": str(tmp_path), "train": "x", "val": "y", "names": ["a"], key: path})


@pytest.mark.parametrize("path", ["{}/new", "../new", "~/new", "a/../../new"])
def test_no_set_is_drawn_wherever_a_yaml_says(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    content = {"path": path.format(tmp_path), "train": "x", "val": "y", "names": ["a"], "drawn_by": "shapes"}
    with pytest.raises(DatasetError, match="drawn only where `path:` is relative"):
        check_dataset(content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("word", ["1e39", "1e300", "9" * 300, "16777217"])
def test_classes_that_no_number_holds(word: str) -> None:
    label = refuse_unknown_classes(
        parse_labels(f"{word} 0.5 0.5 0.1 0.1\n1 0 0 1 0." + "3" * 5000, "a.txt"), 20, "a.txt"
    )
    assert len(label.labels) == 1 and len(label.faults) == 1
    assert label.faults[0].startswith("a.txt:1: class ") and len(label.faults[0]) < 200


# -- pictures that declare more than they hold ---------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(side: int) -> bytes:
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(b"\0")) + _chunk(b"IEND", b"")


def _jpeg(side: int) -> bytes:
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", side, side) + data[place + 4 :]


def _gif(side: int) -> bytes:
    sizes = struct.pack("<HHBBB", side, side, 0x80, 0, 0), struct.pack("<HHHHB", 0, 0, side, side, 0)
    return b"GIF89a" + sizes[0] + b"\0\0\0\xff\xff\xff," + sizes[1] + b"\x02\x02\x4c\x01\0;"


def _bmp(side: int) -> bytes:
    sizes = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + sizes + bytes(1000)


def _tiff(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (16, 16)).save(stream, "TIFF")
    data = bytearray(stream.getvalue())
    for tag in (256, 257, 278):  # width, height, rows a strip; each in an entry of 12 bytes
        place = data.index(struct.pack("<H", tag) + b"\x04\0\x01\0\0\0")
        data[place + 8 : place + 12] = struct.pack("<I", side)
    return bytes(data)


def _webp(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(stream, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*")
    data = bytearray(stream.getvalue())
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


@pytest.mark.parametrize("side", [9_000, 14_000, 32_000, 60_000])
@pytest.mark.parametrize("make", [_png, _jpeg, _gif, _bmp, _tiff, _webp])
def test_a_header_that_lies_is_refused_before_memory_is_taken(make, side: int, tmp_path: Path) -> None:
    file = tmp_path / "bomb.jpg"
    file.write_bytes(make(side))
    begun = time.process_time()
    for read in (check_image, read_image):
        with pytest.raises(DatasetError, match=r"was not decoded|is not a picture"):
            read(file)
    assert time.process_time() - begun < 1  # decoders that believed it took 7 to 22 seconds and up to 8 GB


def test_a_png_without_pixels(tmp_path: Path) -> None:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IEND", b""))
    with pytest.raises(DatasetError, match="is not a picture"):
        check_image(tmp_path / "a.png")


def test_large_pictures_that_are_meant_are_read(tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    cv2.imwrite(str(file), np.zeros((7000, 9000), np.uint8))  # 63 million pixels of one colour
    assert check_image(file) == (9000, 7000)


# -- the index -----------------------------------------------------------------------------------------------------


def test_faults_out_of_an_index_are_lines(tmp_path: Path) -> None:
    label = LabelFile(faults=("a.txt:1: " + "y" * 10_000,))
    write_index(tmp_path / "a.label-index", ["a.png"], [ImageRecord(None, label, "x\x1b[2J")])
    index = open_index(tmp_path / "a.label-index")
    count, (first, second) = LabelView(index).faults(2)
    assert (count, first) == (2, "x?[2J") and len(second) == 1000


def test_every_error_of_the_project_is_one_line() -> None:
    for kind in ProjectError.__subclasses__():
        assert str(kind("a\nb")) == "a b"
