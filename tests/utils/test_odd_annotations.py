"""Annotation files that lie: each entry that cannot be meant is named, and nothing outside the folders is touched."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from annotated_sets import FLAT, draw, image_entry, instances, object_entry, save_coco
from utils.annotations.checks import inside_name
from utils.annotations.conversion import Conversion, convert
from utils.annotations.record import Annotation
from utils.errors import DatasetError

GOOD = object_entry(1, 139, 18, [10, 20, 40, 40])


def objects_of(source: Path, target: Path, name: str = "coco") -> tuple[list[Annotation], str]:
    """All objects that a conversion finds, and its report."""
    content, report = convert(Conversion(source=source, target=target, source_format=name, images="none"))
    return [one for image in content.images for one in image.annotations], "\n".join(report.lines())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 200_000, "nested too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[]", "is a list, as COCO's results are"),
        ("3", "found a int"),
        ("{}", "expected a list `images`, found none"),
        ('{"images": {}}', "expected a list `images`, found a dict"),
        ('{"images": [], "annotations": []}', "`categories`, found none"),
        ('{"images": [], "annotations": [], "categories": [3]}', "category 1 of the list: expected an object"),
        ('{"images": [], "annotations": [], "categories": [{"id": "x"}]}', "id must be a whole number"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": []}]}', "class name"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "id 1 is also that of 'a'",
        ),
        ('{"images": [], "annotations": [], "categories": []}', "no image to convert"),
    ],
)
def test_file_of_the_wrong_shape_is_an_error_that_names_it(tmp_path, text, words):
    file = tmp_path / "train.json"
    file.write_text(text)
    with pytest.raises(DatasetError) as caught:
        objects_of(file, tmp_path / "out")
    assert str(file) in str(caught.value)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "train.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DatasetError, match="is not UTF-8 text"):
        objects_of(tmp_path / "train.json", tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (3, "annotation 2 of the list: expected an object"),
        (object_entry(8, 4711, 18, [1, 1, 5, 5]), "annotation id 8: no image with id 4711"),
        (object_entry(8, 139, 17, [1, 1, 5, 5]), "annotation id 8: no category with id 17"),
        (object_entry(8, [], 18, [1, 1, 5, 5]), "annotation id 8: image id must be a whole number"),
        (object_entry(8, 139, None, [1, 1, 5, 5]), "annotation id 8: category_id must be a whole number"),
        (object_entry(8, 139, float("nan"), [1, 1, 5, 5]), "category_id must be a whole number"),
        (object_entry(8, 139, 18, [1, 1, -5, 5]), "annotation id 8: bbox is -5 x 5 px: negative"),
        (object_entry(8, 139, 18, [1, 1, 0, 5]), "has no width or no height"),
        (object_entry(8, 139, 18, [float("nan"), 1, 5, 5]), "a number of `bbox` is nan"),
        (object_entry(8, 139, 18, [1, 1, float("inf"), 5]), "a number of `bbox` is inf"),
        (object_entry(8, 139, 18, [1, 1, "5", 5]), "a number of `bbox` is '5'"),
        (object_entry(8, 139, 18, [1, 1, 10**400, 5]), "expected a number within"),
        (object_entry(8, 139, 18, [1, 1, 5]), "expected `bbox` with four numbers"),
        (object_entry(8, 139, 18, {}), "expected `bbox` with four numbers"),
        (object_entry(8, 139, 18, [200, 1, 5, 5]), "is outside the 100x80 px image"),
    ],
)
def test_object_that_cannot_be_meant_is_named(tmp_path, entry, words):
    file = save_coco(tmp_path, instances(annotations=[GOOD, entry]))
    found, said = objects_of(file, tmp_path / "out")
    assert [one.box_xyxy for one in found] == [(10, 20, 50, 60)]
    assert f"{file}: annotation" in said
    assert words in said


@pytest.mark.parametrize(
    ("changes", "box", "words"),
    [
        ({"bbox": [90, 70, 40, 40]}, (90, 70, 100, 80), "beyond the edge of their image: cut"),
        ({"bbox": None, "segmentation": [FLAT]}, (10, 20, 50, 60), ""),
        ({"segmentation": [[1, 2]]}, (10, 20, 50, 60), "outline needs at least three points"),
        ({"segmentation": [["x"] * 6]}, (10, 20, 50, 60), "outline is no list of numbers"),
        ({"segmentation": [[float("nan")] * 6]}, (10, 20, 50, 60), "not finite"),
        ({"segmentation": "none"}, (10, 20, 50, 60), ""),
        ({"segmentation": {"counts": "\ud800", "size": [8, 8]}}, (10, 20, 50, 60), "run-length mask needs"),
        ({"segmentation": {"counts": [1, -1], "size": [8, 8]}}, (10, 20, 50, 60), "run-length mask needs"),
        ({"segmentation": {"counts": [63], "size": [8, 8]}}, (10, 20, 50, 60), "that fit together"),
        ({"segmentation": {"counts": [1], "size": 8}}, (10, 20, 50, 60), "run-length mask needs"),
        ({"area": float("nan")}, (10, 20, 50, 60), "areas that cannot be meant"),
        ({"area": -1}, (10, 20, 50, 60), "areas that cannot be meant"),
        ({"area": 10**400}, (10, 20, 50, 60), "areas that cannot be meant"),
    ],
)
def test_object_of_which_something_can_be_meant(tmp_path, changes, box, words):
    (one,), said = objects_of(save_coco(tmp_path, instances(annotations=[{**GOOD, **changes}])), tmp_path / "out")
    assert one.box_xyxy == box
    assert words in said
    assert 0 < one.effective_area <= 1600


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret.png", "leads out of the folder of images"),
        ("a/../../secret.png", "leads out of the folder of images"),
        ("..\\secret.png", "leads out of the folder of images"),
        ("/etc/passwd", "leads out of the folder of images"),
        ("C:\\secret.png", "leads out of the folder of images"),
        ("", "expected a text"),
        (".", "leads out of the folder of images"),
        (None, "expected a text"),
        ("a\n.png", "cannot be used"),
        ("a\0.png", "cannot be used"),
        ("\ud800.png", "cannot be used"),
        ("x" * 5000, "cannot be used"),
        ("x" * 250 + ".png", "cannot be used"),
        ("000000000007.png", "the same file name"),
    ],
)
def test_image_that_cannot_be_meant_is_named(tmp_path, name, words):
    root = tmp_path / "set"
    draw(tmp_path / "secret.png")
    draw(root / "secret.png")
    images = [*instances()["images"], {**image_entry(3, "x"), "file_name": name}]
    file = save_coco(root, instances(images=images))
    content, report = convert(Conversion(source=file, target=tmp_path / "out", source_format="coco"))
    assert len(content.images) == 2
    said = "\n".join(report.lines())
    assert f"{file}: image id 3: " in said
    assert words in said
    assert "secret.png" not in {path.name for path in (tmp_path / "out").rglob("*")}


def test_images_of_a_kind_that_training_does_not_read(tmp_path):
    file = save_coco(tmp_path, instances(images=[*instances()["images"], image_entry(3, "a.gif")]))
    draw(tmp_path / "a.png").rename(tmp_path / "images" / "train" / "a.gif")
    content, report = convert(Conversion(source=file, target=tmp_path / "out", source_format="coco"))
    assert len(content.images) == 2
    assert "a.gif: images end in bmp" in "\n".join(report.lines())


@pytest.mark.parametrize("name", ["a.png", "图/犬 1.png", "a\\b.png", "./a.png", "at 3\u202fPM.png", "👩\u200d🌾.png"])
def test_names_below_the_folder(name):
    assert inside_name(name) == name.replace("\\", "/").removeprefix("./")


def test_ids_and_images_without_a_size(tmp_path):
    images = [image_entry(139, "000000000139.png"), {"id": 7, "file_name": "gone.png", "width": -1, "height": "x"}]
    images += [image_entry(139, "000000000007.png"), {"file_name": "a.png"}, image_entry(True, "b.png")]
    file = save_coco(tmp_path, instances(images=images))
    found, said = objects_of(file, tmp_path / "out")
    assert len(found) == 3
    assert "image id 7: " in said.partition("images whose file is missing: left out")[2]
    for words in ("image id 139: an earlier image has the same id", "image 4 of the list", "image 5 of the list"):
        assert words in said


def test_size_that_the_file_does_not_have(tmp_path):
    file = save_coco(tmp_path, instances(images=[image_entry(139, "000000000139.png", width=1000)]))
    content, report = convert(Conversion(source=file, target=tmp_path / "out", source_format="coco"))
    assert content.images[0].size_wh == (100, 80)
    assert "declared 1000x80 px" in "\n".join(report.lines())


def test_two_categories_of_one_name(tmp_path):
    categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "dog"}, {"id": 18, "name": "dog "}]
    file = save_coco(tmp_path, instances(categories=categories, annotations=[GOOD]))
    content, report = convert(Conversion(source=file, target=tmp_path / "out", source_format="coco"))
    assert [(one.name, one.category_id) for one in content.categories] == [("dog", 1)]
    assert report.counts["categories that share their name with another: taken as one"] == 2


def test_two_files_of_one_split_and_numbers_that_meet(tmp_path):
    save_coco(tmp_path)
    other = instances(categories=[{"id": 1, "name": "cat"}], annotations=[])
    save_coco(tmp_path, other, split="val")
    content, report = convert(Conversion(source=tmp_path, target=tmp_path / "out", source_format="coco"))
    assert [(one.name, one.category_id) for one in content.categories] == [
        ("person", 1), ("dog", 18), ("brush 刷", 90), ("cat", None)
    ]  # fmt: skip
    assert all(image.image_id is None for image in content.images)  # both files number theirs alike
    assert "category 1, cat" in "\n".join(report.lines())
    save_coco(tmp_path, split="train2")
    with pytest.raises(DatasetError, match=r"2 files are about one split \(train\), such as instances_train\.json and"):
        convert(Conversion(source=tmp_path, target=tmp_path / "out2", source_format="coco"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"imagePath": "../../secret.png"}, "is not there"),
        ({"imagePath": "/secret.png"}, "is not there"),
        ({"imagePath": None}, "expected a text as `imagePath`"),
        ({"imagePath": "a\0.png"}, "cannot be used"),
        ({"imagePath": "..\\..\\..\\x.png"}, "is not there"),
    ],
)
def test_labelme_looks_for_no_image_outside(tmp_path, changes, words):
    for folder in (tmp_path, tmp_path / "set"):
        draw(folder / "secret.png")
    draw(tmp_path / "set" / "a.png")
    shape = {"label": "a", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]}
    for name, content in {"good": {"imagePath": "../a.png"}, "bad": changes}.items():
        file = tmp_path / "set" / "json" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"shapes": [shape], **content}))
    found, report = convert(Conversion(source=tmp_path / "set", target=tmp_path / "out", source_format="labelme"))
    assert [image.name for image in found.images] == ["a.png"]
    said = "\n".join(report.lines())
    assert "bad.json" in said
    assert words in said


@pytest.mark.parametrize(
    "shape",
    [
        3,
        {},
        {"label": "a", "points": [[1, 1], [2, 2]]},
        {"label": "a", "shape_type": "rectangle", "points": [[1, 1]]},
        {"label": "a", "shape_type": "rectangle", "points": [[1, 1], [2, "x"]]},
        {"label": "a", "shape_type": "circle", "points": [[1, 1], [1, 1]]},
        {"label": "a", "shape_type": ["polygon"], "points": [[1, 1], [5, 1], [5, 5]]},
        {"label": "a", "shape_type": "polygon", "points": {"x": 1}},
        {"label": ["a"], "shape_type": "polygon", "group_id": {}, "points": [[1, 1], [5, 1], [5, 5]]},
        {"label": "a", "shape_type": "mask", "points": [[1, 1], [5, 5]], "mask": "iVBOR"},
    ],
)
def test_labelme_shape_that_cannot_be_meant_is_named(tmp_path, shape):
    draw(tmp_path / "set" / "a.png")
    good = {"label": "a", "points": [[1, 1], [5, 1], [5, 5]], "flags": "none"}
    (tmp_path / "set" / "a.json").write_text(json.dumps({"shapes": [good, shape], "imagePath": "a.png"}))
    found, said = objects_of(tmp_path / "set", tmp_path / "out", "labelme")
    assert len(found) == 1
    assert "a.json: shape 2: " in said


def test_report_of_many_faults_is_short(tmp_path):
    entries = [object_entry(number, 139, 18, [1, 1, 0, 0]) for number in range(1, 400)]
    _, said = objects_of(save_coco(tmp_path, instances(annotations=[GOOD, *entries])), tmp_path / "out")
    assert said.startswith("399 objects whose box cannot be meant: left out\n")
    assert len(said.splitlines()) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_file_names_that_are_no_text(tmp_path):
    root = tmp_path / "set"
    draw(root / "images" / "a.png")
    (root / "images" / "a.png").rename(root / "images" / os.fsdecode(b"\xff.png"))
    draw(root / "images" / "b.png")
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [dog, cat, dog]\n")
    content, report = convert(Conversion(source=root, target=tmp_path / "out", source_format="yolo"))
    assert [image.name for image in content.images] == ["b.png"]
    assert content.names == ["dog", "cat"]
    said = "\n".join(report.lines())
    assert "1 images whose name cannot be used: left out" in said
    assert "data.yaml: 2 dog" in said
