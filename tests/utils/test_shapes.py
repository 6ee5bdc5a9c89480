"""The embedded data set: always the same pixels, labels where the objects are, drawn whole or not at all."""

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from utils.datasets.config import check_dataset
from utils.datasets.shapes import CLASSES, SIDE, Dice, Figure, draw_scene, draw_shapes
from utils.errors import DatasetError
from utils.paths import PROJECT_ROOT
from utils.yaml_io import yaml_load

SITUATIONS = ("plain", "large", "small", "dense", "occluding", "background")
FEW = {"train": 3, "val": 2}


pytestmark = pytest.mark.usefixtures("heard")


def digest(name: str, situation: str | None = None) -> str:
    scene = draw_scene(name, situation)
    return hashlib.sha256(scene.image.tobytes() + scene.labels.round(6).tobytes()).hexdigest()[:16]


def test_background_has_no_objects():
    scene = draw_scene("any", "background")
    assert scene.labels.shape == (0, 5)
    assert scene.image.shape == (SIDE, SIDE, 3)
    assert scene.image.dtype == np.uint8


def test_dice_are_whole_numbers_in_range():
    dice = Dice("a")
    assert {dice.between(2, 4) for _ in range(100)} == {2, 3, 4}
    noise = dice.noise(30, 21, 3)
    assert noise.shape == (30, 21, 1)
    assert set(np.unique(noise)) == set(range(-3, 4))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("train_0000", "91e3d946cd8f8bbe"), ("val_0001", "be7dc9b1721197ef"), ("test_0002", "4e96e800404e9716")],
)
def test_same_pixels_on_every_machine(name, expected):
    assert digest(name) == expected  # raise RECIPE when this has to change


@pytest.mark.parametrize("situation", SITUATIONS[:-1])
def test_labels_surround_visible_objects(situation):
    for number in range(6):
        scene = draw_scene(f"check_{number}", situation)
        assert scene.situation == situation
        assert len(scene.labels) >= 1
        assert scene.labels[:, 0].max() < len(CLASSES)
        centres, sides = scene.labels[:, 1:3], scene.labels[:, 3:]
        assert (sides > 0).all()
        assert (centres - sides / 2).min() >= 0
        assert (centres + sides / 2).max() <= 1


def test_situations_are_what_they_say():
    longest = {name: [] for name in SITUATIONS}
    for name in SITUATIONS[:-1]:
        for number in range(8):
            longest[name].append(draw_scene(f"size_{number}", name).labels)
    smallest = np.array([labels[:, 3:].max(axis=1).min() for labels in longest["small"]]) * SIDE
    assert smallest.max() <= 15
    largest = np.array([labels[:, 3:].max() for labels in longest["large"]]) * SIDE
    assert largest.min() >= 45
    counts = {name: np.mean([len(labels) for labels in scenes]) for name, scenes in longest.items() if scenes}
    assert counts["dense"] > 1.5 * counts["plain"]
    overlaps = 0
    for labels in longest["occluding"]:
        low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
        meet = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
        overlaps += ((meet > 0).all(axis=2).sum() - len(labels)) // 2
    assert overlaps >= 8


def test_hidden_objects_have_no_label(monkeypatch):
    front = Figure(0, 100, 100, 40, 0, (0, 0, 255))
    hidden, peeping, cut = (replace(front, class_id=1, x=x, radius=20) for x in (100, 155, -12))
    painters = (("plain", 100, lambda dice: [hidden, peeping, cut, front]),)
    monkeypatch.setattr("utils.datasets.shapes._SITUATIONS", painters)
    labels = draw_scene("any").labels * (1, SIDE, SIDE, SIDE, SIDE)
    np.testing.assert_array_equal(labels[:, 0], [1, 0])  # one square behind the circle, one mostly outside
    np.testing.assert_allclose(labels[1], [0, 100.5, 100.5, 81, 81], atol=1)
    assert abs(labels[0, 1] - 155) < 2


def test_label_is_tight_around_a_lone_object():
    scene = draw_scene("val_0001", "large")
    plain = cv2.cvtColor(scene.image, cv2.COLOR_BGR2HSV)[..., 1]
    for _, x, y, width, height in scene.labels * (1, SIDE, SIDE, SIDE, SIDE):
        inside = plain[int(y - height / 4) : int(y + height / 4) + 1, int(x - width / 2) : int(x + width / 2)]
        assert inside.size
        assert inside.max() > 120  # objects are more colourful than any background


def test_drawn_twice_is_the_same(tmp_path):
    first, second = tmp_path / "a" / "shapes", tmp_path / "b"
    for folder in (first, second):
        draw_shapes(folder, FEW)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert len(files) == 2 * 5 + 2
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["shapes"]  # nothing is left over
    draw_shapes(first, FEW)  # there already


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("utils.datasets.shapes.write_image", stop)
    with pytest.raises(KeyboardInterrupt):
        draw_shapes(tmp_path / "shapes", FEW)
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="move it away"):
        draw_shapes(tmp_path, FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_yaml_draws_on_first_use_only(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("utils.datasets.config.PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("utils.datasets.config.home_of_data", lambda: tmp_path)
    monkeypatch.setattr("utils.datasets.config._DRAWN", {"shapes": lambda root: draw_shapes(root, FEW)})
    monkeypatch.chdir(tmp_path)
    content = yaml_load(PROJECT_ROOT / "data" / "shapes.yaml")
    assert tuple(content["names"].values()) == CLASSES
    with pytest.raises(DatasetError, match="nothing is downloaded"):
        check_dataset(content, autodownload=False)
    del content["test"]
    data = check_dataset(content)
    assert data["path"] == tmp_path / "datasets" / "shapes"
    assert caplog.text.count("drawing the data set") == 1
    assert check_dataset(content) == data
    assert caplog.text.count("drawing the data set") == 1
