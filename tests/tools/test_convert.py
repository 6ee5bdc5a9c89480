"""PASCAL VOC to this project's format, on a tiny set."""

import cv2
import numpy as np
import pytest

from tools.convert import convert_voc, main, normalise, read_voc
from utils.datasets.config import check_dataset
from utils.datasets.detection import LoadImagesAndLabels
from utils.errors import DatasetError


def annotation(*objects, extra=""):
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box, difficult in objects
    ]
    return f'<?xml version="1.0"?>{extra}<annotation>{"".join(parts)}</annotation>'


@pytest.fixture
def voc(tmp_path):
    source = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (source / folder).mkdir(parents=True)
    texts = {
        "a": annotation(("dog", (10, 20, 50, 60), 0), ("cat", (0, 0, 100, 80), 0)),
        "b": annotation(("dog", (90, 70, 130, 100), 0), ("cat", (1, 1, 9, 9), 1), ("dog", (5, 5, 5, 9), 0)),
        "c": annotation(),
    }
    for name, text in texts.items():
        (source / "Annotations" / f"{name}.xml").write_text(text)
        cv2.imwrite(str(source / "JPEGImages" / f"{name}.jpg"), np.zeros((80, 100, 3), np.uint8))
    (source / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (source / "ImageSets/Main/val.txt").write_text("c\n")
    return source


def test_file_without_objects(voc):
    assert read_voc(voc / "Annotations" / "c.xml") == []


@pytest.mark.parametrize(
    ("corners", "one_based", "expected"),
    [
        ((10, 20, 50, 60), False, (0.3, 0.5, 0.4, 0.5)),
        ((11, 21, 50, 60), True, (0.3, 0.5, 0.4, 0.5)),
        ((-5, 0, 300, 80), False, (0.5, 0.5, 1, 1)),
        ((1, 1, 100, 80), True, (0.5, 0.5, 1, 1)),
        ((50, 20, 10, 60), False, None),
        ((100, 20, 120, 60), False, None),
    ],
)
def test_normalise(corners, one_based, expected):
    box = normalise(corners, (100, 80), one_based)
    if expected is None:
        assert box is None
    else:
        np.testing.assert_allclose(box, expected)


@pytest.mark.parametrize("link", [False, True])
def test_round_trip(voc, tmp_path, link, capsys):
    file = convert_voc(voc, tmp_path / "out", link=link)
    assert "b.xml: object 3 (dog) is empty or outside" in capsys.readouterr().out
    data = check_dataset(file)
    assert data["names"] == {0: "cat", 1: "dog"}  # by name
    train, val = (LoadImagesAndLabels(data[split], 64) for split in ("train", "val"))
    assert val.n == 1
    assert len(val.labels[0]) == 0
    np.testing.assert_allclose(train.labels[0], [[1, 0.3, 0.5, 0.4, 0.5], [0, 0.5, 0.5, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(train.labels[1], [[1, 0.95, 0.9375, 0.1, 0.125]], atol=1e-6)  # cut; no difficult one
    assert (tmp_path / "out/images/train/a.jpg").is_symlink() == link
    with pytest.raises(DatasetError, match="not an empty folder"):
        convert_voc(voc, tmp_path / "out")


def test_names_in_a_given_order_and_difficult_ones(voc, tmp_path):
    convert_voc(voc, tmp_path / "out", names=["dog", "bird", "cat"], difficult=True)
    rows = (tmp_path / "out/labels/train/b.txt").read_text().splitlines()
    assert [row.split()[0] for row in rows] == ["0", "2"]
    with pytest.raises(DatasetError, match="include dog"):
        convert_voc(voc, tmp_path / "other", names=["cat"])
    assert not (tmp_path / "other").exists()


def test_without_lists_everything_trains(voc, tmp_path):
    for file in (voc / "ImageSets/Main").iterdir():
        file.unlink()
    data = check_dataset(convert_voc(voc, tmp_path / "out"))
    assert data["train"] == data["val"]
    assert LoadImagesAndLabels(data["train"], 64).n == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid XML"),
        ("<annotation><object>", "not valid XML"),
        (annotation(("dog", (1, 2, "x", 4), 0)), "object 1 needs"),
        (annotation(("dog", (1, 2, "nan", 4), 0)), "object 1 needs"),
        (annotation(("", (1, 2, 3, 4), 0)), "object 1 needs"),
        ("<annotation><object><name>dog</name></object></annotation>", "object 1 needs"),
        (annotation(extra='<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'), "document type definition"),
        (annotation(extra='<!DOCTYPE a SYSTEM "file:///etc/passwd">'), "document type definition"),
    ],
)
def test_bad_annotation_is_named_and_nothing_written(voc, tmp_path, text, words):
    (voc / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(DatasetError, match=rf"b\.xml: .*{words}"):
        convert_voc(voc, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_files_are_named(voc, tmp_path):
    (voc / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"a\.xml: its image"):
        convert_voc(voc, tmp_path / "out")
    with pytest.raises(DatasetError, match="JPEGImages"):
        convert_voc(tmp_path / "nowhere", tmp_path / "out")


def test_command_line(voc, tmp_path, capsys):
    assert main(["voc", str(voc), str(tmp_path / "out"), "--link", "--names", "dog, cat", "--one-based"]) == 0
    assert "classes dog, cat" in capsys.readouterr().out
    assert main(["voc", str(voc), str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["voc", str(voc), str(tmp_path / "new"), "--copy", "--link"])
