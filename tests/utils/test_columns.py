"""Columns of a data set that look like lists and are a few arrays."""

import gc
import multiprocessing
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from utils.datasets.columns import Column, PackedImages, PackedTexts
from utils.datasets.label_index import ImageRecord, IndexWriter, LabelIndex
from utils.datasets.labels import LabelFile


def index_of(labels: list[np.ndarray]) -> LabelIndex:
    """An index of images with these boxes."""
    records = [
        ImageRecord((9, 9), LabelFile(rows, (np.zeros((0, 2), np.float32),) * len(rows), np.ones(len(rows), np.int32)))
        for rows in labels
    ]
    with IndexWriter(BytesIO) as writer:
        writer.append([f"image {number}.jpg" for number in range(len(records))], records)
        return writer.in_memory()


@pytest.fixture
def parts():
    return [np.full((count, 5), count, np.float32) for count in (2, 0, 1, 3)]


def test_a_column_behaves_like_a_list_in_its_own_order(parts):
    rows = np.array([3, 0, 1, 2])
    column = Column(index_of(parts).labels_of, rows)
    assert len(column) == 4
    for found, row in zip(column, rows, strict=True):
        np.testing.assert_array_equal(found, parts[row])
        assert found.dtype == np.float32
    np.testing.assert_array_equal(column[-1], parts[2])
    np.testing.assert_array_equal(column[np.int64(1)], parts[0])
    assert [len(entry) for entry in column[1:3]] == [2, 0]
    np.testing.assert_array_equal(np.concatenate(column, 0), np.concatenate([parts[row] for row in rows], 0))
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            column[beyond]


def test_nothing_is_a_column_too():
    assert list(Column(index_of([]).labels_of, np.arange(0))) == list(PackedTexts([])) == []
    assert list(PackedImages(np.zeros((0, 2), int))) == []


def test_texts_keep_every_path():
    texts = ["a/b.jpg", "", "日本/图.png", "broken \udcff.jpg"]
    column = PackedTexts(texts)
    assert list(column) == texts
    assert column.index("日本/图.png") == 2
    assert "nowhere" not in column
    assert column[::2] == texts[::2]
    assert column.same(PackedTexts(iter(texts)))
    assert not column.same(PackedTexts(["a/b.jp", "g", *texts[2:]]))
    assert not column.same(PackedTexts(texts[:3]))


def test_images_of_different_sizes():
    sizes = np.array([[2, 3], [1, 4], [5, 1]])
    column = PackedImages(sizes)
    for number, size in enumerate(sizes):
        column[number][...] = np.full((*size, 3), number + 1, np.uint8)
    for number, size in enumerate(sizes):
        assert column[number].shape == (*size, 3)
        assert (column[number] == number + 1).all()


def test_columns_survive_a_start_in_a_fresh_process(parts):
    again = pickle.loads(pickle.dumps(Column(index_of(parts).labels_of, np.arange(4))))
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
    rows = [np.zeros((2, 5), np.float32) for _ in range(50_000)]
    lists = [rows, [f"image {number}.jpg" for number in range(50_000)]]
    index, order = index_of(rows), np.arange(50_000)
    packed = [Column(index.labels_of, order), Column(index.image_file, order)]
    fork = multiprocessing.get_context("fork")
    copied = []
    for columns in (packed, lists):
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=look_at_all, args=(columns, sender))
        child.start()
        copied.append(receiver.recv())
        child.join()
    assert copied[0] < 1  # MB
    assert copied[1] > 5  # what this is about
