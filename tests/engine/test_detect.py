"""detect.py from end to end with a detector whose answers are known; see ``tiny_detector.py``."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import detect
from engine.cli import run_command
from engine.detection import DetectionSummary, run_detection
from engine.features import FeatureTap
from engine.options.detect import DetectOptions
from engine.predictor import Predictor, Selection
from engine.sources import resolve_source
from models.checkpoint import read_checkpoint, write_checkpoint
from models.common import DetectMultiBackend
from tiny_detector import NAMES, save_detector, save_video
from utils.datasets.sources import LoadImages
from utils.errors import BackendError, ConfigError, DatasetError, OptionError
from utils.image_io import read_image, write_image

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("logger_as_before")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A picture of 128 x 96 px, which a 64 px input sees at half size with 8 px of padding above and below."""
    folder = tmp_path / "图 片"
    folder.mkdir()
    write_image(folder / "照 片.png", np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    return folder


def go(weights: Path, source: Path | str, folder: Path, **options) -> DetectionSummary:
    settings = {"imgsz": 64, "device": "cpu", "project": str(folder / "runs"), **options}
    return run_detection(DetectOptions.from_kwargs(weights=str(weights), source=str(source), **settings))


def expected_boxes() -> np.ndarray:
    """All 64 cells of the 64 x 64 input in pixels of the 128 x 96 picture, clipped to it."""
    rows, columns = np.mgrid[0:8, 0:8].reshape(2, -1)
    x, y = 8 * columns + 4, 8 * rows + 4
    boxes = np.stack([2 * (x - 5), 2 * (y - 6.5 - 8), 2 * (x + 5), 2 * (y + 6.5 - 8)], 1)
    return np.clip(boxes, 0, [128, 96, 128, 96])


# -- the whole way -------------------------------------------------------------------------------------------------


def test_boxes_come_back_in_the_pixels_of_the_picture(weights, pictures):
    backend = DetectMultiBackend(weights)
    predictor = Predictor(backend, Selection(conf_thres=0.5))
    (result,) = predictor.stream(LoadImages(pictures, img_size=64, stride=backend.stride).iter_frames())
    found = result.boxes
    assert found.dtype == np.float32 and found.shape == (64, 6)
    expected = expected_boxes()
    np.testing.assert_array_equal(found[np.lexsort(found[:, :4].T[::-1]), :4], expected[np.lexsort(expected.T[::-1])])
    score = 1 / (1 + np.exp(-4.0))
    np.testing.assert_allclose(found[:, 4], score**2, rtol=1e-4)
    assert (found[:, 5] == 1).all()
    assert result.input_hw == (64, 64) and result.frame == 0 and result.names == NAMES
    np.testing.assert_array_equal(result.image, read_image(pictures / "照 片.png"))


def test_every_output_of_a_picture(weights, pictures, tmp_path):
    options = {"save_txt": True, "save_conf": True, "save_csv": True, "save_crop": True, "visualize": True}
    summary = go(weights, pictures, tmp_path, max_det=3, **options)
    run = tmp_path / "runs" / "exp"
    assert (summary.save_dir, summary.frames, summary.detections, summary.unreadable) == (run, 1, 3, ())
    saved = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    layers = {f"照 片/stage{i}_Conv_features.{suffix}" for i in range(3) for suffix in ("png", "npy")}
    crops = {f"crops/行人/照 片{number}.jpg" for number in ("", 2, 3)}
    assert saved == {"照 片.png", "labels/照 片.txt", "predictions.csv"} | crops | layers

    original, drawn = (read_image(folder / "照 片.png") for folder in (pictures, run))
    assert drawn.shape == original.shape and (drawn != original).any()
    rows = np.loadtxt(run / "labels" / "照 片.txt")
    assert rows.shape == (3, 6) and (rows[:, 0] == 1).all()
    size = np.array([128, 96])
    corners = np.c_[(rows[:, 1:3] - rows[:, 3:5] / 2) * size, (rows[:, 1:3] + rows[:, 3:5] / 2) * size]
    known = {tuple(box) for box in expected_boxes()}
    assert {tuple(np.rint(box)) for box in corners} <= known
    np.testing.assert_allclose(rows[:, 5], (1 / (1 + np.exp(-4.0))) ** 2, rtol=1e-4)
    maps = np.load(run / "照 片" / "stage0_Conv_features.npy")
    assert maps.shape == (8, 32, 32) and maps.dtype == np.float32


def test_nothing_found_leaves_the_picture_but_no_label_file(weights, pictures, tmp_path):
    options = {"save_txt": True, "save_csv": True, "save_crop": True}
    summary = go(weights, pictures, tmp_path, conf_thres=0.99, **options)
    assert summary.detections == 0
    np.testing.assert_array_equal(read_image(summary.save_dir / "照 片.png"), read_image(pictures / "照 片.png"))
    assert list((summary.save_dir / "labels").iterdir()) == [] and not (summary.save_dir / "crops").exists()
    assert (summary.save_dir / "predictions.csv").read_text().splitlines() == ["Image Name,Prediction,Confidence"]


def test_video_keeps_its_rate_and_its_frames(weights, tmp_path):
    save_video(tmp_path / "剪 辑.avi")
    summary = go(weights, tmp_path / "剪 辑.avi", tmp_path, save_txt=True, max_det=1)
    assert summary.frames == 5
    capture = cv2.VideoCapture(str(summary.save_dir / "剪 辑.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 12
    frames = []
    while (shot := capture.read())[0]:
        frames.append(shot[1])
    assert len(frames) == 5 and frames[0].shape == (48, 64, 3)
    assert abs(float(np.median(frames[3])) - 120) < 8
    labels = sorted(path.name for path in (summary.save_dir / "labels").iterdir())
    assert labels == [f"剪 辑_{number}.txt" for number in range(1, 6)]


def test_vid_stride_skips_frames(weights, tmp_path):
    save_video(tmp_path / "clip.avi")
    assert go(weights, tmp_path / "clip.avi", tmp_path, vid_stride=2, nosave=True).frames == 3


def test_runs_are_counted_up_unless_told_otherwise(weights, pictures, tmp_path):
    folders = [go(weights, pictures, tmp_path, save_txt=True, nosave=True).save_dir.name for _ in range(2)]
    again = go(weights, pictures, tmp_path, save_txt=True, nosave=True, exist_ok=True)
    assert [*folders, again.save_dir.name] == ["exp", "exp2", "exp"]
    lines = (again.save_dir / "labels" / "照 片.txt").read_text().splitlines()
    assert len(lines) == 2 * 64  # appended
    assert sorted(path.name for path in again.save_dir.iterdir()) == ["labels"]


def test_nothing_to_save_makes_no_folder(weights, pictures, tmp_path):
    assert go(weights, pictures, tmp_path, nosave=True).save_dir is None
    assert not (tmp_path / "runs").exists()


def test_unreadable_files_are_counted_and_the_rest_is_done(weights, pictures, tmp_path):
    (pictures / "broken.jpg").write_bytes(b"nothing")
    summary = go(weights, pictures, tmp_path, nosave=True)
    assert summary.frames == 1 and len(summary.unreadable) == 1 and "broken.jpg" in summary.unreadable[0]
    settings = {"imgsz": [64], "device": "cpu", "nosave": True}
    assert detect.main(DetectOptions(weights=[str(weights)], source=str(pictures), **settings)) == 1
    (pictures / "broken.jpg").unlink()
    assert detect.main(DetectOptions(weights=[str(weights)], source=str(pictures), **settings)) == 0


def test_classes_are_filtered(weights, pictures, tmp_path):
    assert go(weights, pictures, tmp_path, classes=[0], nosave=True).detections == 0
    assert go(weights, pictures, tmp_path, classes=[1], nosave=True).detections == 64
    with pytest.raises(OptionError, match="0 to 1"):
        go(weights, pictures, tmp_path, classes=[2], nosave=True)


def test_several_weights_vote_together(weights, pictures, tmp_path):
    second = save_detector(tmp_path / "second.pt", objectness=1.0)
    alone = go(second, pictures, tmp_path, nosave=True).detections
    options = DetectOptions(
        weights=[str(second), str(weights)], source=str(pictures), imgsz=[64], device="cpu", nosave=True, conf_thres=0.9
    )
    assert alone == 64
    assert run_detection(options).detections == 64  # the sure one's boxes, each once
    with pytest.raises(OptionError, match="--visualize"):
        run_detection(dataclasses.replace(options, visualize=True))


def test_names_come_from_a_data_set(weights, pictures, tmp_path):
    nameless = read_checkpoint(weights)
    nameless.meta.names.clear()
    nameless.meta.names.update({0: "0", 1: "1"})
    write_checkpoint(tmp_path / "nameless.pt", nameless)
    (tmp_path / "data.yaml").write_text("names: [bus, ship]\ntrain: x\nval: x\n")
    summary = go(tmp_path / "nameless.pt", pictures, tmp_path, data=str(tmp_path / "data.yaml"), save_csv=True)
    assert ",ship," in (summary.save_dir / "predictions.csv").read_text()


def test_test_time_augmentation_finds_the_same_classes(weights, pictures, tmp_path):
    summary = go(weights, pictures, tmp_path, augment=True, save_txt=True)
    labels = (summary.save_dir / "labels" / "照 片.txt").read_text().splitlines()
    assert labels and {line.split()[0] for line in labels} == {"1"}


def test_update_strips_the_weights(pictures, tmp_path):
    path = save_detector(tmp_path / "full.pt")
    before = path.stat().st_size
    go(path, pictures, tmp_path, update=True, nosave=True)
    assert path.stat().st_size < before
    assert read_checkpoint(path).optimizer is None
    assert go(path, pictures, tmp_path, nosave=True).detections == 64


def test_run_takes_keywords_and_returns_nothing(weights, pictures, tmp_path):
    kwargs = {"imgsz": (64, 64), "device": "cpu", "project": tmp_path / "runs", "name": "名", "save_txt": True}
    assert detect.run(weights=weights, source=pictures, **kwargs) is None
    assert (tmp_path / "runs" / "名" / "labels" / "照 片.txt").exists()
    with pytest.raises(OptionError, match="did you mean conf_thres"):
        detect.run(conf_thresh=0.5)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("999", "999: cannot be opened"),
        ("9" * 30, "999: cannot be opened"),
        ("rtsp://127.0.0.1:9/live", "rtsp://127.0.0.1:9/live: cannot be opened"),
        ("http://me:secret@127.0.0.1:9/stream", "^http://127.0.0.1:9/stream: cannot be opened"),
        ("http://127.0.0.1:9/a.streams", "cannot be opened"),
        ("gone.streams", r"gone\.streams: cannot be read as a list of streams"),
        ("screen 1 2", r"expected screen \[number\] \[left top width height\]"),
        ("screen 0 1 2 3 0", "width and height from 1"),
    ],
)
def test_live_sources_that_are_not_there_are_named(weights, tmp_path, source, message):
    with pytest.raises(DatasetError, match=message):
        go(weights, source, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_an_empty_source_does_not_mean_the_current_folder():
    with pytest.raises(OptionError, match="--source ''"):
        resolve_source("")


def test_a_run_folder_that_cannot_be_made_is_named(weights, pictures, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match="choose another --project"):
        go(weights, pictures, tmp_path)


def test_slivers_are_detected_in(weights, tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "tall.png", np.zeros((500, 3, 3), np.uint8))
    write_image(tmp_path / "in" / "wide.png", np.zeros((1, 900, 3), np.uint8))
    assert go(weights, tmp_path / "in", tmp_path).frames == 2


def test_a_source_is_also_looked_for_beside_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_source("tests/engine") == str(ROOT / "tests" / "engine")
    (tmp_path / "tests" / "engine").mkdir(parents=True)
    assert resolve_source("tests/engine") == "tests/engine"
    assert resolve_source("gone/*.jpg") == "gone/*.jpg"


def test_missing_source_and_weights_are_named(weights, pictures, tmp_path):
    with pytest.raises(DatasetError, match="no such place"):
        go(weights, tmp_path / "no such place", tmp_path)
    with pytest.raises(ConfigError, match=r"gone\.pt"):
        go(tmp_path / "gone.pt", pictures, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_no_window_without_a_display(weights, pictures, tmp_path, monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("DISPLAY is for Linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(BackendError, match="--view-img"):
        go(weights, pictures, tmp_path, view_img=True, nosave=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"conf_thres": 1.5},
        {"iou_thres": -0.1},
        {"max_det": 0},
        {"vid_stride": 0},
        {"batch_size": 0},
        {"line_thickness": 0},
        {"imgsz": [64, 64, 64]},
        {"imgsz": 0},
        {"save_format": 2},
        {"weights": []},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        DetectOptions.from_kwargs(**wrong)


def test_command_line_has_the_known_flags_and_defaults():
    options = detect.parse_opt([])
    assert options == DetectOptions()
    assert (options.conf_thres, options.iou_thres, options.max_det, options.image_size()) == (
        0.25,
        0.45,
        1000,
        (640, 640),
    )
    assert (options.source, options.project, options.name, options.line_thickness) == (
        "data/images",
        "runs/detect",
        "exp",
        3,
    )
    line = (
        "--weights a.pt b.pt --img 320 480 --conf 0.1 --iou 0.2 --classes 0 2 --save-format 1 --vid-stride 3 --agnostic"
    )
    options = detect.parse_opt(line.split())
    assert options.weights == ["a.pt", "b.pt"] and options.image_size() == (320, 480) and options.classes == [0, 2]
    assert (options.conf_thres, options.iou_thres, options.save_format, options.vid_stride) == (0.1, 0.2, 1, 3)
    assert options.agnostic_nms and not options.save_txt
    for alias in ("--imgsz", "--img", "--img-size"):
        assert detect.parse_opt([alias, "96"]).imgsz == [96]


# -- feature maps ---------------------------------------------------------------------------------------------------


def test_tap_listens_only_while_it_is_open(weights):
    backend = DetectMultiBackend(weights)
    image = torch.zeros(1, 3, 64, 64)
    with FeatureTap(backend.model) as tap:
        backend(image, augment=True)  # three passes; the first counts
        maps = tap.take()
        assert [(feature.layer, feature.kind, feature.values.shape) for feature in maps] == [
            (0, "Conv", (8, 32, 32)),
            (1, "Conv", (8, 16, 16)),
            (2, "Conv", (8, 8, 8)),
        ]
        assert tap.take() == []
    backend(image)
    assert tap.take() == []


# -- as a program --------------------------------------------------------------------------------------------------


def test_program_runs_without_a_display(weights, pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"nothing")
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, str(ROOT / "detect.py"), "--weights", str(weights), "--source", str(pictures)]
    done = subprocess.run(
        [*command, "--imgsz", "64", "--device", "cpu", "--max-det", "2"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "image 2/2" in done.stderr and "64x64 2 行人" in done.stderr and "Speed: " in done.stderr
    assert "1 source could not be read in full" in done.stderr and "broken.png" in done.stderr
    assert (tmp_path / "runs" / "detect" / "exp" / "照 片.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", " "], "--source"),
        (["--conf-thres", "2"], "--conf-thres 2.0"),
        (["--dnn", "--weights", "x.pt"], "--dnn x.pt"),
    ],
)
def test_program_ends_with_2_and_one_line_for_a_users_mistake(arguments, words, capsys):
    try:
        code = run_command(lambda: detect.main(detect.parse_opt(arguments)))
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
