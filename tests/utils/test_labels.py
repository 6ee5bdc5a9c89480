"""Label files line by line, and the index that keeps what was read."""

import os
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from PIL import Image

from utils.datasets.images import check_image, exif_size, img2label_paths, list_images
from utils.datasets.labels import fault_line, parse_labels, read_label_file, refuse_unknown_classes
from utils.errors import DatasetError
from utils.image_io import read_image

BOX = "0 0.5 0.5 0.2 0.4"


pytestmark = pytest.mark.usefixtures("heard")


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\r\n"])
def test_empty_file_is_a_background(text):
    label = parse_labels(text, "a.txt")
    assert label.labels.shape == (0, 5)
    assert label.labels.dtype == np.float32
    assert label.polygons == ()
    assert label.faults == ()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (BOX, [[0, 0.5, 0.5, 0.2, 0.4]]),
        ("2.0 0 1 0.5 1e-1", [[2, 0, 1, 0.5, 0.1]]),
        (f"\ufeff{BOX}", [[0, 0.5, 0.5, 0.2, 0.4]]),
        (f"{BOX}\r\n1 0.1 0.1 0.1 0.1\r\n", [[0, 0.5, 0.5, 0.2, 0.4], [1, 0.1, 0.1, 0.1, 0.1]]),
        (f"{BOX}\r1 0.1 0.1 0.1 0.1", [[0, 0.5, 0.5, 0.2, 0.4], [1, 0.1, 0.1, 0.1, 0.1]]),
        ("3 0.1 0.2 0.5 0.2 0.3 0.8", [[3, 0.3, 0.5, 0.4, 0.6]]),  # a triangle
        (f"{BOX}\n3 0.1 0.2 0.5 0.2 0.3 0.8", [[0, 0.5, 0.5, 0.2, 0.4], [3, 0.3, 0.5, 0.4, 0.6]]),
    ],
)
def test_good_lines(text, rows, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode())
    label = read_label_file(file)
    np.testing.assert_allclose(label.labels, rows, atol=1e-6)
    assert label.faults == ()
    assert len(label.polygons) == len(label.lines) == len(rows)


def test_boxes_have_no_outline_and_polygons_keep_theirs():
    label = parse_labels(f"{BOX}\n3 0.1 0.2 0.5 0.2 0.3 0.8", "a.txt")
    assert label.polygons[0].shape == (0, 2)
    np.testing.assert_allclose(label.polygons[1], [[0.1, 0.2], [0.5, 0.2], [0.3, 0.8]])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2", "4 values"),
        ("0 0.1 0.1 0.2 0.2 0.3", "6 values"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 values"),
        ("0 -0.1 0.5 0.2 0.4", "-0.1 is outside"),
        ("0 0.5 1.01 0.2 0.4", "1.01 is outside"),
        ("0 0.1 0.1 0.2 0.2 0.3 1.5", "1.5 is outside"),
        ("0 nan 0.5 0.2 0.4", "'nan' is not a finite"),
        ("0 0.5 inf 0.2 0.4", "'inf' is not a finite"),
        ("0 0.5 x 0.2 0.4", "'x' is not a number"),
        ("0,0.5,0.5,0.2,0.4", "1 values"),
        ("person 0.5 0.5 0.2 0.4", "'person' is not a number"),
        ("0.5 0.5 0.5 0.2 0.4", "class 0.5"),
        ("-1 0.5 0.5 0.2 0.4", "class -1"),
    ],
)
def test_bad_line_is_named_and_the_others_stay(line, words):
    label = parse_labels(f"{BOX}\n\n{line}\n1 0.1 0.1 0.1 0.1", "dir/a.txt")
    np.testing.assert_array_equal(label.labels[:, 0], [0, 1])
    np.testing.assert_array_equal(label.lines, [1, 4])
    (fault,) = label.faults
    assert fault.startswith("dir/a.txt:3: ")
    assert words in fault


def test_duplicates_are_dropped_with_a_note():
    label = parse_labels(f"{BOX}\n1 0.5 0.5 0.2 0.4\n0 0.50 0.5 0.2 0.4", "a.txt")
    np.testing.assert_array_equal(label.labels[:, 0], [0, 1])
    assert label.faults == ("a.txt:3: repeats line 1",)


def test_unknown_classes_are_reported_by_line():
    label = parse_labels(f"\n{BOX}\n5 0.1 0.1 0.1 0.1\n2 0.1 0.1 0.1 0.1", "a.txt")
    assert refuse_unknown_classes(label, 6, "a.txt") is label
    known = refuse_unknown_classes(label, 3, "a.txt")
    np.testing.assert_array_equal(known.labels[:, 0], [0, 2])
    assert known.faults == ("a.txt:3: class 5 is not below the data set's class count 3",)


def test_faults_are_in_the_order_of_the_lines():
    label = parse_labels(f"9 0.1 0.1 0.1 0.1\nbad\n{BOX}\n" + "8 0.2 0.2 0.1 0.1\nbad\n" * 5, "dir:1/a.txt")
    known = refuse_unknown_classes(label, 3, "dir:1/a.txt")
    assert [fault.split(":")[2] for fault in known.faults] == [str(line) for line in range(1, 14) if line != 3]


def test_pipes_sockets_and_devices_are_faults_that_nobody_waits_for(tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for file in (labels / "a.txt", tmp_path / "a.png"):
        os.mkfifo(file)
    with ThreadPool(1) as pool:  # a timeout ends the wait, where a reader would hang
        label = pool.apply_async(read_label_file, [labels / "a.txt"]).get(timeout=30)
        assert label.faults == (f"{labels}/a.txt:1: cannot be read (is a named pipe)",)
        for file, kind in ((tmp_path / "a.png", "a named pipe"), ("/dev/zero", "a device")):
            with pytest.raises(DatasetError, match=f"^{file}: is {kind}, expected a picture's file$"):
                pool.apply_async(check_image, [file]).get(timeout=30)


@pytest.mark.parametrize(
    ("fault", "line"),
    [("d:1/a.txt:12: bad", 12), ("all.json: annotation 7: bad", 1), ("d:1/a.txt:0: bad", 1), ("9" * 5000 + ":", 1)],
)
def test_the_line_of_a_fault(fault, line):
    assert fault_line(fault, "d:1/a.txt") == line


def test_undecodable_bytes_are_a_fault(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"0 0.5 0.5 0.2 0.4\n\xff\xfe\x00 1\n")
    label = read_label_file(file)
    assert len(label.labels) == 1
    assert len(label.faults) == 1
    assert len(read_label_file(tmp_path / "missing.txt").labels) == 0


# -- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("images/a.b.png", "labels/a.b.txt"),
        ("/images/x/images/y.jpg", "/images/x/labels/y.txt"),  # the last one counts
        ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
        ("/d/myimages/a.jpg", "/d/myimages/a.txt"),
    ],
)
def test_label_path(image, label):
    assert img2label_paths([image]) == [label]


def save(path, size=(32, 24), **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **kwargs)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_turns_width_and_height(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(tmp_path / f"a.{suffix}", exif=exif)
    if suffix != "tif":  # Pillow has turned these itself
        with Image.open(file) as image:
            assert exif_size(image) == (24, 32)
    height, width = read_image(file).shape[:2]
    assert check_image(file) == (width, height)  # whatever the decoder makes of it
    if suffix == "jpg":
        assert (width, height) == (24, 32)


def test_bad_images_are_refused_and_left_alone(tmp_path):
    small, cut, text = save(tmp_path / "small.png", (32, 9)), save(tmp_path / "cut.jpg"), tmp_path / "text.jpg"
    content = cut.read_bytes()[:-200]
    cut.write_bytes(content)
    text.write_text("no image")
    for file, words in ((small, "10 px"), (cut, "cut"), (text, "text.jpg"), (tmp_path / "gone.jpg", "gone.jpg")):
        with pytest.raises(DatasetError, match=words):
            check_image(file)
    assert cut.read_bytes() == content


def test_images_of_a_folder_are_in_the_order_of_their_paths(tmp_path):
    for folder in ("", "a", "a-b", "a.jpg", "a!", "a/a", "a/a-", "B", "\u65e5"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("a.png", "a-b.png", "a.jpg.png", "0.bmp", ".hidden.png", "notes.md"):
            (tmp_path / folder / name).touch()
    found = list_images(tmp_path)
    assert len(found) == 9 * 4
    assert found == sorted(found)


def test_list_images(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="neither"):
        list_images(tmp_path / "images")
    files = [save(tmp_path / "images" / name) for name in ("b.JPG", "a/c.png", "a/b/d.bmp")]
    (tmp_path / "images" / "notes.txt").write_text("")
    (tmp_path / "images" / "a" / "loop").symlink_to(tmp_path / "images")
    assert sorted(list_images(tmp_path / "images")) == sorted(map(str, files))
    listing = tmp_path / "train.txt"
    listing.write_text("\ufeff./images/a/c.png\n\nimages/b.JPG\nimages/readme.md\n" + str(files[2]) + "\n", "utf-8")
    expected = [str(tmp_path / name) for name in ("images/a/c.png", "images/b.JPG", "images/a/b/d.bmp")]
    assert list_images(str(listing)) == expected
    monkeypatch.chdir(tmp_path)
    assert list_images(listing) == [expected[0], "images/b.JPG", expected[2]]  # from the current folder first
    listing.write_bytes(b"./images/a/c.png\n./images/a\0.png\n")
    assert list_images(listing) == expected[:1]
    monkeypatch.chdir(tmp_path / "images")
    assert list_images(".") == ["a/b/d.bmp", "a/c.png", "b.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image found"):
        list_images([tmp_path / "empty"])
