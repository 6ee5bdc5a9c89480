"""Pictures handed over in any form come out as the same RGB array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import DatasetError
from utils.image_io import write_image
from utils.pictures import read_pictures

RGB = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]
GREY_AS_RGB = np.repeat(GREY[..., None], 3, 2)
ALPHA = np.full((40, 30, 1), 7, np.uint8)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "照 片.png"
    write_image(path, np.ascontiguousarray(RGB[..., ::-1]))
    return path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RGB, RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (RGB[..., ::-1][..., ::-1], RGB),
        (np.concatenate([RGB, ALPHA], 2), RGB),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(np.uint16) * 256, RGB),
        (RGB / 255, RGB),
        (RGB.astype(np.float32), RGB),
        (GREY, GREY_AS_RGB),
        (GREY[..., None], GREY_AS_RGB),
        (GREY[None], GREY_AS_RGB),
        ([torch.from_numpy(RGB).permute(2, 0, 1)], RGB),
        ([torch.from_numpy(RGB).permute(2, 0, 1).bfloat16().float() / 255], None),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(np.concatenate([RGB, ALPHA], 2)), RGB),
        (Image.fromarray(GREY), GREY_AS_RGB),
        (Image.fromarray(GREY.astype(np.uint16) * 256), GREY_AS_RGB),
        (Image.fromarray(GREY.astype(np.int32)), GREY_AS_RGB),
    ],
)
def test_every_form_is_rgb_in_8_bits(given, expected):
    (picture,) = read_pictures(given)
    assert picture.pixels.dtype == np.uint8 and picture.pixels.flags["C_CONTIGUOUS"]
    assert picture.pixels.shape == (40, 30, 3)
    if expected is not None:
        np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.file == "image0.jpg"


def test_files_by_text_and_path_keep_their_names(file):
    for picture in read_pictures([str(file), file, Image.open(file)]):
        np.testing.assert_array_equal(picture.pixels, RGB)
        assert picture.file == "照 片.jpg"


def test_names_of_arrays_count_through(file):
    assert [picture.file for picture in read_pictures((RGB, file, RGB))] == ["image0.jpg", "照 片.jpg", "image2.jpg"]
    assert read_pictures([]) == read_pictures(()) == []


def test_files_and_pillow_images_are_turned_by_exif(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: a viewer turns it clockwise
    Image.fromarray(RGB).resize((300, 400)).save(path, exif=exif, quality=95)
    from_file, from_pillow = read_pictures([path, Image.open(path)])
    assert from_file.pixels.shape == from_pillow.pixels.shape == (300, 400, 3)
    assert np.abs(from_file.pixels.astype(int) - from_pillow.pixels).mean() < 3  # two JPEG decoders


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://example.org/a.jpg", "nothing is fetched"),
        ("RTSP://camera/1", "nothing is fetched"),
        ("nowhere.jpg", "nowhere.jpg"),
        (".", "cannot be read"),
        (3, "image 0: expected a path, a Pillow image or an array, found int"),
        ([RGB, None], "image 1: .* NoneType"),
        (b"bytes", "found bytes"),
        (np.zeros(5), r"found float64 \(5,\)"),
        (np.zeros((2, 3, 40, 30)), r"\(2, 3, 40, 30\)"),
        (np.zeros((40, 30, 2)), r"\(40, 30, 2\)"),
        (np.zeros((0, 30, 3)), r"\(0, 30, 3\)"),
        (np.zeros((40, 30, 3), bool), "found bool"),
        (np.array([["a"]]), "found <U1"),
    ],
)
def test_what_cannot_be_read_is_named(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=expected):
        read_pictures(given)


def test_a_damaged_pillow_image_is_named(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DatasetError, match="image 1: the Pillow image"):
        read_pictures([RGB, Image.open(path)])
