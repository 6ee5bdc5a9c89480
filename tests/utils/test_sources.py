"""Reading pictures and videos: paths, depths, orientation, damage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.datasets.sources import IMG_FORMATS, VID_FORMATS, LoadImages, find_files
from utils.errors import DatasetError
from utils.image_io import read_image, write_image

RNG = np.random.default_rng(3)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_video(path: Path, frames: int = 6, fps: float = 12.0) -> None:
    """Frame number n is evenly 30 * n bright."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for number in range(1, frames + 1):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.release()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures and a video below a name with a space and Chinese characters, and things to leave out."""
    place = tmp_path / "图 片 [1]"
    (place / "deeper").mkdir(parents=True)
    write_image(place / "b 二.png", picture())
    write_image(place / "a.JPG", picture())
    write_image(place / "deeper" / "c.png", picture())
    save_video(place / "clip 一.avi")
    (place / "notes.md").write_text("x")
    return place


# -- one picture ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("colour.png", np.dstack([np.full((3, 4), v, np.uint8) for v in (10, 20, 30)]), [10, 20, 30]),
        ("grey.png", np.full((3, 4), 77, np.uint8), [77, 77, 77]),
        ("deep.png", np.full((3, 4), 200 * 256 + 9, np.uint16), [200, 200, 200]),
        ("deep.tif", np.full((3, 4, 3), 200 * 256 + 9, np.uint16), [200, 200, 200]),
        ("alpha.png", np.dstack([np.full((3, 4), v, np.uint8) for v in (10, 20, 30, 0)]), [10, 20, 30]),
        ("grey.webp", np.full((3, 4, 3), 128, np.uint8), [128, 128, 128]),
        ("float.pfm", np.full((3, 4, 3), 0.2, np.float32), [51, 51, 51]),
        ("float.tif", np.full((3, 4), 0.2, np.float32), [51, 51, 51]),
    ],
)
def test_every_kind_becomes_8_bit_bgr(tmp_path, name, stored, expected):
    file = tmp_path / name
    cv2.imencode(file.suffix, stored)[1].tofile(file)
    image = read_image(file)
    assert image.shape == (3, 4, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image, np.broadcast_to(expected, (3, 4, 3)), atol=1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "mpo", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / f"turned.{suffix}", exif=exif)
    image = read_image(tmp_path / f"turned.{suffix}")
    assert image.shape == (32, 16, 3)
    assert image[:14].min() > 200 and image[18:].max() < 50  # white is on top now


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"this is no picture", "not a picture"),
        ("half.png", "cut", "damaged"),
        ("half.jpg", "cut", "cut off"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    file = tmp_path / name
    if content == "cut":
        encoded = cv2.imencode(file.suffix, picture(200, 200))[1].tobytes()
        content = encoded[: len(encoded) // 2]
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_image(file)
    assert name in str(caught.value)


def test_missing_file_and_unwritable_format_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DatasetError, match=r"\.dng"):
        write_image(tmp_path / "im.dng", picture())
    with pytest.raises(DatasetError, match="no folder"):
        write_image(tmp_path / "no folder" / "im.png", picture())


def test_jpeg_with_padding_behind_its_end_is_whole(tmp_path):
    data = cv2.imencode(".jpg", picture())[1].tobytes()
    (tmp_path / "padded.jpg").write_bytes(data + bytes(100))
    assert read_image(tmp_path / "padded.jpg").shape == (24, 32, 3)


# -- which files ---------------------------------------------------------------------------------------------------


def names(files: list[str]) -> list[str]:
    return [Path(file).name for file in files]


@pytest.mark.parametrize("source", ["", "nothing", "notes.md", "*.bmp"])
def test_nothing_to_read_is_an_error(folder, source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        find_files(folder / source if source else tmp_path / "empty")


def test_folder_gives_pictures_then_videos_and_does_not_go_deeper(folder):
    assert names(find_files(folder)) == ["a.JPG", "b 二.png", "clip 一.avi"]
    assert all(Path(file).is_absolute() for file in find_files(folder))


def test_patterns_lists_and_text_files(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names(find_files(f"{glob_safe(folder)}/**/*.png")) == ["b 二.png", "c.png"]
    assert names(find_files([folder / "clip 一.avi", str(folder / "a.JPG")])) == ["a.JPG", "clip 一.avi"]
    listing = folder / "list.txt"
    listing.write_text(f"./b 二.png\n\n{folder / 'a.JPG'}\ngone.png\n", encoding="utf-8")
    found = find_files(listing)
    assert names(found) == ["b 二.png", "a.JPG", "gone.png"]
    assert found[0] == str(folder / "b 二.png")


def glob_safe(path: Path) -> str:
    return str(path).replace("[", "[[]")


def test_a_link_keeps_its_own_name(folder):
    (folder / "link.png").symlink_to(folder / "b 二.png")
    assert names(find_files(folder / "link.png")) == ["link.png"]


def test_formats_are_those_that_users_know():
    assert isinstance(IMG_FORMATS, tuple) and isinstance(VID_FORMATS, tuple)
    assert {"jpg", "png", "webp", "pfm", "mpo"} <= set(IMG_FORMATS) and {"mp4", "gif", "ts"} <= set(VID_FORMATS)


# -- frame by frame ------------------------------------------------------------------------------------------------


def test_items_of_a_folder(folder):
    source = LoadImages(folder, img_size=64)
    assert len(source) == source.nf == 3
    items = [(source.mode, source.frame, *item) for item in source]
    assert len(items) == 2 + 6
    mode, frame, path, pixels, image, capture, title = items[1]
    assert (mode, frame, capture) == ("image", 0, None)
    assert path == str(folder / "b 二.png") and title == f"image 2/3 {path}: "
    np.testing.assert_array_equal(image, read_image(path))
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"] and pixels.shape == (3, 64, 64)
    mode, frame, path, pixels, image, capture, title = items[4]
    assert (mode, frame) == ("video", 3) and isinstance(capture, cv2.VideoCapture)
    assert title == f"video 3/3 (3/6) {path}: "
    assert image.shape == (48, 64, 3)
    assert abs(int(image.mean()) - 90) <= 3  # third frame


def test_network_input_is_rgb_letterboxed(tmp_path):
    image = np.zeros((32, 64, 3), np.uint8)
    image[..., 0] = 200  # blue
    write_image(tmp_path / "blue.png", image)
    (_, square, *_), (_, slim, *_) = (
        next(iter(LoadImages(tmp_path, img_size=64, stride=32, auto=auto))) for auto in (False, True)
    )
    assert square.shape == (3, 64, 64) and slim.shape == (3, 32, 64)
    assert (slim[2] == 200).all() and (slim[:2] == 0).all()
    assert (square[:, :16] == 114).all() and (square[:, 48:] == 114).all()


@pytest.mark.parametrize(
    ("stride", "brightness"), [(1, [30, 60, 90, 120, 150, 180]), (2, [30, 90, 150]), (4, [30, 150])]
)
def test_video_stride_takes_every_nth_frame_from_the_first(folder, stride, brightness):
    source = LoadImages(folder / "clip 一.avi", img_size=64, vid_stride=stride)
    means = [float(image.mean()) for _, _, image, _, _ in source]
    np.testing.assert_allclose(means, brightness, atol=3)
    assert source.frame == source.frames == len(brightness)


def test_transforms_replace_letterboxing(folder):
    _, pixels, image, _, _ = next(iter(LoadImages(folder / "a.JPG", transforms=lambda im: im[:2, :2])))
    np.testing.assert_array_equal(pixels, image[:2, :2])


def test_unreadable_files_are_remembered_and_passed_over(folder):
    (folder / "0.jpg").write_bytes(b"no picture")
    (folder / "0.mp4").write_bytes(b"no video")
    (folder / "list.txt").write_text("gone.png\n0.jpg\n0.mp4\na.JPG\n")
    source = LoadImages(folder / "list.txt", img_size=64)
    for _ in range(2):  # a second pass starts afresh
        assert [Path(path).name for path, *_ in source] == ["a.JPG"]
        assert len(source.unreadable) == 3
        assert all(
            name in reason for name, reason in zip(("gone.png", "0.jpg", "0.mp4"), source.unreadable, strict=True)
        )


def test_leaving_early_lets_go_of_the_video(folder):
    with LoadImages(folder / "clip 一.avi", img_size=64) as source:
        _, _, _, capture, _ = next(iter(source))
        assert capture.isOpened()
    assert not capture.isOpened() and source.cap is None
