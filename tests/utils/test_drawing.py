"""Annotator, palette, crops, fonts and feature tiles: where pixels land, and what must not crash."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.drawing import Annotator, colors, save_one_box, tile_channels
from utils.fonts import find_font, text_mask
from utils.image_io import read_image

GREY = 90


def blank(height: int = 100, width: int = 120) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


# -- palette -------------------------------------------------------------------------------------------------------


def test_palette_has_20_different_colours_and_repeats():
    cycle = [colors(i) for i in range(20)]
    assert len(set(cycle)) == 20
    assert colors(20) == colors(0) and colors(47) == colors(7)


@pytest.mark.parametrize("index", [0, 13, torch.tensor(3.0), np.int64(5)])
def test_palette_gives_three_ints_in_either_order(index):
    colour = colors(index)
    assert colors(index, bgr=True) == colour[::-1]
    assert all(type(value) is int and 0 <= value <= 255 for value in colour)


# -- annotator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pil", [False, True])
def test_box_is_drawn_where_it_belongs_in_the_colour_given(pil):
    drawn = Annotator(blank(), line_width=2, pil=pil)
    drawn.box_label([20, 30, 80, 70], "", color=(10, 200, 30))
    result = drawn.result()
    assert result.shape == (100, 120, 3) and result.dtype == np.uint8
    for row, column in ((30, 50), (70, 50), (50, 20), (50, 80)):  # middle of each side
        assert result[row, column].tolist() == [10, 200, 30]
    assert (result[40:60, 30:70] == GREY).all()  # inside untouched
    assert (result[:, 90:] == GREY).all()


def test_opencv_drawing_is_in_place_and_pillow_drawing_is_not():
    plain, copied = blank(), blank()
    annotator = Annotator(plain)
    annotator.box_label([20, 30, 80, 70], "abc")
    assert annotator.result() is plain and (plain != GREY).any()
    on_copy = Annotator(copied, example="猫")
    on_copy.box_label([20, 30, 80, 70], "abc")
    assert on_copy.pil and isinstance(on_copy.im, Image.Image)
    assert (copied == GREY).all() and (on_copy.result() != GREY).any()
    on_copy.result()[:] = 0  # a caller may draw on


@pytest.mark.parametrize("pil", [False, True])
def test_label_is_above_the_box_or_inside_without_room_and_never_outside(pil):
    above = Annotator(blank(), line_width=2, pil=pil)
    above.box_label([10, 60, 90, 95], "cat", color=(0, 0, 255))
    plate = (above.result() == (0, 0, 255)).all(2)
    assert plate[45:59, 11:20].any() and not plate[63:90, 14:80].any()

    inside = Annotator(blank(), line_width=2, pil=pil)
    inside.box_label([10, 2, 90, 95], "cat", color=(0, 0, 255))
    assert (inside.result() == (0, 0, 255)).all(2)[5:12, 11:20].any()

    right = Annotator(blank(), line_width=2, pil=pil)
    right.box_label([110, 60, 119, 95], "label", color=(0, 0, 255))
    assert (right.result()[40:58, 60:100] == (0, 0, 255)).all(2).any()  # moved left until it fits


@pytest.mark.parametrize("label", ["行人 0.87", "é ñ", "עברית", "🚗", "a$b_c", ""])
@pytest.mark.parametrize("example", ["abc", "行人"])
def test_any_label_can_be_drawn(label, example):
    annotator = Annotator(blank(), example=example)
    annotator.box_label(torch.tensor([5.0, 40.0, 60.0, 90.0]), label, color=colors(1))
    assert (annotator.result() != GREY).any()


def test_text_reaches_the_picture_and_differs_between_characters():
    shots = []
    for label in ("行", "车"):
        annotator = Annotator(blank(), line_width=3, example=label)
        annotator.text((10, 20), label)
        shots.append(annotator.result())
    assert all((shot[20:60, 10:60] > 150).any() for shot in shots)
    if find_font("行")[1] or int(cv2.__version__.split(".")[0]) >= 5:  # otherwise both are the same box
        assert (shots[0] != shots[1]).any()


@pytest.mark.parametrize("pil", [False, True])
def test_text_hangs_below_or_stands_on_its_anchor(pil):
    top, bottom = Annotator(blank(), pil=pil), Annotator(blank(), pil=pil)
    top.text((10, 50), "Xg")
    bottom.text((10, 50), "Xg", anchor="bottom")
    assert (top.result()[:50] == GREY).all() and (top.result()[50:] != GREY).any()
    assert (bottom.result()[50:] == GREY).all() and (bottom.result()[:50] != GREY).any()


def test_text_beyond_the_edge_is_cut_off():
    annotator = Annotator(blank())
    for spot in ((-30, -5), (115, 95), (500, 500), (-500, 10)):
        annotator.text(spot, "text")
    assert annotator.result().shape == (100, 120, 3)


def test_rectangle_fills_and_outlines():
    for pil in (False, True):
        annotator = Annotator(blank(), pil=pil)
        annotator.rectangle([10, 10, 30, 30], fill=(1, 2, 3), outline=(200, 100, 50))
        assert annotator.result()[20, 20].tolist() == [1, 2, 3]
        assert annotator.result()[10, 20].tolist() == [200, 100, 50]


@pytest.mark.parametrize(("shape", "width"), [((100, 120), 2), ((1000, 1000), 3), ((2000, 3000), 8)])
def test_line_width_follows_the_size(shape, width):
    assert Annotator(blank(*shape)).lw == width
    assert Annotator(blank(*shape), line_width=5).lw == 5


def test_a_view_is_refused_rather_than_drawn_on_in_vain():
    with pytest.raises(ValueError, match="contiguous"):
        Annotator(blank()[:, ::-1])


def test_fromarray_goes_on_with_another_picture():
    annotator = Annotator(blank())
    annotator.fromarray(np.zeros((50, 60, 3), np.uint8))
    annotator.box_label([5, 5, 20, 20])
    assert annotator.result().shape == (50, 60, 3)


# -- fonts ---------------------------------------------------------------------------------------------------------


def test_a_latin_font_is_always_there_and_a_missing_character_is_admitted():
    path, complete = find_font("abc 0.87")
    assert complete and path.endswith("DejaVuSans.ttf")
    path, complete = find_font("\U000e0fff")  # no character at all
    assert not complete and path.endswith("DejaVuSans.ttf")


def test_text_mask_grows_with_the_text_and_holds_it():
    short, longer = text_mask("a", 16), text_mask("aaaa", 16)
    assert longer.shape[1] > 2 * short.shape[1]
    assert short.max() > 200
    assert text_mask("", 16).max(initial=0) == 0


@pytest.mark.parametrize("text", ["行\n人", "\r…", "名\ud800", "\udcff.jpg", "…\x00", "\u2028"])
def test_what_is_no_character_is_drawn_as_a_question_mark(text):
    assert text_mask(text, 12).max() > 200
    Annotator(blank(), pil=True, example="名").box_label((10, 40, 60, 90), text)


# -- crops ---------------------------------------------------------------------------------------------------------


def gradient() -> np.ndarray:
    rows, columns = np.mgrid[0:100, 0:120]
    return np.stack([rows, columns, np.full_like(rows, 7)], 2).astype(np.uint8)


@pytest.mark.parametrize(
    ("box", "options", "expected"),
    [
        ([40, 30, 60, 50], {}, (24, 34, 55, 65)),  # 20 * 1.02 + 10 = 30.4 wide and high
        ([40, 30, 60, 50], {"gain": 1.0, "pad": 0}, (30, 40, 50, 60)),
        ([40, 40, 60, 50], {"gain": 1.0, "pad": 0, "square": True}, (35, 40, 55, 60)),
        ([0, 0, 10, 10], {}, (0, 0, 15, 15)),  # clipped
        ([100, 90, 120, 100], {}, (84, 94, 100, 120)),
    ],
)
def test_crop_has_the_margin_asked_for(box, options, expected):
    top, left, bottom, right = expected
    crop = save_one_box(torch.tensor(box).float(), gradient(), BGR=True, save=False, **options)
    np.testing.assert_array_equal(crop, gradient()[top:bottom, left:right])


def test_crop_is_bgr_whatever_comes_in():
    image = gradient()
    as_bgr = save_one_box([40, 30, 60, 50], image, BGR=True, save=False)
    from_rgb = save_one_box([40, 30, 60, 50], np.ascontiguousarray(image[..., ::-1]), BGR=False, save=False)
    np.testing.assert_array_equal(as_bgr, from_rgb)


def test_crop_files_are_counted_up(tmp_path):
    for _ in range(3):
        save_one_box(np.array([40, 30, 60, 50]), gradient(), file=tmp_path / "行 人" / "im.png", BGR=True)
    names = sorted(path.name for path in (tmp_path / "行 人").iterdir())
    assert names == ["im.jpg", "im2.jpg", "im3.jpg"]
    assert read_image(tmp_path / "行 人" / "im3.jpg").shape == (31, 31, 3)


def test_crop_outside_of_the_picture_is_empty_and_leaves_no_file(tmp_path):
    crop = save_one_box([300, 300, 320, 320], gradient(), file=tmp_path / "im.jpg")
    assert crop.size == 0 and not list(tmp_path.iterdir())


# -- feature maps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "tiles"), [(1, (1, 1)), (5, (1, 5)), (8, (1, 8)), (64, (4, 8))])
def test_channels_are_laid_out_in_rows_of_eight(channels, tiles):
    features = np.random.default_rng(0).normal(size=(channels, 4, 8)).astype(np.float32)
    picture = tile_channels(features, side=16)
    assert picture.shape == (tiles[0] * 12 + 4, tiles[1] * 20 + 4, 3)


def test_constant_and_broken_channels_are_shown_as_the_lowest_value():
    features = np.stack([np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(4)])
    picture = tile_channels(features, side=4, columns=3)
    first, second, third = (picture[4:8, 4 + 8 * index : 8 + 8 * index] for index in range(3))
    np.testing.assert_array_equal(first, second)
    assert (third[0, 0] != third[0, 1]).any() and (third[0, 1] == first[0, 0]).all()
