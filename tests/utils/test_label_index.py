"""Building the label index: what is stale, where it cannot be kept, who builds it at the same time, what it is for."""

import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from made_index import assert_equal_records, draw_records, with_header, write_index
from PIL import Image

from utils.datasets.cache import index_path, read_record, scan_images
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.images import list_images
from utils.datasets.index_file import IndexFileError
from utils.datasets.label_index import VERSIONS, LabelIndex, open_index
from utils.datasets.labels import read_label_file, refuse_unknown_classes

BOX = "0 0.5 0.5 0.2 0.4"
NOBODY = 65534


pytestmark = pytest.mark.usefixtures("heard")


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
        LoadImagesAndLabels(index.parents[1] / "images", 32, cache_images="disk")  # nobody may not read our modules
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


@pytest.mark.parametrize("most", [100, 4000, 20_000])
def test_a_disk_that_is_full(tmp_path, most):
    """A limit on the size of files fails a write as a full disk does: within a column, or when they are joined."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    files, records = draw_records(4, 300)
    known = dict(zip(files, records, strict=True))
    place = tmp_path / "train.label-index"

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert_equal_records(scan_images(files, place, quiet=True, read=lambda file: known[file]), records)

    in_child(work)
    assert not list(tmp_path.iterdir())


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


def test_a_fresh_process_maps_the_file_itself(monkeypatch, tmp_path):
    index_file = tmp_path / "some.label-index"
    write_index(index_file, *draw_records(1, 12))
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
