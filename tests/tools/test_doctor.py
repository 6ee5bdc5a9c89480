"""The data doctor: every planted fault found by name, file and line, and nothing else; corrected copies; exit codes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sick_dataset import BAD_LINES, BOX, make_clean_dataset, make_sick_dataset, save_pair

from tools.doctor import main
from utils.datasets.cache import index_path
from utils.datasets.config import check_dataset
from utils.datasets.detection import LoadImagesAndLabels
from utils.doctor.correct import correct_lines, write_corrected
from utils.doctor.diagnosis import Diagnosis, diagnose
from utils.doctor.findings import Finding, Findings
from utils.doctor.kinds import ERROR, KINDS
from utils.doctor.quick import warn_of_data
from utils.errors import DatasetError
from utils.yaml_io import yaml_save

OF_THE_SET = {
    "data-yaml",
    "names-twice",
    "split-missing",
    "split-empty",
    "split-unlabelled",
    "split-same",
    "test-missing",
}
KIND_NAMES = [
    name for name in KINDS if name not in OF_THE_SET | {"classes-from-one", "annotation", "annotations-unusable"}
]
SIZE = 64
ROOT = Path(__file__).resolve().parents[2]


def places(found: Diagnosis, root: Path) -> set[tuple[str, str, int]]:
    """Kind, file below a folder and line of all findings."""
    listed = [finding for kind in found.findings.counts for finding in found.findings.of(kind)]
    return {
        (finding.kind, os.path.relpath(finding.file, root) if finding.file else "", finding.line) for finding in listed
    }


def state_of(root: Path) -> dict[str, tuple]:
    """What is in a folder: of every entry the content, the modification and the status time."""
    state = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        state[str(path.relative_to(root))] = (content, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return state


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """The folder of a set with a fault of every kind, what was planted, and what the doctor said."""
    root = tmp_path_factory.mktemp("sick")
    plants = make_sick_dataset(root)
    before = state_of(root)
    found = diagnose(root / "data.yaml", SIZE, quiet=True)
    assert state_of(root) == before
    return root, plants, found


# -- what is found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_planted_fault_is_found_at_its_place(sick, kind):
    root, plants, found = sick
    planted = {plant for plant in plants if plant[0] == kind}
    assert planted
    assert {place for place in places(found, root) if place[0] == kind} == planted
    assert found.findings.counts[kind] == len(planted)


def test_there_are_many_plants_and_nothing_else_is_found(sick):
    root, plants, found = sick
    assert len(plants) >= 40
    assert places(found, root) == plants


def test_a_clean_set_has_no_findings(tmp_path):
    found = diagnose(make_clean_dataset(tmp_path), SIZE, quiet=True)
    assert places(found, tmp_path) == set()
    assert not found.findings.harmful


def test_training_leaves_out_what_the_doctor_calls_lost(sick):
    """The doctor's figures are those that the data set has when it is trained on."""
    root, _, found = sick
    data = check_dataset(root / "data.yaml")
    train = LoadImagesAndLabels(data["train"], SIZE, nc=len(data["names"]))
    index_path(data["train"]).unlink()
    assert found.splits["train"].usable == len(train)
    assert found.splits["train"].objects == sum(map(len, train.labels))
    counts = np.bincount(np.concatenate(list(train.labels))[:, 0].astype(int), minlength=4)
    np.testing.assert_array_equal(found.balance.counts["train"], counts)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: shutil.rmtree(root / "images" / "train"), "split-missing"),
        (lambda root: shutil.rmtree(root / "images" / "val"), "data-yaml"),
        (lambda root: [path.unlink() for path in (root / "images" / "val").iterdir()], "split-empty"),
        (lambda root: [path.write_text("x") for path in (root / "images" / "val").iterdir()], "split-empty"),
        (lambda root: shutil.rmtree(root / "labels" / "train"), "split-unlabelled"),
        (lambda root: write_yaml(root, val="images/train"), "split-same"),
        (lambda root: write_yaml(root, test="images/test"), "test-missing"),
        (lambda root: write_yaml(root, names=["cat", "cat"]), "names-twice"),
        (lambda root: write_yaml(root, names={0: "cat", 2: "dog"}), "data-yaml"),
        (lambda root: (root / "data.yaml").write_text("train: [1\nval: 2"), "data-yaml"),
        (lambda root: count_from_one(root), "classes-from-one"),
    ],
)
def test_faults_of_the_whole_set(tmp_path, change, expected):
    file = make_clean_dataset(tmp_path)
    change(tmp_path)
    found = diagnose(file, SIZE, quiet=True)
    assert expected in found.findings.counts
    assert found.findings.harmful == (KINDS[expected].level == ERROR)


@pytest.mark.parametrize("pixels", [True, False])
def test_a_val_folder_within_the_training_images(tmp_path, pixels):
    make_clean_dataset(tmp_path)
    write_yaml(tmp_path, train="images")
    found = diagnose(tmp_path / "data.yaml", SIZE, pixels, quiet=True)
    assert found.findings.counts == {"split-overlap": 2}
    assert "train has it, too: this very file" in found.findings.of("split-overlap")[0].text


def write_yaml(root, **entries):
    content = {"path": str(root), "train": "images/train", "val": "images/val", "names": ["cat", "dog"], **entries}
    yaml_save(root / "data.yaml", content)


def count_from_one(root):
    for file in (root / "labels").rglob("[0-9].txt"):
        file.write_text("1 0.5 0.5 0.2 0.2\n2 0.3 0.3 0.2 0.2\n")


def test_a_syntax_error_has_its_line(tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text("names: [a]\ntrain: [1\nval: 2")
    (finding,) = diagnose(file, quiet=True).findings.of("data-yaml")
    assert (finding.file, finding.line) == (str(file), 3)


def test_a_subset_named_by_a_list_makes_no_orphans(tmp_path):
    make_clean_dataset(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(f"./images/train/{number}.png" for number in range(9)))
    write_yaml(tmp_path, train="train.txt")
    assert set(diagnose(tmp_path / "data.yaml", SIZE, quiet=True).findings.counts) == {"class-rare"}


def test_the_quick_look_reads_headers_only(sick):
    root, plants, _ = sick
    quick = diagnose(root / "data.yaml", SIZE, pixels=False, quiet=True)
    only_by_pixels = {"image-blank", "image-copy", "image-size", "split-overlap"}
    assert places(quick, root) == {plant for plant in plants if plant[0] not in only_by_pixels}


def test_findings_beyond_the_limit_are_counted(monkeypatch):
    monkeypatch.setattr("utils.doctor.findings.KEPT", 2)
    findings = Findings()
    findings.add(Finding("label-range", f"{number}") for number in range(5))
    assert findings.counts == {"label-range": 5}
    assert [finding.text for finding in findings.of("label-range")] == ["0", "1"]
    assert findings.total(ERROR) == 5


@pytest.mark.parametrize("name", ["train.json", "train.JSON"])
def test_labels_in_cocos_json_are_looked_at(tmp_path, name):
    write_yaml(tmp_path, train=name, val=name)
    rng = np.random.default_rng(4)
    images = [save_pair(tmp_path, "train", f"{number}.png", rng, None) for number in range(10)]
    boxes = [[8.0, 8.0, 20.0, 20.0], [30.0, 20.0, 4.0, 4.0], [30.0, 20.0, 4.0, 4.0]]
    sides = {"width": 64, "height": 48}
    content = {
        "images": [{"id": number, "file_name": file.name, **sides} for number, file in enumerate(images)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 3 * image + place, "image_id": image, "category_id": 1 + (place > 0), "bbox": box, "iscrowd": 0}
            for image in range(10)
            for place, box in enumerate(boxes[: 3 if image == 0 else 2])
        ],
    }
    (tmp_path / name).write_text(json.dumps(content))
    found = diagnose(tmp_path / "data.yaml", SIZE, quiet=True)
    assert found.findings.counts == {"split-same": 1, "annotation": 1, "objects-tiny": 10}
    assert found.findings.of("objects-tiny")[0].file == str(images[0])
    np.testing.assert_array_equal(found.balance.counts["train"], [10, 10])
    with pytest.raises(DatasetError, match=r"tools\.convert coco"):
        write_corrected(found, tmp_path / "fixed", quiet=True)
    write_yaml(tmp_path, train=name, val=name, names=["cat"])
    assert diagnose(tmp_path / "data.yaml", SIZE, quiet=True).findings.counts["annotations-unusable"] == 1


# -- corrected copies ----------------------------------------------------------------------------------------------

LEFT_FOR_A_PERSON = {
    *("label-columns", "label-number", "label-range", "label-class", "label-unknown-class", "label-two-classes"),
    *(
        "polygon-flat",
        "objects-tiny",
        "image-turned",
        "image-blank",
        "image-size",
        "image-unlabelled",
        "image-copy",
        "class-empty",
    ),
    "class-rare",
}


@pytest.mark.parametrize("link", [False, True])
def test_a_corrected_copy_loads_and_the_original_stays(sick, tmp_path, link):
    root, _, found = sick
    before = state_of(root)
    changes = write_corrected(found, tmp_path / "fixed", link, quiet=True)
    assert state_of(root) == before
    assert len((tmp_path / "fixed" / "changes.txt").read_text().splitlines()) == changes > 15
    data = check_dataset(tmp_path / "fixed" / "data.yaml")
    for split in ("train", "val", "test"):
        assert LoadImagesAndLabels(data[split], SIZE, nc=data["nc"])[0][0].shape == (3, SIZE, SIZE)
    assert (tmp_path / "fixed" / "images" / "train" / "good2.png").is_symlink() == link
    again = diagnose(tmp_path / "fixed" / "data.yaml", SIZE, quiet=True)
    assert set(again.findings.counts) == LEFT_FOR_A_PERSON
    stays = {(kind, f"labels/train/{name}.txt") for name, (kind, _) in BAD_LINES.items()}
    corrected = {
        f"labels/train/{name}.txt" for name in ("commas", "overshoot", "outline", "twice", "no-width", "beyond")
    }
    left = {(kind, file) for kind, file, line in places(again, tmp_path / "fixed") if line}
    assert left == {
        (kind, file) for kind, file in stays if file not in {*corrected, "labels/train/no-area-outline.txt"}
    }


@pytest.mark.parametrize(
    ("line", "corrected"),
    [
        (BOX, BOX),
        ("1.0  0.5 0.5\t0.2 0.2 ", "1.0  0.5 0.5\t0.2 0.2"),  # right, so it stays as it is
        ("0 0.5 0.5 1.002 0.4", "0 0.5 0.5 1 0.4"),
        ("0 1.002 0.5 0.2 0.4", "0 0.951 0.5 0.098 0.4"),
        ("0 0.95 0.5 0.2 0.4", "0 0.925 0.5 0.15 0.4"),
        ("0 0.5 0.5 1.2 0.4", "0 0.5 0.5 1.2 0.4"),  # no rounding: a person's to decide
        ("0 0.1 0.1 1.004 0.1 0.5 0.9", "0 0.1 0.1 1 0.1 0.5 0.9"),
        ("0,0.5,0.5,0.2,0.4", "0 0.5 0.5 0.2 0.4"),
        ("0; 0.5; 0.5; 0.2; 0.4", "0 0.5 0.5 0.2 0.4"),
        ("0 0,1 0,1 0,1 0,1", "0 0,1 0,1 0,1 0,1"),  # decimal commas are no separators
        ("0 nan 0.5 0.2 0.4", "0 nan 0.5 0.2 0.4"),
        ("0 1e999 0.5 0.2 0.4", "0 1e999 0.5 0.2 0.4"),
        ("-1 0.5 0.5 1.002 0.4", "-1 0.5 0.5 1.002 0.4"),
        ("0 1.009 0.5 0.01 0.4", None),
        ("0 0.5 0.5 0.2 0", None),
        ("0 0.5 0.5 1e-300 0.2", None),  # nothing is left of it in float32
        ("0 0.1 0.5 0.5 0.5 0.9 0.5", None),
    ],
)
def test_correcting_a_line(line, corrected):
    ((number, text, change),) = correct_lines(f"\r\n{line}\r\n")
    assert (number, text) == (2, corrected)
    assert bool(change) == (corrected is None or corrected.split() != line.split())


def test_images_of_one_name_get_labels_of_their_own(tmp_path):
    make_clean_dataset(tmp_path / "set")
    rng = np.random.default_rng(2)
    save_pair(tmp_path / "set", "train", "0.jpg", rng, BOX)
    write_corrected(diagnose(tmp_path / "set" / "data.yaml", quiet=True), tmp_path / "fixed", quiet=True)
    labels = sorted(path.name for path in (tmp_path / "fixed" / "labels" / "train").glob("0*.txt"))
    assert labels == ["0-2.txt", "0.txt"]


def test_a_copy_keeps_training_images_when_all_are_measured_with(tmp_path):
    file = make_clean_dataset(tmp_path / "set")
    write_yaml(tmp_path / "set", val=["images/val", "images/train"])
    found = diagnose(file, SIZE, quiet=True)
    assert found.findings.counts == {"split-overlap": 10}
    assert write_corrected(found, tmp_path / "fixed", quiet=True) == 0
    assert len(list((tmp_path / "fixed" / "images" / "train").iterdir())) == 10


def test_names_that_could_steer_a_terminal_are_spelled_out(tmp_path, capsys):
    file = make_clean_dataset(tmp_path / "set")
    save_pair(tmp_path / "set", "train", "\x1b[31mred\udcff\n", np.random.default_rng(3), None)
    report = tmp_path / "report.json"
    assert main([str(file), "--img", str(SIZE), "--json", str(report), "--fix", str(tmp_path / "fixed")]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and r"\x1b[31mred\udcff\n.png: there is no " in said
    assert json.loads(report.read_text())["counts"] == {"image-unlabelled": 1}


@pytest.mark.parametrize("place", ["there", "set/images/train/fixed"])
def test_a_copy_needs_a_place_of_its_own(tmp_path, place):
    file = make_clean_dataset(tmp_path / "set")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    before = state_of(tmp_path)
    with pytest.raises(DatasetError, match="choose"):
        write_corrected(diagnose(file, quiet=True), tmp_path / place, quiet=True)
    assert state_of(tmp_path) == before


# -- command line --------------------------------------------------------------------------------------------------


def test_exit_codes_and_json(sick, tmp_path, capsys):
    root, plants, _ = sick
    report = tmp_path / "report.json"
    assert main([str(root / "data.yaml"), "--img", str(SIZE), "--json", str(report), "--examples", "9"]) == 1
    said = capsys.readouterr().out
    assert f"found here\ntrain     {root}/images/train: " in said
    assert f"    {root}/labels/train/overshoot.txt:2: coordinate 1.002 is outside 0..1" in said
    assert said.index("label-range (4)") < said.index("worth a look") < said.index("label-duplicate (1)")
    written = json.loads(report.read_text())
    assert written["harmful"]
    assert len(written["findings"]) == sum(written["counts"].values()) == len(plants)
    assert written["splits"]["val"] == {
        "entries": [str(root / "images" / "val")], "same_as": None, "images": 7, "usable": 7, "objects": 7,
    }  # fmt: skip
    assert written["classes"][3] == {"number": 3, "name": "fish", "objects": {"train": 1, "val": 0, "test": 0}}
    assert main([str(make_clean_dataset(tmp_path / "clean")), "--quick", "--img", str(SIZE)]) == 0
    assert "no findings: this data set is ready for training" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere.yaml")]) == 2
    assert "nowhere.yaml: no such file" in capsys.readouterr().err


def test_warnings_alone_are_no_harm(tmp_path, capsys):
    file = make_clean_dataset(tmp_path)
    (tmp_path / "labels" / "val" / "0.txt").write_text(f"{BOX}\n{BOX}\n")
    assert main([str(file), "--img", str(SIZE)]) == 0
    assert "nothing would harm training; 1 finding worth a look" in capsys.readouterr().out


def test_fix_from_the_command_line(tmp_path, capsys):
    file = make_clean_dataset(tmp_path / "set")
    assert main([str(file), "--fix", str(tmp_path / "fixed"), "--link"]) == 0
    assert "0 changes listed" in capsys.readouterr().out
    assert main([str(file), "--fix", str(tmp_path / "fixed")]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    file.write_text("names: [cat]")
    assert main([str(file), "--fix", str(tmp_path / "other")]) == 2
    assert "train has no image that could be copied" in capsys.readouterr().err
    for words in (["--link"], ["--json", str(tmp_path)], ["--json", str(tmp_path / "no" / "a.json")], ["--img", "0"]):
        with pytest.raises(SystemExit) as stop:
            main([str(file), *words])
        assert stop.value.code == 2


def test_the_documentation_lists_every_kind():
    rows = [
        line for line in (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8").splitlines() if line[:3] == "| `"
    ]
    assert [row for row in rows if "`--" not in row] == [
        f"| `{kind.name}` | {kind.title} | {kind.advice} |" for kind in KINDS.values()
    ]


# -- what train.py says --------------------------------------------------------------------------------------------


def test_training_says_what_its_labels_tell(tmp_path, heard):
    heard.set_level(logging.INFO)
    data = check_dataset(make_clean_dataset(tmp_path))
    train, val = (LoadImagesAndLabels(data[split], SIZE, nc=2) for split in ("train", "val"))
    heard.clear()
    warn_of_data(train, val, data["names"], SIZE, "data.yaml")
    assert heard.text == ""
    (tmp_path / "labels" / "val" / "0.txt").write_text("0 0.5 0.5 0 0.1\n0 0.5 0.5 0.1 0.1\n")
    odd = LoadImagesAndLabels([data["val"], f"{data['train']}"], SIZE, nc=2)
    warn_of_data(train, odd, {0: "cat", 1: "dog", 2: "bird"}, SIZE, "data.yaml")
    lines = [
        record.getMessage()
        for record in heard.records
        if "doctor" in record.getMessage() or "val" in record.getMessage()
    ]
    assert any("10 of 12 images are also trained on" in line for line in lines)
    assert any("1 of 22 objects have no side of 8 px at --img 64" in line for line in lines)
    assert any(f"{tmp_path}/labels/val/0.txt: a box has no width" in line for line in lines)
    assert "class 2 (bird) has 0 objects in train" in heard.text
    assert "python -m tools.doctor data.yaml --img 64" in lines[-1]
