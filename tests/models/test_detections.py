"""Detections: tables, texts, pictures and crops of boxes that are known."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow

from models.common import Detections
from utils.drawing import colors
from utils.errors import BackendError
from utils.image_io import read_image
from utils.log import LOGGER

NAMES = {0: "person", 1: "bus", 2: "a/b"}
BOXES = torch.tensor([[10.0, 20.0, 50.0, 40.0, 0.875, 1.0], [0.0, 0.0, 20.0, 10.0, 0.5, 0.0], [5, 5, 9, 9, 0.26, 1]])
ONE = torch.tensor([[30.0, 10.0, 60.0, 30.0, 0.75, 2.0]])
GREY = 128
pytestmark = pytest.mark.usefixtures("logger_as_before")


def grey_picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


@pytest.fixture
def results() -> Detections:
    """Three pictures of 50 x 100, 40 x 80 and 30 x 30 px: three boxes, none, one; two have the same name."""
    ims = [grey_picture(50, 100), grey_picture(40, 80), grey_picture(60, 60)]
    files = ["a.jpg", "image1.jpg", "a.jpg"]
    return Detections(ims, [BOXES, torch.zeros(0, 6), ONE], files, (1.0, 2.0, 3.0), NAMES, (3, 3, 64, 128))


def test_box_formats(results):
    assert len(results) == results.n == 3 and results.pred is results.xyxy
    torch.testing.assert_close(results.xyxy[0], BOXES)
    torch.testing.assert_close(results.xywh[0][0], torch.tensor([30.0, 30.0, 40.0, 20.0, 0.875, 1.0]))
    torch.testing.assert_close(results.xyxyn[0][0], torch.tensor([0.1, 0.4, 0.5, 0.8, 0.875, 1.0]))
    torch.testing.assert_close(results.xywhn[0][0], torch.tensor([0.3, 0.6, 0.4, 0.4, 0.875, 1.0]))
    torch.testing.assert_close(results.xywhn[2][0], torch.tensor([0.75, 1 / 3, 0.5, 1 / 3, 0.75, 2.0]))
    assert [boxes.shape for boxes in (results.xyxyn[1], results.xywh[1])] == [(0, 6), (0, 6)]


def test_text(results):
    assert str(results).splitlines()[:3] == [
        "image 1/3: 50x100 1 person, 2 bus",
        "image 2/3: 40x80 (no detections)",
        "image 3/3: 60x60 1 a/b",
    ]
    assert str(results).splitlines()[3].startswith("Speed: 1.0 ms")
    assert len(str(results).splitlines()) == 4 and "4 boxes in 3 images" in repr(results)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO, logging.ERROR])
def test_print_is_seen_and_leaves_the_level(results, level, capfd):
    LOGGER.setLevel(level)
    LOGGER.addHandler(logging.StreamHandler(sys.stderr))
    results.print()
    assert "image 2/3: 40x80 (no detections)" in capfd.readouterr().err
    assert LOGGER.level == level


def test_names_may_be_a_list_or_too_short():
    named = Detections([grey_picture(50, 100)], [BOXES], ["a.jpg"], names=["person"])
    assert "1 person, 2 1s" in str(named)
    assert named.crop(save=False)[0]["label"] == "1 0.88"


def test_tolist(results):
    singles = results.tolist()
    assert [len(one) for one in singles] == [1, 1, 1]
    assert str(singles[2]).startswith("image 1/1: 60x60 1 a/b\nSpeed: 1.0 ms")
    torch.testing.assert_close(singles[0].xywhn[0], results.xywhn[0])
    assert singles[2].files == ["a.jpg"] and singles[0].names == NAMES


def test_pandas(results):
    tables = results.pandas()
    corners, centres = tables.xyxy[0], tables.xywhn[0]
    assert list(corners.columns) == ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    assert list(centres.columns) == ["xcenter", "ycenter", "width", "height", "confidence", "class", "name"]
    assert corners.iloc[0].tolist() == [10, 20, 50, 40, 0.875, 1, "bus"]
    np.testing.assert_allclose(centres.iloc[0, :4].astype(float), [0.3, 0.6, 0.4, 0.4], rtol=1e-6)
    assert corners["class"].dtype.kind == "i" and len(tables.xyxyn[1]) == 0
    assert list(tables.xywh[1].columns) == list(centres.columns)
    assert isinstance(results.xyxy[0], torch.Tensor)  # the results themselves stay
    assert corners[corners.name == "bus"].confidence.max() == 0.875


# -- pictures ------------------------------------------------------------------------------------------------------


def test_render_draws_on_copies(results):
    given = results.ims[0]
    drawn = results.render()
    assert (given == GREY).all() and results.ims is drawn
    assert (drawn[1] == GREY).all() and drawn[0].shape == (50, 100, 3)
    assert tuple(drawn[0][40, 30]) == colors(1)  # RGB, lower side of the first box
    bare = results.render(labels=False)
    assert (bare[0] != GREY).any() and (bare[0] != drawn[0]).any()
    assert tuple(bare[0][30, 30]) == (GREY,) * 3  # not drawn upon the drawing before


def test_most_confident_on_top():
    boxes = torch.tensor([[10.0, 10.0, 40.0, 40.0, 0.9, 0.0], [10.0, 10.0, 40.0, 40.0, 0.3, 1.0]])
    (drawn,) = Detections([grey_picture(50, 50)], [boxes], ["a.jpg"], names=NAMES).render(labels=False)
    assert tuple(drawn[25, 10]) == colors(0)


def test_save(results, tmp_path):
    folder = results.save(save_dir=tmp_path / "exp")
    assert folder == tmp_path / "exp"
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "a2.jpg", "image1.jpg"]
    assert read_image(folder / "a.jpg").shape == (50, 100, 3) and read_image(folder / "a2.jpg").shape == (60, 60, 3)
    line = read_image(folder / "a.jpg")[39:42, 25:45].mean((0, 1))  # BGR
    assert np.abs(line - colors(1, bgr=True)).max() < 30
    assert results.save(save_dir=tmp_path / "exp") == tmp_path / "exp2"
    assert results.save(save_dir=tmp_path / "exp", exist_ok=True) == tmp_path / "exp"
    assert len(list(folder.iterdir())) == 3


def test_default_folder_is_that_of_detect(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert results.save() == Path("runs/detect/exp") and results.save() == Path("runs/detect/exp2")


def test_crop(results, tmp_path):
    red = np.zeros((50, 100, 3), np.uint8)
    red[..., 0] = 255
    pure = Detections([red, *results.ims[1:]], results.pred, results.files, names=NAMES)
    pure.render()
    crops = pure.crop(save_dir=tmp_path / "exp")
    assert [crop["label"] for crop in crops] == ["bus 0.88", "person 0.50", "bus 0.26", "a/b 0.75"]
    assert set(crops[0]) == {"box", "conf", "cls", "label", "im"}
    torch.testing.assert_close(crops[0]["box"], BOXES[0, :4])
    assert float(crops[0]["conf"]) == 0.875 and int(crops[0]["cls"]) == 1
    assert (crops[0]["im"] == (0, 0, 255)).all()  # BGR, and without what render() has drawn
    names = sorted(str(path.relative_to(tmp_path / "exp")) for path in (tmp_path / "exp").rglob("*.jpg"))
    assert names == ["crops/a_b/a.jpg", "crops/bus/a.jpg", "crops/bus/a2.jpg", "crops/person/a.jpg"]


def test_crop_without_files(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(results.crop(save=False)) == 4 and not list(tmp_path.iterdir())


class Viewer(ImageShow.Viewer):
    """Shows nothing, but notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Image.Image, str]] = []

    def show(self, image: Image.Image, **options: str) -> int:
        self.seen.append((image, options["title"]))
        return 1


@pytest.fixture
def viewers(monkeypatch) -> list[ImageShow.Viewer]:
    """Pillow's own list of viewers, empty."""
    monkeypatch.setattr(ImageShow, "_viewers", [])
    return ImageShow._viewers


def test_show(results, viewers):
    viewer = Viewer()
    ImageShow.register(viewer)
    results.show()
    assert [title for _, title in viewer.seen] == ["a.jpg", "image1.jpg", "a.jpg"]
    np.testing.assert_array_equal(np.asarray(viewer.seen[0][0]), results.render()[0])


def test_show_where_nothing_shows(results, viewers):
    with pytest.raises(BackendError, match=r"save\(\)"):
        results.show()


# -- supervision ---------------------------------------------------------------------------------------------------


def test_without_supervision_the_error_says_what_to_install(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(BackendError, match="pip install supervision"):
        results.to_supervision()


def test_supervision(results):
    supervision = pytest.importorskip("supervision")
    first, empty, last = results.to_supervision()
    assert len(first) == 3 and len(empty) == 0 and len(last) == 1
    np.testing.assert_allclose(first.xyxy, BOXES[:, :4])
    np.testing.assert_allclose(first.confidence, BOXES[:, 4])
    assert first.class_id.tolist() == [1, 0, 1] and first["class_name"].tolist() == ["bus", "person", "bus"]
    assert len(first[first.confidence > 0.4]) == 2
    theirs = supervision.Detections.from_yolov5(results)  # their converter reads ours
    np.testing.assert_allclose(theirs.xyxy, first.xyxy)
    assert supervision.Detections.merge([first, last])["class_name"].tolist() == ["bus", "person", "bus", "a/b"]
    annotated = supervision.BoxAnnotator().annotate(results.ims[0].copy(), first)
    assert (annotated != GREY).any()
