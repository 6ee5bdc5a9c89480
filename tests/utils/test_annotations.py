"""Four annotation formats: what each keeps, there and back, and what pycocotools makes of ours."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from annotated_sets import MASK, SIZE_WH, draw, image_entry, instances, neutral, object_entry, output, save_coco
from utils.annotations.class_map import ClassMap
from utils.annotations.conversion import Conversion, convert
from utils.annotations.formats import FORMATS
from utils.annotations.record import AnnotatedSet, Annotation, outline_area
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings
from utils.annotations.voc import whole_corners

PRECISION = {"coco": 1e-6, "labelme": 1e-6, "yolo": 2e-4, "voc": 0.5}  # px


def written(content: AnnotatedSet, name: str, folder: Path, **settings: bool) -> AnnotatedSet:
    """A set after being written and read in one format."""
    FORMATS[name].write(content, output(folder), WriteSettings(**settings), Report())
    one_based = settings.get("one_based", False)
    return FORMATS[name].read(folder, ReadSettings(one_based=one_based, difficult=True), Report())


def boxes(content: AnnotatedSet) -> dict[str, list]:
    """Class and box of every object, by split and name without folders, which VOC has none of."""
    return {
        f"{image.split} {image.name.replace('/', '_')}": [(one.category, *one.box_xyxy) for one in image.annotations]
        for image in content.images
    }


def assert_same_boxes(found: AnnotatedSet, expected: AnnotatedSet, precision: float) -> None:
    found, expected = boxes(found), boxes(expected)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert [row[0] for row in found[name]] == [row[0] for row in rows]
        np.testing.assert_allclose([r[1:] for r in found[name]], [r[1:] for r in rows], rtol=0, atol=precision)


@pytest.fixture
def content(tmp_path: Path) -> AnnotatedSet:
    return neutral(tmp_path / "pictures")


@pytest.mark.parametrize("second", FORMATS)
@pytest.mark.parametrize("first", FORMATS)
def test_there_and_back(content, tmp_path, first, second):
    once = written(content, first, tmp_path / "once")
    twice = written(once, second, tmp_path / "twice")
    again = written(twice, first, tmp_path / "again")
    assert_same_boxes(once, content, PRECISION[first])
    assert_same_boxes(twice, once, PRECISION[second])
    assert_same_boxes(again, twice, PRECISION["yolo"])  # nothing is rounded to whole pixels twice


@pytest.mark.parametrize("one_based", [False, True])
def test_whole_pixels_of_voc_are_stable(content, tmp_path, one_based):
    once = written(content, "voc", tmp_path / "once", one_based=one_based)
    assert boxes(written(once, "voc", tmp_path / "twice", one_based=one_based)) == boxes(once)
    text = (tmp_path / "once/Annotations/a.xml").read_text(encoding="utf-8")
    assert f"<xmin>{10 + one_based}</xmin>" in text
    assert "<xmax>50</xmax>" in text


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.2, 0.2, 0.4, 0.4), (0, 0, 1, 1)),
        ((99.9, 79.9, 100, 80), (99, 79, 100, 80)),
        ((10.4, 10.6, 20.4, 20.6), (10, 11, 20, 21)),
    ],
)
def test_whole_pixels_are_at_least_one(box, expected):
    assert whole_corners(box, SIZE_WH, one_based=False) == expected
    assert whole_corners(box, SIZE_WH, one_based=True) == (expected[0] + 1, expected[1] + 1, *expected[2:])


def loaded(file: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


def test_coco_keeps_numbers_crowds_areas_and_masks(tmp_path):
    source = save_coco(tmp_path / "src")
    convert(Conversion(source=source, target=tmp_path / "out", source_format="coco", target_format="coco"))
    before, after = loaded(source), loaded(tmp_path / "out/annotations/instances_train.json")
    assert sorted(after.getImgIds()) == [7, 139]
    assert after.getCatIds() == [1, 18, 90]
    assert {one["name"] for one in after.loadCats([90])} == {"brush 刷"}
    for image in (7, 139):
        pairs = zip(before.imgToAnns[image], after.imgToAnns[image], strict=True)
        for old, new in pairs:
            assert {key: old[key] for key in old if key != "id"} == {key: new[key] for key in new if key != "id"}
    assert after.imgToAnns[139][2]["segmentation"] == MASK
    assert min(after.getAnnIds()) > 0  # pycocotools takes 0 for "no match"
    assert after.getAnnIds(iscrowd=True) == [3]


def test_numbers_of_merged_and_chosen_classes(tmp_path):
    source = save_coco(tmp_path / "src")
    classes = ClassMap({"dog": "living", "person": "living", "brush 刷": "刷"}, ["刷", "living", "new"], "test")
    target = tmp_path / "out"
    convert(Conversion(source=source, target=target, source_format="coco", target_format="coco", classes=classes))
    coco = loaded(target / "annotations/instances_train.json")
    assert {one["name"]: one["id"] for one in coco.cats.values()} == {"刷": 90, "living": 1, "new": 2}
    assert [one["category_id"] for one in coco.imgToAnns[139]] == [1, 1, 1]


def test_pycocotools_evaluates_what_is_written(tmp_path):
    """A detection in the crowd is ignored; the same one without the mark of the crowd would be false."""
    source = save_coco(tmp_path / "src")
    convert(Conversion(source=source, target=tmp_path / "out", source_format="coco", target_format="coco"))
    truth = loaded(tmp_path / "out/annotations/instances_train.json")
    found = [
        {"image_id": 139, "category_id": 1, "bbox": [62, 12, 20, 20], "score": 0.9},
        {"image_id": 139, "category_id": 1, "bbox": [0.5, 1.25, 30.125, 40.5], "score": 0.8},
        {"image_id": 139, "category_id": 18, "bbox": [10, 20, 40, 40], "score": 0.8},
        {"image_id": 7, "category_id": 90, "bbox": [80, 60, 20, 20], "score": 0.8},
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert run.stats[0] == pytest.approx(1.0)
    assert run.stats[3] == pytest.approx(1.0)  # small: by areas; one object's mask makes 1200.5 px² of its 1600
    assert run.stats[4] == pytest.approx(1.0)


def test_crowds_and_areas_in_the_other_formats(tmp_path):
    source = save_coco(tmp_path / "src")
    report = {}
    for name in ("voc", "labelme", "yolo"):
        target = tmp_path / name
        settings = {"source": source, "target": target, "source_format": "coco", "target_format": name}
        _, report[name] = convert(Conversion(**settings))
        back_again = {"source": target, "source_format": name, "target": tmp_path / f"{name}-back"}
        back, _ = convert(Conversion(**back_again, target_format="coco"))
        coco = loaded(back_again["target"] / "annotations/instances_train.json")
        crowds = [one for one in coco.anns.values() if one["iscrowd"]]
        assert len(crowds) == (name != "yolo")
        assert sorted(coco.getImgIds()) == [7, 139]  # by the names of the files
        outlines = [one for image in back.images for one in image.annotations if one.outlines]
        assert [one.effective_area for one in outlines] == ([1600.0] if name == "labelme" else [])
    assert report["yolo"].counts["crowd regions: left out, as training has no use for them"] == 1
    assert report["voc"].counts["crowd regions: written as difficult objects"] == 1


def test_area_of_an_outline_and_of_a_box():
    triangle = np.array([[0.0, 0], [10, 0], [0, 10]])
    assert outline_area(triangle) == 50
    assert Annotation("a", (0, 0, 10, 10), outlines=(triangle,)).effective_area == 50
    assert Annotation("a", (0, 0, 10, 10)).effective_area == 100
    assert Annotation("a", (0, 0, 10, 10), area=7).effective_area == 7


def test_labelme_shapes(tmp_path):
    source = tmp_path / "src"
    draw(source / "val" / "a.png")
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[50, 60], [10, 20]]},
        {"label": "disc", "shape_type": "circle", "points": [[50, 40], [53, 44]]},
        {"label": "two", "shape_type": "polygon", "group_id": 1, "points": [[0, 0], [5, 0], [5, 5]]},
        {"label": "two", "shape_type": "polygon", "group_id": 1, "points": [[20, 20], [30, 20], [30, 30]]},
        {"label": "dot", "shape_type": "point", "points": [[1, 1]]},
        {"label": "flagged", "points": [[1, 1], [9, 1], [9, 9]], "flags": {"difficult": True}},
    ]
    text = json.dumps({"shapes": shapes, "imagePath": "a.png", "imageWidth": 100, "imageHeight": 80})
    (source / "val" / "a.json").write_text(text)
    report = Report()
    found = FORMATS["labelme"].read(source, ReadSettings(), report)
    (image,) = found.images
    assert (image.split, image.name) == ("val", "a.png")
    assert {one.category: one.box_xyxy for one in image.annotations} == {
        "box": (10, 20, 50, 60),
        "disc": (45, 35, 55, 45),
        "two": (0, 0, 30, 30),
        "flagged": (1, 1, 9, 9),
    }
    assert [len(one.outlines) for one in image.annotations] == [0, 0, 2, 1]
    assert image.annotations[3].difficult
    assert "shape 5: a 'point' has no box" in " ".join(report.lines())
    again = written(found, "labelme", tmp_path / "again")
    assert [len(one.outlines) for one in again.images[0].annotations] == [0, 0, 2, 1]


def test_outlines_as_yolo_labels(content, tmp_path):
    again = written(content, "yolo", tmp_path / "out", polygons=True)
    (outline,) = next(image for image in again.images if image.name == "a.png").annotations[0].outlines
    np.testing.assert_allclose(outline, content.images[0].annotations[0].outlines[0], atol=1e-4)


def test_images_that_would_share_a_label_file(tmp_path):
    names = ["a.png", "a.jpg", "A.bmp", "sub/a.png"]
    folder = tmp_path / "src"
    for name in names:
        draw(folder / name)
    entries = [image_entry(number, name) for number, name in enumerate(names)]
    objects = [object_entry(number + 1, number, 1, [number, 0, 10, 10]) for number in range(4)]
    (folder / "train.json").write_text(json.dumps(instances(images=entries, annotations=objects)))
    for target_format, places in {
        "yolo": ["a.txt", "a_2.txt", "A_3.txt", "sub/a.txt"],
        "voc": ["a.xml", "a_2.xml", "A_3.xml", "sub_a.xml"],
    }.items():
        target = tmp_path / target_format
        _, report = convert(Conversion(source=folder, target=target, source_format="coco", target_format=target_format))
        labels = target / ("labels/train" if target_format == "yolo" else "Annotations")
        assert sorted(str(path.relative_to(labels)) for path in labels.rglob("*.*")) == sorted(places)
        assert sum(report.counts.values()) == 2
        found = FORMATS[target_format].read(target, ReadSettings(), Report())
        assert sorted(image.annotations[0].box_xyxy[0] for image in found.images) == pytest.approx([0, 1, 2, 3])


def test_one_name_in_two_splits_divided_anew(tmp_path):
    """Both images keep their own labels, also where they come to lie in one folder."""
    source, sides = tmp_path / "src", {"train": (100, 80), "val": (80, 100)}
    for split, size_wh in sides.items():
        draw(source / "images" / split / "a.png", size_wh)
        label = source / "labels" / split / "a.txt"
        label.parent.mkdir(parents=True)
        label.write_text("0 0.5 0.5 0.1 0.1\n" if split == "train" else "1 0.5 0.5 0.2 0.2\n")
    (source / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [wide, high]\n")
    target = tmp_path / "out"
    _, report = convert(Conversion(source=source, target=target, source_format="yolo", shares=(1.0, 0.0)))
    assert len(report.counts) == 1
    found = FORMATS["yolo"].read(target, ReadSettings(), Report())
    assert {image.annotations[0].category: image.size_wh for image in found.images} == {
        "wide": sides["train"],
        "high": sides["val"],
    }
