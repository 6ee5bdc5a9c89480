"""The file of the label index: what comes back, and what is damaged."""

import json
import os
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_index import PREFIX, assert_equal_records, draw_records, with_header, write_index

from utils.datasets.index_file import COLUMNS, ColumnWriter, IndexFileError, StoredColumns
from utils.datasets.label_index import VERSIONS, open_index


@pytest.fixture
def index_file(tmp_path) -> Path:
    """An index with something in every column."""
    path = tmp_path / "some.label-index"
    write_index(path, *draw_records(1, 12))
    assert all(len(StoredColumns(path.read_bytes(), "")[name]) for name in COLUMNS)
    return path


# -- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_what_is_written_comes_back(tmp_path, count):
    for seed in range(5):
        files, records = draw_records(seed, count)
        path = tmp_path / f"{seed}.label-index"
        write_index(path, files, records, block=seed + 1)
        index = open_index(path)
        assert list(index.image_files) == files
        assert_equal_records(index, records)
        assert_equal_records(index[1:3], records[1:3])
        assert index.versions == VERSIONS
        for row, record in enumerate(records):
            np.testing.assert_array_equal(index.labels_of(row), record.label.labels)
            plain = not any(map(len, record.label.polygons))
            assert list(map(len, index.outlines_of(row))) == ([] if plain else list(map(len, record.label.polygons)))


def test_blocks_leave_no_trace(tmp_path):
    files, records = draw_records(0, 40)
    contents = {write_index(tmp_path / "one", files, records, block) for block in (1, 7, 40, 100)}
    assert len(contents) == 1


def test_the_file_is_numbers_in_aligned_columns(index_file):
    content = index_file.read_bytes()
    word, file_format, length, header_sum = PREFIX.unpack_from(content)
    header = content[PREFIX.size : PREFIX.size + length]
    assert (word, file_format, header_sum) == (b"LABELIDX", 2, zlib.crc32(header))
    assert set(json.loads(header)) == {"versions", "columns"}
    index = open_index(index_file)
    assert not index.labels.flags.writeable
    address = np.asarray(index.labels).__array_interface__["data"][0]
    assert address % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        index.labels_of(0)[...] = 0


# -- damage --------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_seen_or_means_nothing(index_file):
    content = index_file.read_bytes()
    whole = StoredColumns(content, "")
    rng = np.random.default_rng(0)
    unseen = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            found = StoredColumns(bytes(damaged), "")
        except IndexFileError as error:
            assert "damaged label index" in str(error)
            continue
        unseen += 1  # between two columns
        assert all((found[name] == whole[name]).all() for name in COLUMNS)
    assert unseen < 64 * len(COLUMNS)


def test_every_cut_is_seen(index_file):
    content = index_file.read_bytes()
    for length in [*range(0, 200), *range(200, len(content), 37), len(content) - 1]:
        with pytest.raises(IndexFileError):
            StoredColumns(content[:length], "")
    with pytest.raises(IndexFileError, match="bytes, expected"):
        StoredColumns(content + b"\0", "")


def test_noise_is_no_index(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "noise"
    for length in (0, 1, 19, 20, 500, 5000):
        for start in (b"", b"LABELIDX", PREFIX.pack(b"LABELIDX", 2, min(length, 99), 0)):
            path.write_bytes((start + rng.bytes(length))[: max(length, len(start))])
            with pytest.raises(IndexFileError):
                open_index(path)


def changed(column: str, part: int, value):
    def change(header):
        header["columns"][column][part] = value
        return header

    return change


@pytest.mark.parametrize("value", [2**31, 2**62, 10**3000, -1, 1.5, "9", None, True, [1], {}])
@pytest.mark.parametrize("column", ["path_starts", "labels", "fault_bytes"])
@pytest.mark.parametrize("part", [0, 1])
def test_headers_that_lie(index_file, column, part, value):
    index_file.write_bytes(with_header(index_file.read_bytes(), changed(column, part, value)))
    with pytest.raises(IndexFileError, match="damaged label index") as caught:
        open_index(index_file)
    assert len(str(caught.value)) < len(str(index_file)) + 250


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 9000,
        b'{"columns": []}',
        b'{"columns": {}, "versions": []}',
        b"1e999",
    ],
)
def test_headers_that_are_none(index_file, header):
    index_file.write_bytes(with_header(index_file.read_bytes(), lambda _: header))
    with pytest.raises(IndexFileError):
        open_index(index_file)


def test_the_header_helper_changes_nothing_else(index_file):
    content = index_file.read_bytes()
    assert with_header(content, lambda header: header) == content


IMPOSSIBLE = {
    "no starts": ("path_starts", lambda values: values[:0]),
    "starts that fall": ("label_starts", lambda values: np.append(values[:-2], [99, values[-1]])),
    "starts that begin late": ("corner_starts", lambda values: values + 1),
    "starts that end late": ("fault_starts", lambda values: np.append(values[:-1], 2**40)),
    "negative starts": ("path_starts", lambda values: np.append([0, -8], values[2:])),
    "fewer states": ("states", lambda values: values[1:]),
    "more lines": ("lines", lambda values: np.append(values, 1)),
    "a label less": ("labels", lambda values: values[1:]),
    "a size of one side": ("sizes", lambda values: np.where(values > 0, [0, 5], values)),
    "negative sizes": ("sizes", lambda values: -values),
    "a class that is no number": ("labels", lambda values: values * [[np.nan, 1, 1, 1, 1]]),
    "a negative class": ("labels", lambda values: values - [[9, 0, 0, 0, 0]]),
    "half a class": ("labels", lambda values: np.add(values, [[0.5, 0, 0, 0, 0]])),
    "boxes outside": ("labels", lambda values: values * [[1, 9, 9, 9, 9]]),
    "boxes that are no numbers": ("labels", lambda values: values * [[1, np.nan, 1, 1, 1]]),
    "corners outside": ("points", lambda values: values + np.inf),
    "line 0": ("lines", lambda values: values - values),
    "faults of other images": ("fault_rows", lambda values: values + 10**9),
    "faults out of order": ("fault_rows", lambda values: values[::-1]),
    "a fault without line": ("fault_lines", lambda values: values[1:]),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_columns_that_no_scan_can_have_found(index_file, what):
    column, change = IMPOSSIBLE[what]
    stored = StoredColumns(index_file.read_bytes(), "")
    with ColumnWriter(BytesIO) as writer, index_file.open("wb") as stream:
        for name in COLUMNS:
            values = np.asarray(stored[name])
            writer.append(name, change(values) if name == column else values)
        writer.save(stream, VERSIONS)
    with pytest.raises(IndexFileError, match="damaged label index"):
        open_index(index_file)


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "gone", tmp_path, tmp_path / "pipe", "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(IndexFileError):
            open_index(path)
