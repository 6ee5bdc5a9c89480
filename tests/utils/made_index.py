"""Index files of made-up records, sound and otherwise, and comparing records."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np

from utils.datasets.label_index import ImageRecord, IndexWriter
from utils.datasets.labels import LabelFile

PREFIX = struct.Struct("<8sIII")  # of an index file


def assert_equal_records(first, second):
    """Bit for bit."""
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert (one.size_wh, one.fault, one.states) == (two.size_wh, two.fault, two.states)
        assert one.label.faults == two.label.faults
        np.testing.assert_array_equal(one.label.labels, two.label.labels)
        np.testing.assert_array_equal(one.label.lines, two.label.lines)
        assert one.label.labels.dtype == np.float32 and one.label.lines.dtype == np.int32
        for a, b in zip(one.label.polygons, two.label.polygons, strict=True):
            np.testing.assert_array_equal(a, b)


def draw_record(rng: np.random.Generator, image_file: str) -> ImageRecord:
    """A record as a scan could have found it: boxes, polygons, faults, backgrounds, unusable images."""
    count = int(rng.integers(0, 4))
    labels = rng.random((count, 5), np.float32)
    labels[:, 0] = rng.integers(0, 9, count)
    polygons = tuple(rng.random((int(rng.choice((0, 0, 3, 7))), 2), np.float32) for _ in range(count))
    name = image_file.replace("/images/", "/labels/").removesuffix(".png") + ".txt"
    faults = tuple(f"{name}:{line}: wrong 日本" for line in range(1, int(rng.integers(1, 4))))
    states = tuple(rng.integers(-1, 2**60, 4).tolist())
    label = LabelFile(labels, polygons, np.arange(1, count + 1, dtype=np.int32), faults)
    if rng.random() < 0.2:
        return ImageRecord(None, label, f"{image_file}: broken", states)
    return ImageRecord(tuple(rng.integers(1, 9000, 2).tolist()), label, "", states)


def draw_records(seed: int, count: int) -> tuple[list[str], list[ImageRecord]]:
    """As many paths, in all kinds of letters, and a record for each."""
    rng = np.random.default_rng(seed)
    names = ["plain", "日本", "two words", "broken \udcff", "a.b"]
    files = [f"/data/images/{rng.choice(names)}/{number}.png" for number in range(count)]
    return files, [draw_record(rng, file) for file in files]


def write_index(path: Path, files: list[str], records: list[ImageRecord], block: int = 7) -> bytes:
    """Write an index in blocks of so many images; returns the file's content."""
    with IndexWriter(tempfile.TemporaryFile) as writer, path.open("wb") as stream:
        for start in range(0, len(files), block):
            writer.append(files[start : start + block], records[start : start + block])
        writer.save(stream)
    return path.read_bytes()


def with_header(content: bytes, change) -> bytes:
    """An index file whose header says something else, with its checksum put right."""
    _, file_format, length, _ = PREFIX.unpack_from(content)
    header = change(json.loads(content[PREFIX.size : PREFIX.size + length]))
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    columns = content[PREFIX.size + length :].lstrip(b"\0")
    start = PREFIX.pack(b"LABELIDX", file_format, len(data), zlib.crc32(data)) + data
    return start + bytes(-len(start) % 64) + bytes(8) + columns  # the first column begins with a zero
