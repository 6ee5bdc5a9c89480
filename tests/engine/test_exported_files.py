"""Files of export.py at work: detect.py, val.py, tiles and programs take them as they take a checkpoint."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_detector import FILES, SIZE, in_shares

import detect
import export
import hubconf
import val
from engine.cli import run_command
from engine.predictor import Selection
from engine.tiling import Tiling, detect_tiled
from models.autoshape import AutoShape
from models.backends.multi import DetectMultiBackend
from utils.errors import BackendError, OptionError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("logger_as_before")


@pytest.fixture
def val_pictures(tiny_set) -> Path:
    return tiny_set.parent / "images" / "val"


@pytest.fixture(scope="module")
def labels_of_pytorch(exported, tiny_set, tmp_path_factory) -> list[np.ndarray]:
    """What detect.py writes about each picture with the checkpoint."""
    pictures = tiny_set.parent / "images" / "val"
    return labels_by_detect(exported / "best.pt", pictures, tmp_path_factory.mktemp("pytorch"))


def labels_by_detect(weights: Path, source: Path, folder: Path, **options) -> list[np.ndarray]:
    run = {"imgsz": SIZE, "device": "cpu", "conf_thres": 0.3, "project": str(folder), **options}
    detect.run(weights=weights, source=str(source), nosave=True, save_txt=True, **run)
    tables = [np.loadtxt(file, ndmin=2) for file in sorted((folder / "exp" / "labels").glob("*.txt"))]
    return [table[np.lexsort(table.T)] for table in tables]


@pytest.mark.parametrize("kind", [*FILES, "opencv"])
def test_detect_and_val_take_the_file(kind, exported, labels_of_pytorch, tiny_set, val_pictures, tmp_path):
    file = exported / FILES.get(kind, "best.onnx")
    settings = {"imgsz": 96, "dnn": kind == "opencv"}  # the file's own size counts
    found = labels_by_detect(file, val_pictures, tmp_path / "detect", batch_size=5, **settings)  # the file takes two
    assert len(found) == len(labels_of_pytorch) == 3
    for ours, pytorch in zip(found, labels_of_pytorch, strict=True):
        np.testing.assert_allclose(ours, pytorch, atol=2 / SIZE)
    run = {"workers": 0, "plots": False, "device": "cpu", "conf_thres": 0.3, "project": str(tmp_path)}
    summary, maps, _ = val.run(tiny_set, file, **run, **settings)
    assert len(summary) == 7
    assert summary[4:] == (0, 0, 0)
    assert len(maps) == 2


@pytest.mark.parametrize("kind", list(FILES))
def test_a_program_and_tiles_take_the_file(kind, exported):
    pixels = np.random.default_rng(5).integers(0, 256, (SIZE, 3 * SIZE, 3), np.uint8)
    pictures = [pixels[:, :50], pixels[:40, SIZE : 2 * SIZE], pixels[:, 2 * SIZE :]]  # the file takes two at a time
    tiles, boxes = [], []
    for path in (exported / "best.pt", exported / FILES[kind]):
        model = hubconf.custom(path, device="cpu", _verbose=False)
        boxes.append([one.xyxy[0] for picture in pictures for one in model(picture, size=SIZE).tolist()])
        settings = {"imgsz": SIZE, "selection": Selection(conf_thres=0.3)}
        tiles.append(detect_tiled(model.model, pixels, Tiling(SIZE, 0.0, whole=False), **settings))
    ours = model.half()(pictures)  # of the file's size, not 640 px, and in its precision
    assert min(map(len, boxes[0])) > 2
    for wanted, alone, own in zip(*boxes, ours.xyxy, strict=True):
        torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-2)
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-2)
    assert len(tiles[0]) > 5
    np.testing.assert_allclose(*tiles, atol=1.01)  # boxes are in whole px


def test_suppression_inside_the_file(exported, with_suppression, val_pictures, tiny_set, tmp_path):
    """It finds in pictures and tiles what a plain file finds at the same thresholds."""
    weights, file = exported / "best.pt", with_suppression / "best.onnx"
    assert len(labels_by_detect(file, val_pictures, tmp_path)) == 3
    with pytest.raises(OptionError, match="--save-hybrid"):
        val.run(tiny_set, file, save_hybrid=True, workers=0, device="cpu", project=str(tmp_path))
    backend, plain = DetectMultiBackend(file), DetectMultiBackend(weights)
    pixels = np.random.default_rng(4).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    model, reference = AutoShape(backend), AutoShape(plain)
    reference.conf, reference.iou = 0.3, 0.5
    (found,), (wanted,) = model(pixels).xyxy, reference(pixels, size=SIZE).xyxy
    assert len(wanted) > 3
    torch.testing.assert_close(in_shares(found), in_shares(wanted), rtol=0, atol=1e-4)
    whole, selection = Tiling(SIZE), Selection(conf_thres=0.3, iou_thres=0.5)
    tiles = [detect_tiled(one, pixels, whole, imgsz=SIZE, selection=selection) for one in (backend, plain)]
    np.testing.assert_allclose(*tiles, atol=1.01)  # boxes are in whole px


@pytest.mark.parametrize("wrong", ["augment", "update", "visualize", "show_routing"])
@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_what_only_checkpoints_can_is_refused_before_the_run(kind, wrong, exported, val_pictures, tmp_path):
    asked = {wrong: "auto" if wrong == "show_routing" else True}
    with pytest.raises(OptionError, match=f"--{wrong.replace('_', '-')}.*pt"):
        detect.run(weights=exported / FILES[kind], source=str(val_pictures), project=str(tmp_path), **asked)
    assert not list(tmp_path.iterdir())


# -- the documented commands -----------------------------------------------------------------------------------------


def documented_commands() -> list:
    """Those about exported files and exports; the README's export is how the fixture ``exported`` is made."""
    commands: dict[str, bool] = {}
    for page in ("README.md", "docs/export.md"):
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            command = line.partition(" #")[0].strip()
            if re.match(r"python (export\.py|\w+\.py --weights best(\.onnx|\.torchscript|_\w+_model))", command):
                commands.setdefault(command, page != "README.md" or "export.py" in command)
    return [pytest.param(command, marks=[pytest.mark.slow] * slow) for command, slow in commands.items()]


def test_commands_are_found():
    assert len(documented_commands()) > 3


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_run(command, exported, tiny_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, script, *words = command.split()
    for name in ("best.pt", "best.onnx") if script != "export.py" else ("best.pt",):
        shutil.copyfile(exported / name, name)
    if script != "export.py":
        shutil.copytree(exported / "best_openvino_model", "best_openvino_model")
    shutil.copytree(tiny_set.parent, "mydata")
    shutil.copytree(tiny_set.parent / "images" / "val", "some/folder")
    before = set(tmp_path.rglob("*"))
    smaller = ["--workers", "0"] if script == "val.py" else ["--img", str(SIZE)]
    program = {"export.py": export, "detect.py": detect, "val.py": val}[script]
    monkeypatch.setattr("sys.argv", [script, *words, "--device", "cpu", *smaller])
    program.main(program.parse_opt())
    assert set(tmp_path.rglob("*")) > before


# -- files that cannot be run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "file"), [("onnxruntime", "best.onnx"), ("openvino", "best_openvino_model")])
def test_a_missing_runtime_is_named(package, file, exported, monkeypatch):
    monkeypatch.setattr("utils.environment._is_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=f"pip install {package}"):
        DetectMultiBackend(exported / file)


def damaged(whole: Path, folder: Path, part: str) -> Path:
    """A copy, a file of which is cut off at half of its length."""
    copy = folder / whole.name
    shutil.copytree(whole, copy) if whole.is_dir() else shutil.copyfile(whole, copy)
    target = copy / part
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    return copy


@pytest.mark.parametrize(
    ("name", "part", "dnn"),
    [
        ("best.pt", "", False),
        ("best.torchscript", "", False),
        ("best.onnx", "", False),
        ("best.onnx", "", True),
        ("best_openvino_model", "best.xml", False),
        ("best_openvino_model", "best.bin", False),
    ],
)
def test_a_damaged_file_is_one_line_and_exit_code_2(name, part, dnn, exported, val_pictures, tmp_path, capfd):
    broken = damaged(exported / name, tmp_path, part)
    words = ["--weights", str(broken), "--source", str(val_pictures), "--device", "cpu", *["--dnn"] * dnn]
    assert run_command(lambda: detect.main(detect.parse_opt(words))) == 2
    said = capfd.readouterr()
    errors = [line for line in (said.out + said.err).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(f"{name}.*damaged", errors[0])
    assert "ERROR" not in said.err
