"""Each kind of output by itself, from frames whose detections are known."""

from __future__ import annotations

import csv
import dataclasses
import logging
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.predictor import FrameResult
from engine.progress import describe
from engine.sinks import CropSink, CsvSink, DrawingStyle, Frame, MediaSink, OpenVideo, TextSink, safe_name
from utils.drawing import Annotator, colors
from utils.errors import BackendError, OptionError
from utils.image_io import read_image, write_image
from utils.log import LOGGER


def result(boxes=(), path="/x/im.jpg", frame=0, size=(100, 200), names=None) -> FrameResult:
    rows = np.array(boxes, np.float32).reshape(-1, 6)
    image = np.full((*size, 3), 90, np.uint8)
    return FrameResult(Path(path), image, rows, names or {0: "cat", 3: "dog"}, frame=frame, fps=25.0)


TWO = [[20, 10, 60, 50, 0.876543, 3], [0, 0, 200, 100, 0.25, 0]]  # most confident first, as from suppression


@pytest.mark.parametrize(
    ("corners", "confidence", "lines"),
    [
        (False, False, ["0 0.5 0.5 1 1", "3 0.2 0.3 0.2 0.4"]),
        (False, True, ["0 0.5 0.5 1 1 0.25", "3 0.2 0.3 0.2 0.4 0.876543"]),
        (True, False, ["0 0 0 1 1", "3 0.1 0.1 0.3 0.5"]),
        (True, True, ["0 0 0 1 1 0.25", "3 0.1 0.1 0.3 0.5 0.876543"]),
    ],
)
def test_label_file_formats(tmp_path, corners, confidence, lines):
    sink = TextSink(tmp_path, corners, confidence)
    sink.write(Frame(result()))
    assert list((tmp_path / "labels").iterdir()) == [] and sink.count == 0
    sink.write(Frame(result(TWO)))
    sink.write(Frame(result(TWO, path="/x/clip.mp4", frame=7)))
    sink.close()
    assert (tmp_path / "labels" / "im.txt").read_text().splitlines() == lines
    assert (tmp_path / "labels" / "clip_7.txt").read_text().splitlines() == lines
    assert sink.count == 2


def test_label_numbers_have_six_digits(tmp_path):
    with closing(TextSink(tmp_path)) as sink:
        sink.write(Frame(result([[0, 0, 1, 1, 0.5, 0]], size=(3, 7))))
    assert (tmp_path / "labels" / "im.txt").read_text() == "0 0.0714286 0.166667 0.142857 0.333333\n"


def test_table_is_appended_under_one_header(tmp_path):
    for _ in range(2):
        with closing(CsvSink(tmp_path)) as sink:
            sink.write(Frame(result()))
            sink.write(Frame(result(TWO, path="/x/a, b.jpg", names={0: "cat", 3: 'say "dog"'})))
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    once = [["a, b.jpg", "cat", "0.25"], ["a, b.jpg", 'say "dog"', "0.88"]]
    assert rows == [["Image Name", "Prediction", "Confidence"], *once, *once]


def test_crops_are_clean_counted_up_and_stay_in_their_folder(tmp_path):
    frame = Frame(result([*TWO, TWO[0]], names={0: "../../up", 3: "traffic/light"}))
    assert frame.drawn is not frame.result.image
    with closing(CropSink(tmp_path)) as sink:
        sink.write(frame)
    with closing(CropSink(tmp_path)) as again:
        again.write(frame)
    saved = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert saved == [
        "crops/.._.._up/im.jpg",
        "crops/.._.._up/im2.jpg",
        "crops/traffic_light/im.jpg",
        "crops/traffic_light/im2.jpg",
        "crops/traffic_light/im3.jpg",
        "crops/traffic_light/im4.jpg",
    ]
    crop = read_image(tmp_path / "crops" / "traffic_light" / "im.jpg")
    assert crop.shape == (51, 51, 3)  # 40 * 1.02 + 10 around (40, 30)
    assert np.abs(crop.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    ("name", "folder"), [("person", "person"), ("a/b\\c", "a_b_c"), ("..", "_"), ("", "_"), ("行人", "行人")]
)
def test_safe_names(name, folder):
    assert safe_name(name) == folder


@pytest.mark.parametrize(
    ("style", "same_as"), [({"hide_labels": True}, ""), ({"hide_conf": True}, "dog"), ({}, "dog 0.88")]
)
def test_labels_on_pictures(style, same_as):
    drawn = Frame(result(TWO[:1]), DrawingStyle(2, **style)).drawn
    by_hand = Annotator(np.full((100, 200, 3), 90, np.uint8), line_width=2)
    by_hand.box_label(TWO[0][:4], same_as, color=colors(3, bgr=True))
    np.testing.assert_array_equal(drawn, by_hand.result())


def test_picture_kinds_that_cannot_be_written_become_jpeg(tmp_path):
    with closing(MediaSink(tmp_path)) as sink:
        for name in ("a.DNG", "b.mpo", "c.pfm", "d.WEBP", "e.tif"):
            sink.write(Frame(result(TWO, path=f"/x/{name}")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "c.jpg", "d.WEBP", "e.tif"]


def test_a_source_is_never_replaced_by_its_result(tmp_path):
    write_image(tmp_path / "im.png", np.zeros((10, 10, 3), np.uint8))
    with closing(MediaSink(tmp_path)) as sink, pytest.raises(OptionError, match="replace its source"):
        sink.write(Frame(result(path=tmp_path / "im.png")))
    assert read_image(tmp_path / "im.png").max() == 0


def test_sources_of_one_name_are_mentioned(tmp_path):
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    LOGGER.addHandler(handler)
    try:
        with closing(MediaSink(tmp_path)) as sink:
            sink.write(Frame(result(path="/x/im.jpg")))
            sink.write(Frame(result(path="/y/im.jpg")))
    finally:
        LOGGER.removeHandler(handler)
    assert len(seen) == 1 and "/x/im.jpg" in seen[0] and "/y/im.jpg" in seen[0]


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_video_is_playable_after_an_interruption(tmp_path, size):
    with pytest.raises(KeyboardInterrupt), ExitStack() as stack:
        sink = stack.enter_context(closing(MediaSink(tmp_path)))
        for number in range(1, 4):
            sink.write(Frame(result(TWO, path="/x/clip.avi", frame=number, size=size)))
        raise KeyboardInterrupt
    capture = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 25 and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert capture.read()[0]


def test_two_videos_after_each_other_become_two_files(tmp_path):
    with closing(MediaSink(tmp_path)) as sink:
        for path, frame in (("/x/a.mov", 1), ("/x/a.mov", 2), ("/x/b.gif", 1), ("/x/im.jpg", 0), ("/x/c.MP4", 1)):
            sink.write(Frame(result(path=path, frame=frame)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "c.mp4", "im.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_video_that_the_disk_has_no_room_for_is_reported(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink, noise = MediaSink(tmp_path), np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        for number in range(1, 9):
            one = result(path="/x/clip.avi", frame=number)
            noise.random(out=(frame := np.empty(one.image.shape)))
            sink.write(Frame(dataclasses.replace(one, image=(255 * frame).astype(np.uint8))))
        with pytest.raises(
            BackendError, match=r"clip\.mp4: the video is not whole \(0 of 8 frames\): is the disk full"
        ):
            sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.close()  # once is enough


def test_a_video_ends_when_the_disk_is_full(tmp_path):
    file = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    video = OpenVideo(writer, file, (64, 48))
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.least_free = 1 << 62  # more than any disk has
    with pytest.raises(OSError, match="No space left"):
        video.write(np.zeros((48, 64, 3), np.uint8))
    video.close()
    assert video.frames == 1


def test_log_line_of_a_frame():
    line = describe(result([*TWO, TWO[0]]))
    assert line == "0x0 1 cat, 2 dogs, 0.0ms"
    assert describe(result()) == "0x0 (no detections), 0.0ms"
