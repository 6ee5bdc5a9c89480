"""Streams from a real server on this machine: cut, refused, slow readers, several at once."""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_server import Camera, serving
from utils.datasets.screens import LoadScreenshots, screen_region
from utils.datasets.streams import LoadStreams, read_stream_list, stream_name, stream_names
from utils.errors import BackendError, DatasetError


def test_a_stream_that_is_cut_three_times_goes_on():
    camera = Camera(cuts=3, frames_before_cut=6, refused=1)
    with serving(camera) as address, closing(LoadStreams(f"{address}/stream", img_size=64)) as source:
        numbers, reader = [], source.readers[0]
        for frame in source.iter_frames():
            assert frame.image.shape == (48, 64, 3) and frame.pixels.shape == (3, 64, 64) and frame.stream
            numbers.append(frame.number)
            if reader.losses == 3 and reader.connected:
                break
        assert numbers == sorted(set(numbers))
        assert camera.connections == 7  # four that worked, three that were refused
        assert source.unreadable == []


def test_a_slow_reader_gets_the_newest_frame_and_no_frame_twice():
    camera = Camera(pause=0.005)
    with serving(camera) as address, closing(LoadStreams([f"{address}/stream"], img_size=64)) as source:
        frames = source.iter_frames()
        first = next(frames)
        while camera.sent < 60:
            time.sleep(0.01)
        second = next(frames)
        assert second.number > first.number + 20
        assert second.number < next(frames).number


def test_rounds_have_every_stream_and_black_for_one_that_is_lost(tmp_path):
    gone, lasting = Camera(cuts=99, frames_before_cut=20, refused=99), Camera(size_wh=(96, 48))
    listing = tmp_path / "两 路.streams"
    with serving(gone) as first, serving(lasting) as second:
        listing.write_text(f"{first}/stream\n\n  {second}/stream?user=x\n", encoding="utf-8")
        with closing(LoadStreams(listing, img_size=64)) as source:
            assert len(source) == len(source.fps) == len(source.frames) == 2 and source.mode == "stream"
            blacked = None
            for names, pixels, images, capture, text in itertools.islice(source, 4000):
                assert names == source.sources and (capture, text) == (None, "")
                assert pixels.shape == (2, 3, 64, 64) and pixels.dtype == np.uint8  # shapes differ: auto is dropped
                assert [image.shape for image in images] == [(48, 64, 3), (48, 96, 3)]
                blacked = not images[0].any() and source.readers[0].losses
                if blacked:
                    break
            assert blacked and source.count > 1


def test_a_video_in_a_list_of_streams_ends(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 50.0, (64, 48))
    for number in range(5):
        writer.write(np.full((48, 64, 3), 40 * number, np.uint8))
    writer.release()
    with closing(LoadStreams([str(tmp_path / "a.avi")], img_size=64)) as source:
        assert [frame.number for frame in source.iter_frames()][-1] == 4


def test_one_stream_that_is_not_there_is_reported_and_the_other_goes_on():
    with serving(Camera()) as address:
        with closing(LoadStreams([f"{address}/stream", f"{address}/nothing"], img_size=64)) as source:
            frames = list(itertools.islice(source.iter_frames(), 5))
            assert {str(frame.path) for frame in frames} == {source.sources[0]}
            assert len(source.unreadable) == 1 and "/nothing: cannot be opened" in source.unreadable[0]
        with pytest.raises(DatasetError, match="/nothing: cannot be opened"):
            LoadStreams([f"{address}/nothing"])


def test_closing_ends_the_threads():
    with serving(Camera()) as address:
        source = LoadStreams([f"{address}/stream"])
        source.close()
        assert not source.readers[0].is_alive()


def test_vid_stride_counts_the_frames_that_are_left():
    camera = Camera(cuts=99, frames_before_cut=20, refused=99)
    with serving(camera) as address, closing(LoadStreams([f"{address}/stream"], vid_stride=5)) as source:
        while not source.readers[0].losses:
            time.sleep(0.01)
        assert source.readers[0].number == 3


def test_names_are_fit_for_files_and_have_no_password():
    assert stream_name("rtsp://me:secret@host:554/live.sdp") == "rtsp___host_554_live_sdp"
    assert stream_name("0") == "0"
    assert stream_names(["0", "rtsp://a/1", "rtsp://b@a/1"]) == ["0", "rtsp___a_1", "rtsp___a_1_3"]
    long = stream_names([f"http://host/{'x' * 500}?{number}" for number in range(2)])
    assert len(set(long)) == 2 and max(map(len, long)) < 110


def test_lists_of_streams(tmp_path):
    (tmp_path / "a.streams").write_text("0\r\n\r\n rtsp://h/x \r\n")
    assert read_stream_list(tmp_path / "a.streams") == ["0", "rtsp://h/x"]
    assert read_stream_list("0") == ["0"]
    (tmp_path / "empty.streams").write_text("\n")
    with pytest.raises(DatasetError, match="is empty"):
        read_stream_list(tmp_path / "empty.streams")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("screen", (0, None)),
        ("screen 2", (2, None)),
        ("screen 10 20 300 200", (0, (10, 20, 300, 200))),
        ("SCREEN 1 -5 0 300 200", (1, (-5, 0, 300, 200))),
    ],
)
def test_screen_regions(source, expected):
    assert screen_region(source) == expected


@pytest.mark.parametrize(
    "source", ["screen x", "screen 1 2", "screen 1 2 3", "screen -1", "screen 0 0 0 5", "screen 1 2 3 4 5 6"]
)
def test_screens_written_wrong_are_refused(source):
    with pytest.raises(DatasetError, match="expected "):
        screen_region(source)


def test_the_screen_needs_a_package_and_a_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(BackendError, match=r"--source screen: (needs a package.*pip install|no screen can be seen)"):
        LoadScreenshots("screen")


def test_lists_are_beside_no_paths(tmp_path: Path):
    with pytest.raises(DatasetError, match="cannot be read as a list of streams"):
        read_stream_list(tmp_path / "gone.streams")
