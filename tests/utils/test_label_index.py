"""The file of the label index: what comes back, what is damaged, what is stale, who builds it at the same time."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import tempfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.datasets.cache import index_path, read_record, scan_images
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.images import list_images
from utils.datasets.index_file import COLUMNS, ColumnWriter, IndexFileError, StoredColumns
from utils.datasets.label_index import VERSIONS, ImageRecord, IndexWriter, LabelIndex, open_index
from utils.datasets.labels import LabelFile, read_label_file, refuse_unknown_classes
from utils.log import LOGGER

BOX = "0 0.5 0.5 0.2 0.4"
PREFIX = struct.Struct("<8sIII")
NOBODY = 65534


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """Messages reach caplog even after a command has set up its own logging."""
    monkeypatch.setattr(LOGGER, "propagate", True)


def assert_equal_records(first, second):
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
    rng = np.random.default_rng(seed)
    names = ["plain", "日本", "two words", "broken \udcff", "a.b"]
    files = [f"/data/images/{rng.choice(names)}/{number}.png" for number in range(count)]
    return files, [draw_record(rng, file) for file in files]


def write_index(path: Path, files: list[str], records: list[ImageRecord], block: int = 7) -> bytes:
    with IndexWriter(tempfile.TemporaryFile) as writer, path.open("wb") as stream:
        for start in range(0, len(files), block):
            writer.append(files[start : start + block], records[start : start + block])
        writer.save(stream)
    return path.read_bytes()


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


def with_header(content: bytes, change) -> bytes:
    """An index file whose header says something else, with its checksum put right."""
    _, file_format, length, _ = PREFIX.unpack_from(content)
    header = change(json.loads(content[PREFIX.size : PREFIX.size + length]))
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    columns = content[PREFIX.size + length :].lstrip(b"\0")
    start = PREFIX.pack(b"LABELIDX", file_format, len(data), zlib.crc32(data)) + data
    return start + bytes(-len(start) % 64) + bytes(8) + columns  # the first column begins with a zero


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


# -- building ------------------------------------------------------------------------------------------------------


def save(path, size=(32, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def split(tmp_path):
    """Three images: one with a box and a polygon, a background, and one that cannot be read."""
    images = [save(tmp_path / "images" / "train" / f"{name}.png") for name in "ab"]
    (tmp_path / "images" / "train" / "c.png").write_text("broken")
    folder = tmp_path / "labels" / "train"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(f"{BOX}\n3 0.1 0.2 0.5 0.2 0.3 0.8\nbad line\n")
    return [*map(str, images), str(tmp_path / "images" / "train" / "c.png")], index_path(tmp_path / "images" / "train")


def never(image_file):
    raise AssertionError(f"{image_file} was read again")


def test_a_valid_index_is_taken(split, caplog):
    files, index = split
    caplog.set_level("INFO")
    assert index.name == "train.label-index"
    assert index.parent.name == "labels"
    first = scan_images(files, index)
    assert [record.size_wh for record in first] == [(32, 24), (32, 24), None]
    assert [record.states[2] > 0 for record in first] == [True, False, False]
    assert_equal_records(first, [read_record(file) for file in files])
    assert_equal_records(scan_images(files, index, read=never), first)
    assert caplog.text == ""
    assert sorted(path.name for path in index.parent.iterdir()) == ["train", "train.label-index"]


def test_the_place_of_an_index(split, tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    assert index_path(tmp_path / "plain") == tmp_path / "plain.label-index"
    assert index_path(tmp_path / "train.txt") == tmp_path / "train.label-index"
    assert index_path(tmp_path / "images" / "train") == split[1]
    monkeypatch.chdir(tmp_path / "images" / "train")
    assert index_path(".") == split[1]
    assert index_path("/") == Path("/.label-index")


def test_an_index_of_before_is_left_alone(split):
    files, index = split
    before = index.with_name("train.index.npz")
    np.savez(before, fingerprint=np.array("x"))
    content = before.read_bytes()
    assert len(scan_images(files, index)) == 3
    assert before.read_bytes() == content


@pytest.mark.parametrize("damage", ["garbage", "cut", "empty", "flipped", "npz"])
def test_damaged_index_is_built_again(split, damage, caplog):
    files, index = split
    first = scan_images(files, index)
    whole = index.read_bytes()
    if damage == "npz":
        np.savez(index.with_suffix(".npz"), fingerprint=np.array("x"))
        index.with_suffix(".npz").replace(index)
    else:
        flipped = whole[:-1] + bytes([whole[-1] ^ 4])
        contents = {"garbage": b"x" * 500, "cut": whole[: len(whole) // 2], "empty": b"", "flipped": flipped}
        shutil.copy(index, index.with_suffix(".mapped"))  # an index is never written into while it is mapped
        index.unlink()
        index.write_bytes(contents[damage])
    assert_equal_records(scan_images(files, index), first)
    assert "damaged label index" in caplog.text
    assert "it is built again" in caplog.text
    assert index.read_bytes() == whole


CHANGES = {
    "edit": "1 label file changed",
    "same size": "1 label file changed",
    "add": "1 label file changed",
    "remove": "1 label file changed",
    "image": "1 image changed",
    "both": "1 image and 1 label file changed",
    "fewer": "(3 then, 1 now)",
    "order": "(3 then, 3 now)",
    "parser": "another version",
}


@pytest.mark.parametrize("change", CHANGES)
def test_stale_index_is_built_again(split, change, caplog):
    files, index = split
    caplog.set_level("INFO")
    scan_images(files, index)
    label = index.parent / "train" / "a.txt"
    if change in ("edit", "both"):
        label.write_text("1 0.1 0.1 0.1 0.1\n")
    elif change == "same size":
        before = label.stat()
        label.write_text(label.read_text().replace("0 0.5", "4 0.5", 1))
        os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "add":
        (index.parent / "train" / "b.txt").write_text(BOX)
    elif change == "remove":
        label.unlink()
    elif change == "parser":
        older = with_header(index.read_bytes(), lambda header: {**header, "versions": {**VERSIONS, "labels": 0}})
        index.unlink()
        index.write_bytes(older)
        assert open_index(index).versions["labels"] == 0
    else:
        files = {"fewer": files[:1], "order": files[::-1]}.get(change, files)
    if change in ("image", "both"):
        save(Path(files[1]), (40, 30))
    expected = scan_images(files, None)
    assert_equal_records(scan_images(files, index), expected)
    assert "the label index is built again" in caplog.text
    assert CHANGES[change] in caplog.text
    caplog.clear()
    assert_equal_records(scan_images(files, index, read=never), expected)
    assert caplog.text == ""


def test_times_beyond_64_bits(split):
    files, index = split
    os.utime(files[0], ns=(0, 2**63 + 5))
    first = scan_images(files, index)
    assert_equal_records(scan_images(files, index, read=never), first)


@pytest.mark.parametrize("place", ["no such folder/x", "labels/train/a.txt/x", "/proc/x", "labels/train"])
def test_folder_that_cannot_be_written(split, place, tmp_path, caplog):
    files, _ = split
    caplog.set_level("INFO")
    expected = scan_images(files, None)
    found = scan_images(files, tmp_path / place)
    assert_equal_records(found, expected)
    assert "not kept" in caplog.text
    assert_equal_records(pickle.loads(pickle.dumps(found)), expected)


def in_child(work) -> None:
    """Do something in a forked process; its failure is one here."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.skipif(os.name != "posix", reason="permission bits of POSIX")
def test_a_read_only_data_folder(split):
    """Permission bits do not bind root, who becomes somebody else for it."""
    _, index = split
    root = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(index.parents[1], root, dirs_exist_ok=True)
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o555)

        def work():
            if os.getuid() == 0:
                os.setuid(NOBODY)
            own = list_images(root / "images")
            place = index_path(root / "images" / "train")
            with pytest.raises(OSError, match=r"Permission|Read-only"):
                place.touch()
            found = scan_images(own, place)
            assert [record.size_wh for record in found] == [(32, 24), (32, 24), None]
            assert len(found[0].label.labels) == 2
            assert len(LoadImagesAndLabels(root / "images", 32, cache_images="disk")[0][1]) == 2

        in_child(work)
        assert not [path for path in root.rglob("*") if path.is_file() and path.suffix not in (".png", ".txt")]
    finally:
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        shutil.rmtree(root)


# -- several processes ---------------------------------------------------------------------------------------------


def test_two_processes_at_once_do_not_harm_each_other(tmp_path):
    files, records = draw_records(2, 60)
    known = dict(zip(files, records, strict=True))
    place = tmp_path / "train.label-index"

    def work():
        for _ in range(15):
            place.unlink(missing_ok=True)
            found = scan_images(files, place, quiet=True, read=lambda file: known[file])
            assert_equal_records(found[::9], records[::9])
            try:
                assert_equal_records(open_index(place)[::9], records[::9])
            except IndexFileError as error:
                assert "no label index" in str(error) or "cannot be read (No such" in str(error)  # removed meanwhile

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert {path.name for path in tmp_path.iterdir()} <= {place.name}


def test_a_process_killed_while_it_builds_leaves_nothing(split):
    files, index = split

    def work():
        scan_images(files, index, quiet=True, read=lambda file: os.kill(os.getpid(), signal.SIGKILL))

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert [path.name for path in index.parent.iterdir()] == ["train"]


def test_a_fresh_process_maps_the_file_itself(index_file, monkeypatch, tmp_path):
    index = open_index(index_file)
    sent = pickle.dumps(index)
    assert len(sent) < 2000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(sent)
    assert_equal_records(again, index)
    assert isinstance(again, LabelIndex)
    write_index(tmp_path / "other", *draw_records(8, 5))
    (tmp_path / "other").replace(index_file)
    assert len(index[3].label.labels) == len(again[3].label.labels)  # what is mapped stays
    with pytest.raises(IndexFileError, match="replaced"):
        pickle.loads(sent)


# -- what a data set makes of it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twenty small images, most with labels of up to five classes, some polygons, some faults."""
    root, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(3)
    (root / "labels" / "train").mkdir(parents=True)
    for number in range(20):
        save(root / "images" / "train" / f"{number}.png", tuple(rng.integers(10, 60, 2).tolist()))
        words = [f"{rng.integers(5)} " + " ".join(map(str, rng.random(rng.choice((4, 4, 6))).round(3)))]
        words += [f"{rng.integers(5)} " + " ".join(map(str, rng.random(4).round(3))) for _ in range(rng.integers(4))]
        words.insert(int(rng.integers(2)), rng.choice(["", "bad", words[0]]))
        if number % 5:
            (root / "labels" / "train" / f"{number}.txt").write_text("\n".join(words))
    (root / "images" / "train" / "cut.png").write_bytes(b"\x89PNG")
    return root / "images" / "train"


@pytest.mark.parametrize("start", ["built", "opened"])
@pytest.mark.parametrize(
    "asked", [{}, {"nc": 3}, {"nc": 1, "min_items": 1}, {"nc": 2, "single_cls": True}, {"rect": True, "nc": 4}]
)
def test_a_data_set_says_what_the_files_say(many, start, asked, caplog):
    caplog.set_level("INFO")
    if start == "built":
        index_path(many).unlink(missing_ok=True)
    dataset = LoadImagesAndLabels(many, 64, 4, **asked)
    expected, faults = {}, [f"{many / 'cut.png'}: "]
    for file in list_images(many):
        name = file.replace("/images/", "/labels/").replace(".png", ".txt")
        label = read_label_file(name)
        if "nc" in asked and not asked.get("single_cls"):
            label = refuse_unknown_classes(label, asked["nc"], name)
        faults += label.faults
        if len(label.labels) >= asked.get("min_items", 0) and "cut" not in file:
            expected[file] = label
    assert sorted(dataset.im_files) == sorted(expected)
    if not asked.get("rect"):
        assert list(dataset.im_files) == list(expected)
    for place, file in enumerate(dataset.im_files):
        label = expected[file]
        np.testing.assert_array_equal(dataset.labels[place][:, 1:], label.labels[:, 1:])
        classes = np.zeros(len(label.labels)) if asked.get("single_cls") else label.labels[:, 0]
        np.testing.assert_array_equal(dataset.labels[place][:, 0], classes)
        assert dataset.labels[place].dtype == np.float32
        outlines = label.polygons if any(map(len, label.polygons)) else ()
        assert len(dataset.segments[place]) == len(outlines)
        for one, two in zip(dataset.segments[place], outlines, strict=True):
            np.testing.assert_array_equal(one, two)
        with Image.open(file) as image:
            assert tuple(dataset.shapes[place]) == image.size
        assert dataset.label_files[place] == file.replace("/images/", "/labels/").replace(".png", ".txt")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == len(faults)
    assert all(text.startswith(fault) for text, fault in zip(said, faults, strict=True))
    objects = sum(len(label.labels) for label in expected.values())
    assert f" {len(faults)} faults" in caplog.text
    assert sum(map(len, dataset.labels)) == objects


def test_a_data_set_is_sent_without_its_labels(many):
    """To workers that are not forked, which map the index themselves."""
    dataset = LoadImagesAndLabels(many, 64, 4, nc=3)
    sent = pickle.dumps(dataset)
    assert len(sent) < 4000
    again = pickle.loads(sent)
    assert list(again.im_files) == list(dataset.im_files)
    for place in range(len(dataset)):
        np.testing.assert_array_equal(again.labels[place], dataset.labels[place])
        np.testing.assert_array_equal(again[place][0], dataset[place][0])
