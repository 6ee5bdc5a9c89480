"""COCO's JSON named in data.yaml: images and labels as those of the converted set, and COCO's numbers in results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from annotated_sets import CATEGORIES, draw, image_entry, instances, object_entry, save_coco
from utils.annotations.coco_file import image_folder_of, split_of
from utils.annotations.conversion import Conversion, convert
from utils.datasets.config import check_dataset
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.images import list_images
from utils.datasets.json_labels import json_numbers
from utils.errors import DatasetError
from utils.log import LOGGER

NAMES = {0: "person", 1: "dog", 2: "brush 刷"}


@pytest.fixture
def heard(heard):
    heard.set_level("INFO", LOGGER.name)
    return heard


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_coco(tmp_path / "coco")


def labels_of(split: LoadImagesAndLabels) -> dict[str, np.ndarray]:
    return {Path(path).name: labels for path, labels in zip(split.im_files, split.labels, strict=True)}


def test_labels_are_those_of_the_converted_set(file, tmp_path, heard):
    convert(Conversion(source=file, target=tmp_path / "yolo", source_format="coco"))
    converted = check_dataset(tmp_path / "yolo" / "data.yaml")
    content = {"path": str(tmp_path / "coco"), "names": NAMES}
    named = check_dataset({**content, **dict.fromkeys(("train", "val"), "annotations/instances_train.json")})
    assert named["train"] == str(file)
    assert converted["names"] == NAMES  # in the order of COCO's numbers
    direct = LoadImagesAndLabels(named["train"], 64, names=named["names"])
    found, expected = labels_of(direct), labels_of(LoadImagesAndLabels(converted["train"], 64))
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, atol=1e-6)
    assert set(direct.label_files) == {str(file)}
    assert "1 crowd regions" in heard.text
    again = LoadImagesAndLabels(named["train"], 64, names={0: "brush 刷", 1: "person", 2: "dog"})  # from the index
    assert (file.parent / "instances_train.json.label-index").is_file()
    assert labels_of(again)["000000000007.png"][0, 0] == 0


def test_a_list_of_sources(file, tmp_path):
    image = draw(tmp_path / "more" / "images" / "a.png")
    label = tmp_path / "more" / "labels" / "a.txt"
    label.parent.mkdir()
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    split = LoadImagesAndLabels([str(image.parent), str(file)], 64, names=NAMES)
    assert split.n == 3
    assert list(split.label_files) == [str(label), str(file), str(file)]
    assert [len(rows) for rows in split.labels] == [1, 2, 1]
    assert list_images(file) == list(split.im_files)[1:]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (None, [1, 0, 2]),
        (NAMES, [1, 0, 2]),
        ({0: "dog", 1: "cat", 2: "person", 3: "brush 刷"}, [0, 2, 3]),
        ({0: "人", 1: "犬", 2: "刷"}, [1, 0, 2]),  # none of the names: translations, in order
    ],
)
def test_categories_are_classes_by_name(file, heard, names, classes):
    split = LoadImagesAndLabels(file, 64, names=names)
    found = labels_of(split)
    assert [*found["000000000139.png"][:, 0], *found["000000000007.png"][:, 0]] == classes
    assert ("dog is 犬" in heard.text) == (names == {0: "人", 1: "犬", 2: "刷"})


@pytest.mark.parametrize("names", [{0: "person"}, {0: "person", 1: "Dog", 2: "brush 刷"}, {0: "a", 1: "b"}])
def test_categories_that_are_no_classes_are_named(file, names):
    with pytest.raises(DatasetError, match=r"instances_train\.json: .*18 'dog'"):
        LoadImagesAndLabels(file, 64, names=names)


def test_category_without_objects_needs_no_class(tmp_path):
    content = instances(categories=[*CATEGORIES, {"id": 0, "name": "none"}])
    split = LoadImagesAndLabels(save_coco(tmp_path, content), 64, names=NAMES)
    assert sum(map(len, split.labels)) == 3


def test_faults_are_named_and_repeats_left_out(tmp_path, heard):
    objects = [
        object_entry(1, 139, 1, [1, 1, 5, 5]),
        object_entry(2, 139, 1, [1, 1, 5, 5]),
        object_entry(3, 139, 1, [1, 1, 0, 5]),
        object_entry(4, 4711, 1, [1, 1, 5, 5]),
    ]
    images = [*instances()["images"], image_entry(9, "gone.png")]
    file = save_coco(tmp_path, instances(annotations=objects, images=images))
    split = LoadImagesAndLabels(file, 64, names=NAMES)
    assert sorted(map(len, split.labels)) == [0, 1]
    for words in ("objects that repeat another", "annotation id 3: box", "annotation id 4: no image", "gone.png"):
        assert words in heard.text


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [], "annotations": [], "categories": []}'])
def test_file_that_cannot_be_used(tmp_path, text):
    file = tmp_path / "train.json"
    file.write_text(text)
    with pytest.raises(DatasetError, match=r"train\.json"):
        LoadImagesAndLabels(file, 64, names=NAMES)


@pytest.mark.parametrize(
    ("place", "image"),
    [
        ("annotations/instances_val2017.json", "images/val2017/a.png"),
        ("annotations/instances_val2017.json", "val2017/a.png"),
        ("annotations/instances_val.json", "images/val/a.png"),
        ("annotations/instances_val.json", "images/a.png"),
        ("annotations/val.json", "images/val/a.png"),
        ("annotations/val.json", "a.png"),
        ("valid/_annotations.coco.json", "valid/a.png"),
        ("labels.json", "images/a.png"),
    ],
)
def test_where_images_are_looked_for(tmp_path, place, image):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    assert image_folder_of(file, ["gone.png", "a.png"]) is None
    draw(tmp_path / image)
    assert (image_folder_of(file, ["gone.png", "a.png"]) / "a.png").samefile(tmp_path / image)
    assert split_of(file) == (None if place == "labels.json" else "val")


def test_a_yaml_of_json_is_no_set_of_label_files(file, tmp_path):
    (tmp_path / "data.yaml").write_text(f"train: {file}\nval: {file}\nnames: [person, dog, brush]\n")
    with pytest.raises(DatasetError, match="convert it as coco"):
        convert(Conversion(source=tmp_path / "data.yaml", target=tmp_path / "out", source_format="yolo"))


def test_images_that_are_nowhere(tmp_path):
    file = save_coco(tmp_path, instances(images=[image_entry(1, "gone.png")]))
    with pytest.raises(DatasetError, match=r"its images, such as gone\.png, were not found"):
        LoadImagesAndLabels(file, 64, names=NAMES)


def test_numbers_for_results(file, tmp_path):
    numbers = json_numbers(file, {0: "dog", 1: "cat", 2: "person", 3: "brush 刷"})
    assert numbers.category_ids == [18, 92, 1, 90]  # 92: no category, as the JSON has no cat
    assert {Path(path).name: number for path, number in numbers.image_ids.items()} == {
        "000000000139.png": 139,
        "000000000007.png": 7,
    }
    bare = {key: value for key, value in instances()["annotations"][0].items() if key != "area"}
    file.write_text(json.dumps(instances(annotations=[bare])))
    with pytest.raises(DatasetError, match=r"annotation id 5: pycocotools needs .* missing here: area"):
        json_numbers(file, NAMES)
