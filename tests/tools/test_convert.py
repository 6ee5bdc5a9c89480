"""The converter's command, on a tiny PASCAL VOC set and one of COCO."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

from annotated_sets import draw, image_entry, instances, save_coco
from tools.convert import _FORMATS, main, make_parser
from utils.annotations.formats import FORMATS
from utils.annotations.output import opened
from utils.datasets.config import check_dataset
from utils.datasets.detection import LoadImagesAndLabels
from utils.paths import PROJECT_ROOT
from utils.yaml_io import yaml_load


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
        draw(source / "JPEGImages" / f"{name}.jpg")
    (source / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (source / "ImageSets/Main/val.txt").write_text("c\n")
    return source


@pytest.fixture
def converted(voc, tmp_path, capsys):
    """Converts the VOC set with some flags; gives the exit code and what was said."""

    def run(*flags, source=voc, kind="voc"):
        code = main([kind, str(source), str(tmp_path / "out"), *map(str, flags)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("manner", ["--copy", "--link"])
def test_voc_to_a_set_that_trains(converted, voc, out, manner):
    code, said = converted(manner)
    assert code == 0
    assert "b.xml: object 3: box 5 5 5 9 (left top right bottom) has no width" in said
    assert "1 difficult objects: left out" in said
    data = check_dataset(out / "data.yaml")
    assert data["names"] == {0: "cat", 1: "dog"}  # by name
    train, val = (LoadImagesAndLabels(data[split], 64) for split in ("train", "val"))
    assert val.n == 1
    assert len(val.labels[0]) == 0
    np.testing.assert_allclose(train.labels[0], [[1, 0.3, 0.5, 0.4, 0.5], [0, 0.5, 0.5, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(train.labels[1], [[1, 0.95, 0.9375, 0.1, 0.125]], atol=1e-6)  # cut; no difficult one
    assert (out / "images/train/a.jpg").samefile(voc / "JPEGImages/a.jpg") == (manner == "--link")


def test_lists_name_some_images_twice_and_some_never(converted, voc, out):
    (voc / "ImageSets/Main/train.txt").write_text("a  1\na -1\n\n")
    code, said = converted()
    assert code == 0
    assert f"1 annotations that no list names: left out\n  {voc}/Annotations/b.xml" in said
    assert [path.name for path in (out / "images/train").iterdir()] == ["a.jpg"]
    (voc / "ImageSets/Main/train.txt").write_text("../a\n")
    assert "train.txt: names '../a', which has no file in Annotations" in converted("--exist-ok")[1]


def test_one_based_pixels(converted, out):
    assert converted("--one-based")[0] == 0
    row = np.loadtxt(out / "labels/train/a.txt", max_rows=1)
    np.testing.assert_allclose(row, [1, (9 + 50) / 200, (19 + 60) / 160, 0.41, 41 / 80], atol=1e-6)


def test_classes_in_a_given_order_and_difficult_ones(converted, out):
    code, said = converted("--classes", "dog, bird", "--difficult")
    assert code == 0
    assert "2 objects of classes that are not kept: left out\n  cat: 2\n" in said
    assert "1 classes of --classes that the source does not have\n  bird" in said
    assert (out / "labels/train/b.txt").read_text().split()[0] == "0"
    assert yaml_load(out / "data.yaml")["names"] == {0: "dog", 1: "bird"}


def test_classes_merged_by_a_file(converted, tmp_path, out):
    (tmp_path / "map.yaml").write_text("dog: 动物\ncat: 动物\n")
    assert converted("--names", tmp_path / "map.yaml", "--difficult")[0] == 0
    assert yaml_load(out / "data.yaml")["names"] == {0: "动物"}
    rows = [line.split()[0] for file in (out / "labels/train").iterdir() for line in file.read_text().splitlines()]
    assert rows == ["0"] * 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--classes", "dog,dog"], "different names"),
        (["--classes", "nowhere.yaml"], "nowhere.yaml"),
        (["--classes", "yes.yaml"], "put it into quotes"),
        (["--classes", "drops.yaml"], "keeps no class"),
        (["--split", "0.5,0.6"], "make 1"),
        (["--split", "nan,1"], "make 1"),
        (["--split", "0,1"], "make 1"),
        (["--split", "1"], "make 1"),
        (["--split", "a,b"], "make 1"),
    ],
)
def test_flags_that_cannot_be_meant(converted, out, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yes.yaml").write_text("yes: no\n")
    (tmp_path / "drops.yaml").write_text("dog: null\n")
    code, said = converted(*flags)
    assert code == 2
    assert words in said
    assert not out.exists()


def test_without_lists_everything_trains(converted, voc, out):
    for file in (voc / "ImageSets/Main").iterdir():
        file.unlink()
    assert converted()[0] == 0
    data = check_dataset(out / "data.yaml")
    assert data["train"] == data["val"]
    assert LoadImagesAndLabels(data["train"], 64).n == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid XML"),
        ("<annotation><object>", "not valid XML"),
        (annotation(extra='<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'), "document type definition"),
        (annotation(extra='<!DOCTYPE a SYSTEM "file:///etc/passwd">'), "document type definition"),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', "not valid XML"),
    ],
)
def test_bad_file_is_named_and_nothing_written(converted, voc, out, text, words):
    (voc / "Annotations" / "b.xml").write_text(text)
    code, said = converted()
    assert code == 2
    assert "b.xml: " in said
    assert words in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (annotation(("dog", (1, 2, "x", 4), 0)), "<xmax> is 'x', expected a number"),
        (annotation(("dog", (1, 2, "nan", 4), 0)), "<xmax> is nan"),
        (annotation(("dog", (1, 2, "1e300", 4), 0)), "<xmax> is 1e+300"),
        (annotation(("", (1, 2, 3, 4), 0)), "class name"),
        (annotation(("dog", (-9, -9, -1, -1), 0)), "outside the 100x80 px image"),
        ("<annotation><object><name>dog</name></object></annotation>", "<xmin> is '', expected a number"),
    ],
)
def test_bad_object_is_named_and_left_out(converted, voc, out, text, words):
    (voc / "Annotations" / "b.xml").write_text(text)
    code, said = converted()
    assert code == 0
    assert "1 objects that cannot be meant: left out" in said
    assert "b.xml: object 1: " in said
    assert words in said
    assert (out / "labels/train/b.txt").read_text() == ""


def test_missing_and_broken_images_are_named(converted, voc, out, tmp_path):
    (voc / "JPEGImages/a.jpg").unlink()
    (voc / "JPEGImages/b.jpg").write_bytes(b"no picture")
    code, said = converted()
    assert code == 0
    assert f"a.xml: {voc}/JPEGImages/a.jpg is not there" in said
    assert "b.xml: " in said.partition("images that cannot be read: left out")[2]
    assert [path.name for path in (out / "images").rglob("*.jpg")] == ["c.jpg"]
    (voc / "JPEGImages/c.jpg").unlink()
    assert "no image to convert" in converted("--exist-ok")[1]
    assert "is not there" in converted("--exist-ok", source=tmp_path / "nowhere")[1]


def test_annotations_alone(converted, tmp_path, out):
    file = save_coco(tmp_path / "coco")
    for image in (tmp_path / "coco/images/train").iterdir():
        image.unlink()
    assert converted("--images", "none", source=file, kind="coco")[0] == 0
    assert sorted(path.name for path in out.rglob("*.*")) == ["000000000007.txt", "000000000139.txt", "data.yaml"]


def test_images_in_another_folder(converted, voc, out, tmp_path):
    (voc / "JPEGImages").rename(tmp_path / "elsewhere")
    assert "JPEGImages: this folder of images is missing" in converted()[1]
    assert converted("--image-folder", tmp_path / "elsewhere")[0] == 0
    assert (out / "images/train/a.jpg").is_file()


def test_shares_depend_on_names_and_seed_alone(converted, tmp_path, out):
    names = [f"{number:02d}.png" for number in range(20)]
    for name in names:
        draw(tmp_path / "coco" / name)
    places = []
    for seed, order in ((0, names), (0, names[::-1]), (1, names)):
        images = [image_entry(number, name) for number, name in enumerate(order)]
        file = tmp_path / "coco" / "all.json"
        file.write_text(json.dumps(instances(images=images, annotations=[])))
        assert converted("--split", "0.7,0.2,0.1", "--seed", seed, source=file, kind="coco")[0] == 0
        places.append({path.name: path.parent.name for path in (out / "images").rglob("*.png")})
        out.rename(tmp_path / f"out{len(places)}")
    assert places[0] == places[1] != places[2]
    counts = [list(places[0].values()).count(split) for split in ("train", "val", "test")]
    assert counts == [14, 4, 2]


def test_what_is_there_stays_unless_allowed(converted, voc, out):
    (out / "labels/train").mkdir(parents=True)
    (out / "labels/train/a.txt").write_text("old")
    (out / "notes.txt").write_text("mine")
    code, said = converted()
    assert code == 2
    assert "is there already and not empty" in said
    assert (out / "labels/train/a.txt").read_text() == "old"
    assert converted("--exist-ok")[0] == 0
    assert (out / "labels/train/a.txt").read_text() != "old"
    assert (out / "notes.txt").read_text() == "mine"
    before = {path: path.read_bytes() for path in voc.rglob("*.*")}
    assert converted("--exist-ok", "--link")[0] == 0  # over copies, and then copies over links to the source
    assert converted("--exist-ok", "--copy")[0] == 0
    assert {path: path.read_bytes() for path in voc.rglob("*.*")} == before


def test_the_source_is_no_target(voc, capsys):
    before = sorted(voc.rglob("*"))
    for target in (voc, voc.parent):
        assert main(["voc", str(voc), str(target), "--exist-ok", "--to", "voc"]) == 2
        assert "holds the source" in capsys.readouterr().err
    assert sorted(voc.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_what_is_in_the_way_is_named_and_links_out_are_not_followed(converted, out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "labels").write_text("")
    assert "is in the way of the folder" in converted("--exist-ok")[1]
    (out / "labels").unlink()
    (out / "labels").symlink_to(elsewhere)
    code, said = converted("--exist-ok")
    assert code == 2
    assert "a link that leads out of" in said
    assert not list(elsewhere.rglob("*.txt"))


def test_an_interrupted_conversion_leaves_nothing(tmp_path):
    def interrupted(output):
        output.put_text("labels/a.txt", "0 0.5 0.5 1 1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "out") as output:
        interrupted(output)
    assert not list(tmp_path.iterdir())


def test_every_flag_is_documented():
    page = (PROJECT_ROOT / "docs" / "converters.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("## Flags\n")[1].splitlines() if line.startswith("| `--")]
    documented = {flag for row in rows for flag in re.findall(r"--[a-z-]+", row.split("|")[1])}
    flags = {name for action in make_parser()._actions for name in action.option_strings}
    assert documented == flags - {"-h", "--help"}


def test_command_line(converted, tmp_path):
    assert set(_FORMATS) == set(FORMATS)
    assert converted("--link", "--names", "dog, cat", "--one-based")[1].endswith(f"{tmp_path / 'out'} written\n")
    for words in (["voc", "a", "b", "--copy", "--link"], ["excel", "a", "b"], ["voc", "a", "b", "--to", "excel"]):
        with pytest.raises(SystemExit):
            main(words)
