"""Columns of a data set that look like lists and are a few arrays."""

import gc
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from utils.datasets.columns import PackedImages, PackedOutlines, PackedRows, PackedTexts


@pytest.fixture
def parts():
    return [np.full((count, 5), count, np.float32) for count in (2, 0, 1, 3)]


def test_rows_behave_like_a_list_of_arrays(parts):
    column = PackedRows(parts, width=5)
    assert len(column) == 4
    for found, expected in zip(column, parts, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32
    np.testing.assert_array_equal(column[-1], parts[3])
    np.testing.assert_array_equal(column[np.int64(2)], parts[2])
    assert [len(rows) for rows in column[1:3]] == [0, 1]
    np.testing.assert_array_equal(np.concatenate(column, 0), np.concatenate(parts, 0))
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            column[beyond]
    column[0][:, 0] = 9  # an entry is a view
    assert (column[0][:, 0] == 9).all()


def test_nothing_is_a_column_too():
    assert list(PackedRows([], width=5)) == list(PackedTexts([])) == list(PackedOutlines([])) == []
    assert list(PackedImages(np.zeros((0, 2), int))) == []


def test_texts_keep_every_path():
    texts = ["a/b.jpg", "", "日本/图.png", "broken \udcff.jpg"]
    column = PackedTexts(texts)
    assert list(column) == texts
    assert column.index("日本/图.png") == 2
    assert "nowhere" not in column
    assert column[::2] == texts[::2]


def test_outlines():
    triangle, square, box = np.ones((3, 2), np.float32), np.full((4, 2), 2, np.float32), np.zeros((0, 2), np.float32)
    column = PackedOutlines([[box, triangle], [], [box, box], [square]])
    assert [[len(outline) for outline in image] for image in column] == [[0, 3], [], [], [4]]
    np.testing.assert_array_equal(column[0][1], triangle)
    np.testing.assert_array_equal(column[3][0], square)


def test_images_of_different_sizes():
    sizes = np.array([[2, 3], [1, 4], [5, 1]])
    column = PackedImages(sizes)
    for number, size in enumerate(sizes):
        column[number][...] = np.full((*size, 3), number + 1, np.uint8)
    for number, size in enumerate(sizes):
        assert column[number].shape == (*size, 3)
        assert (column[number] == number + 1).all()


def test_columns_survive_a_start_in_a_fresh_process(parts):
    again = pickle.loads(pickle.dumps(PackedRows(parts, width=5)))
    np.testing.assert_array_equal(again[3], parts[3])


def private_megabytes() -> float:
    """Memory of this process that it shares with nobody."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def look_at_all(columns, answer) -> None:
    """What a worker does in an epoch; sends how much memory it copied by that."""
    gc.freeze()
    before = private_megabytes()
    for column in columns:
        for entry in column:
            len(entry)
    answer.send(private_megabytes() - before)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads what Linux says about memory")
def test_a_worker_that_looks_at_columns_copies_nothing():
    rows = [np.zeros((2, 5), np.float32) for _ in range(100_000)]
    lists = [rows, [f"image {number}.jpg" for number in range(100_000)]]
    packed = [PackedRows(rows, width=5), PackedTexts(lists[1])]
    fork = multiprocessing.get_context("fork")
    copied = []
    for columns in (packed, lists):
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=look_at_all, args=(columns, sender))
        child.start()
        copied.append(receiver.recv())
        child.join()
    assert copied[0] < 2  # MB
    assert copied[1] > 10  # what this is about
