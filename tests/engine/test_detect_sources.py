"""detect.py on each kind of source, each kind of output, and what happens when somebody presses Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import detect
from engine.detection import DetectionSummary, run_detection
from engine.options.detect import DetectOptions
from engine.predictor import FrameResult
from engine.progress import Progress
from engine.sinks import Frame, MediaSink
from stream_server import Camera, serving
from tiny_detector import save_video
from utils.drawing import colors
from utils.errors import DatasetError, OptionError
from utils.image_io import read_image, write_image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with pictures at two depths, a video and something else; spaces and Chinese in the names."""
    folder = tmp_path / "图 片"
    (folder / "夜 景").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("b.jpg", "a 一.png", "夜 景/b.jpg"):
        write_image(folder / name, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    save_video(folder / "剪 辑.avi")
    (folder / "notes.md").write_text("x")
    return folder


@pytest.fixture
def web(place) -> Iterator[str]:
    with serving(Camera(files=place)) as address:
        yield address


def go(weights: Path, source: Path | str, folder: Path, **options) -> DetectionSummary:
    settings = {"imgsz": 64, "device": "cpu", "project": str(folder / "runs"), "max_det": 2, **options}
    return run_detection(DetectOptions.from_kwargs(weights=str(weights), source=str(source), **settings))


def saved(summary: DetectionSummary) -> set[str]:
    return {path.relative_to(summary.save_dir).as_posix() for path in summary.save_dir.rglob("*") if path.is_file()}


def frames_of(video: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (shot := capture.read())[0]:
        frames.append(shot[1])
    return frames


def listing(place: Path, *lines: str) -> Path:
    (place / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    return place / "list.txt"


def animation(place: Path, name: str) -> Path:
    shots = [Image.new("RGB", (64, 48), (50 * number, 0, 0)) for number in range(4)]
    shots[0].save(place / name, save_all=True, append_images=shots[1:], duration=100)
    return place / name


ALL = {"b.jpg", "a 一.png", "剪 辑.mp4"}
SOURCES: dict[str, tuple[Callable[[Path], object], int, set[str]]] = {
    "picture": (lambda place: place / "a 一.png", 1, {"a 一.png"}),
    "folder": (lambda place: place, 7, ALL),
    "pattern": (lambda place: f"{place}/*.jpg", 1, {"b.jpg"}),
    "deep pattern": (lambda place: f"{place}/**/夜*/*.jpg", 1, {"b.jpg"}),
    "list": (lambda place: listing(place, "./b.jpg", str(place / "剪 辑.avi")), 6, {"b.jpg", "剪 辑.mp4"}),
    "video": (lambda place: place / "剪 辑.avi", 5, {"剪 辑.mp4"}),
    "GIF": (lambda place: animation(place, "动.gif"), 4, {"动.mp4"}),
    "animated WebP": (lambda place: animation(place, "动.webp"), 1, {"动.webp"}),
    "pages": (lambda place: animation(place, "页.tiff"), 1, {"页.tiff"}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_file(weights, place, tmp_path, kind):
    make, frames, files = SOURCES[kind]
    summary = go(weights, make(place), tmp_path)
    assert (summary.frames, summary.unreadable, saved(summary)) == (frames, (), files)
    assert summary.detections == 2 * frames


@pytest.mark.parametrize(("name", "frames"), [("b.jpg?size=full", 1), ("clip.avi", 5)])
def test_files_on_a_web_server(weights, place, tmp_path, web, name, frames):
    (place / "剪 辑.avi").rename(place / "clip.avi")
    summary = go(weights, f"{web}/{name}", tmp_path)
    assert (summary.frames, summary.unreadable) == (frames, ())
    assert saved(summary) == {"b.jpg" if frames == 1 else "clip.mp4"}
    assert go(weights, f"{web}/gone.jpg", tmp_path, nosave=True).unreadable[0].startswith(f"{web}/gone.jpg: cannot be")


def test_subfolders_are_searched_when_asked_and_kept_apart(weights, place, tmp_path):
    options = {"save_txt": True, "save_csv": True, "visualize": True}
    summary = go(weights, place, tmp_path, recursive=True, **options)
    assert summary.frames == 8
    written = saved(summary)
    assert written >= ALL | {"夜 景/b.jpg", "labels/b.txt", "labels/夜 景/b.txt", "夜 景/b/stage0_Conv_features.png"}
    labels = (summary.save_dir / "labels" / "夜 景" / "b.txt").read_text().splitlines()
    assert len(labels) == 2
    assert "夜 景/b.jpg,行人,0.96" in (summary.save_dir / "predictions.csv").read_text(encoding="utf-8")


def test_several_live_streams_become_a_video_each(weights, tmp_path):
    writer = [save_video(tmp_path / f"{name}.avi", frames=6) for name in ("东", "西")]
    (tmp_path / "cameras.streams").write_text("\n".join(map(str, writer)), encoding="utf-8")
    summary = go(weights, tmp_path / "cameras.streams", tmp_path, save_txt=True, batch_size=4)
    videos = sorted(name for name in saved(summary) if name.endswith(".mp4"))
    assert len(videos) == 2 and videos[0].endswith("东_avi.mp4") and videos[1].endswith("西_avi.mp4")
    shots = [frames_of(summary.save_dir / name) for name in videos]
    assert sum(map(len, shots)) == summary.frames and summary.unreadable == ()
    last = {name for name in saved(summary) if name.endswith("_5.txt")}
    assert len(last) == 2  # frames are numbered from 0, and the newest always comes


def test_a_stream_that_is_lost_goes_on_in_the_same_video(weights, tmp_path):
    camera = Camera(cuts=1, frames_before_cut=5)
    with serving(camera) as address:
        before = threading.active_count()
        options = DetectOptions.from_kwargs(
            weights=str(weights),
            source=f"{address}/stream",
            imgsz=64,
            device="cpu",
            project=str(tmp_path),
            view_img=False,
        )
        over = threading.Event()
        interrupter = threading.Thread(target=_interrupt_when, args=(lambda: camera.sent > 30, over), daemon=True)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            run_detection(options)
        over.set()
        interrupter.join()
        assert threading.active_count() <= before + 2  # the server's own
    (video,) = tmp_path.rglob("*.mp4")
    assert camera.connections == 2 and len(frames_of(video)) > 5


def _interrupt_when(happened: Callable[[], bool], over: threading.Event) -> None:
    """Ctrl-C once something has happened, or after a minute; and again where it got lost, so that nothing hangs."""
    given_up = time.monotonic() + 60
    while not happened() and time.monotonic() < given_up:
        time.sleep(0.01)
    while not over.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(30)


# -- damage ----------------------------------------------------------------------------------------------------------


def test_damage_is_reported_and_passed_over(weights, place, tmp_path):
    whole = save_video(place / "cut.avi", frames=40).read_bytes()
    (place / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (place / "empty.mp4").write_bytes(b"")
    (place / "folder.jpg").mkdir()
    (place / "text.jpg").write_text("no picture")
    (place / "half.png").write_bytes((place / "a 一.png").read_bytes()[:500])
    options = {"imgsz": [64], "device": "cpu", "project": str(tmp_path / "runs"), "max_det": 1, "batch_size": 3}
    assert detect.main(DetectOptions(weights=[str(weights)], source=str(place), **options)) == 1
    summary = go(weights, place, tmp_path, nosave=True)
    assert {Path(reason.split(": ")[0]).name for reason in summary.unreadable} >= {"empty.mp4", "text.jpg", "half.png"}
    assert {path.name for path in (tmp_path / "runs" / "exp").iterdir()} >= ALL


def test_a_frame_of_another_size_is_not_lost(weights, tmp_path):
    """OpenCV's writer drops such frames without a word."""
    sink = MediaSink(tmp_path)
    for number, height in enumerate((48, 48, 96, 96, 96)):
        image = np.zeros((height, 64, 3), np.uint8)
        sink.write(Frame(FrameResult(Path("cam"), image, np.zeros((0, 6)), {}, frame=number, stream=True)))
    sink.close()
    assert [len(frames_of(tmp_path / name)) for name in ("cam.mp4", "cam_2.mp4")] == [2, 3]


# -- outputs ---------------------------------------------------------------------------------------------------------

OUTPUTS: dict[str, tuple[dict, dict[str, str | None]]] = {
    "pictures": ({}, {"b.jpg": None}),
    "nothing": (
        {"nosave": True, "save_csv": True},
        {"predictions.csv": "Image Name,Prediction,Confidence\r\nb.jpg,行人,0.96\r\n"},
    ),
    "txt": ({"nosave": True, "save_txt": True}, {"labels/b.txt": "1 0.0703125 0.0208333 0.140625 0.0416667\n"}),
    "txt with confidence": (
        {"nosave": True, "save_txt": True, "save_conf": True},
        {"labels/b.txt": "1 0.0703125 0.0208333 0.140625 0.0416667 0.964351\n"},
    ),
    "corners": (
        {"nosave": True, "save_txt": True, "save_format": 1},
        {"labels/b.txt": "1 0 0 0.140625 0.0416667\n"},
    ),
    "crops": ({"nosave": True, "save_crop": True}, {"crops/行人/b.jpg": None}),
    "json": ({"nosave": True, "save_json": True}, {"predictions.json": None}),
    "class left out": ({"nosave": True, "save_txt": True, "classes": [0]}, {}),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_kind_of_output(weights, place, tmp_path, kind):
    options, files = OUTPUTS[kind]
    summary = go(weights, place / "b.jpg", tmp_path, max_det=1, **options)
    assert saved(summary) == set(files)
    for name, text in files.items():
        if text is not None:
            assert (summary.save_dir / name).read_bytes().decode() == text


def test_json_is_in_cocos_form(weights, place, tmp_path):
    write_image(place / "000000000139.jpg", np.zeros((48, 64, 3), np.uint8))
    rows = json.loads((go(weights, place, tmp_path, save_json=True).save_dir / "predictions.json").read_text())
    assert len(rows) == 2 * 8
    by_image = {row["image_id"] for row in rows}
    assert by_image == {139, "a 一", "b", *(f"剪 辑_{number}" for number in range(1, 6))}
    first = next(row for row in rows if row["image_id"] == 139)
    assert set(first) == {"image_id", "category_id", "bbox", "score"}
    assert first["category_id"] == 1 and first["score"] == pytest.approx(0.96435, abs=1e-5)
    left, top, width, height = first["bbox"]
    assert left >= 0 and top >= 0 and left + width <= 64 and top + height <= 48
    assert (
        json.loads(
            (go(weights, place, tmp_path, save_json=True, conf_thres=0.99).save_dir / "predictions.json").read_text()
        )
        == []
    )


@pytest.mark.parametrize("batch_size", [2, 4, 64])
def test_batches_give_what_single_frames_give(weights, place, tmp_path, batch_size):
    write_image(place / "tall.png", np.random.default_rng(1).integers(0, 256, (90, 40, 3), dtype=np.uint8))
    options = {"save_csv": True, "save_txt": True, "max_det": 50, "nosave": True}
    alone, together = (go(weights, place, tmp_path, batch_size=size, **options) for size in (1, batch_size))
    assert saved(alone) == saved(together) and alone.detections == together.detections
    for name in saved(alone):
        assert (alone.save_dir / name).read_bytes() == (together.save_dir / name).read_bytes()


def test_labels_lie_over_all_boxes():
    crowded = np.array([[20, 40, 120, 90, 0.9, 0], [10, 25, 110, 80, 0.3, 1]], np.float32)
    image = np.full((100, 200, 3), 90, np.uint8)
    names = {0: "bus", 1: "行人"}
    both = Frame(FrameResult(Path("a.jpg"), image, crowded, names)).drawn
    plate = (both[22:38, 22:60] == np.array(colors(0, bgr=True))).all(2)
    assert plate.mean() > 0.3  # the sure one's plate, over the other's frame
    only_boxes = (both == np.array(colors(1, bgr=True))).all(2)
    assert only_boxes.any()


# -- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "every_frame", "lines"), [(2, False, 2), (1000, False, 0), (None, False, 0), (1000, True, 2)]
)
def test_few_frames_have_lines_and_many_a_bar(caplog, expected, every_frame, lines):
    one = FrameResult(Path("a.jpg"), np.zeros((4, 4, 3), np.uint8), np.zeros((3, 6)), {0: "bus"}, title="image 1/2: ")
    with caplog.at_level("INFO"), Progress(expected, every_frame) as progress:
        progress.show(one)
        progress.show(one)
    assert caplog.messages == ["image 1/2: 0x0 3 bus, 0.0ms"] * lines
    assert (progress.frames, progress.detections) == (2, 6)


# -- an interruption -------------------------------------------------------------------------------------------------


def test_ctrl_c_finishes_the_files_and_exits_with_130(weights, tmp_path):
    for name in ("a.avi", "b.avi"):
        save_video(tmp_path / name, frames=1500)
    command = [sys.executable, str(ROOT / "detect.py"), "--weights", str(weights), "--source", str(tmp_path / "*.avi")]
    process = subprocess.Popen(
        [*command, "--imgsz", "64", "--device", "cpu", "--save-json", "--save-txt", "--name", "run", "--verbose"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run = tmp_path / "runs" / "detect" / "run"
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "(40/1500)" in line:
            process.send_signal(signal.SIGINT)
            break
    seen += process.stderr.read().splitlines(keepends=True)
    assert process.wait(60) == 130, "".join(seen)
    assert seen[-1] == "interrupted\n" and any("results in" in line for line in seen)
    assert "Traceback" not in "".join(seen)
    shots = frames_of(run / "a.mp4")
    assert 40 <= len(shots) < 1500
    assert len(list((run / "labels").iterdir())) == len(shots)
    rows = json.loads((run / "predictions.json").read_text())
    assert len({row["image_id"] for row in rows}) == len(shots)


def test_wrong_lists_are_named(weights, place, tmp_path):
    with pytest.raises(DatasetError, match=r"is a stream; list streams in a file that ends in \.streams"):
        go(weights, listing(place, "rtsp://host/live"), tmp_path)
    with pytest.raises(OptionError, match="--batch-size"):
        go(weights, place, tmp_path, batch_size=0)


def test_exif_orientation_reaches_the_result(weights, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "turned.jpg", exif=exif)
    summary = go(weights, tmp_path / "turned.jpg", tmp_path)
    assert read_image(summary.save_dir / "turned.jpg").shape == (64, 32, 3)


# -- the documentation -----------------------------------------------------------------------------------------------


def documented_commands() -> list[str]:
    pages = ("README.md", "docs/detect.md")
    lines = [line.strip() for page in pages for line in (ROOT / page).read_text(encoding="utf-8").splitlines()]
    commands = {line for line in lines if line.startswith("python detect.py ")}
    return sorted(line for line in commands if "best.onnx" not in line)  # tests/engine/test_exported_files.py has those


def test_commands_are_found():
    assert len(documented_commands()) > 6


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_run(weights, place, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for folder in ("holiday/day 1", "data/images", "some/folder", "runs/train/exp/weights"):
        (tmp_path / folder).mkdir(parents=True)
    for copy in ("best.pt", "runs/train/exp/weights/best.pt"):
        (tmp_path / copy).write_bytes(weights.read_bytes())
    for copy in ("photo.jpg", "holiday/a.jpg", "holiday/day 1/b.jpg", "data/images/a.jpg", "some/folder/a.jpg"):
        (tmp_path / copy).write_bytes((place / "b.jpg").read_bytes())
    save_video(tmp_path / "video.mp4", codec="mp4v")
    (tmp_path / "list.txt").write_text("photo.jpg\nvideo.mp4\n")
    options = detect.parse_opt([*shlex.split(command)[2:], "--device", "cpu", "--max-det", "20"])
    summary = run_detection(options)
    assert summary.frames and summary.detections and summary.unreadable == () and saved(summary)
