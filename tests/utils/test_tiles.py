"""Tiles by hand: where they lie, which boxes they cut, and what becomes of those."""

from __future__ import annotations

import pytest
import torch

from utils.tiles import cut_sides, merge_tiles, plan_tiles

LEFT, RIGHT, WHOLE = [0, 0, 100, 100], [80, 0, 180, 100], [0, 0, 180, 100]  # two tiles of an image, 20 px in common
IMAGE = (100, 180)


def merged(found: dict[tuple[int, ...], list[list[float]]], image_hw: tuple[int, int] = IMAGE, **settings) -> list:
    """What is left of each tile's rows of x1 y1 x2 y2 score class."""
    rows = [torch.tensor(part, dtype=torch.float32).reshape(-1, 6) for part in found.values()]
    out = merge_tiles(rows, torch.tensor(list(found)).reshape(-1, 4), image_hw, **settings)
    return [[round(value, 3) for value in row] for row in out.tolist()]


def two(left: list, right: list, **settings) -> list:
    return merged({tuple(LEFT): left, tuple(RIGHT): right}, **settings)


# -- where tiles lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_hw", "size", "overlap", "tiles"),
    [
        ((1, 1), 640, 0.2, [[0, 0, 1, 1]]),
        ((100, 100), 100, 0.9, [[0, 0, 100, 100]]),
        ((50, 80), 100, 0.5, [[0, 0, 80, 50]]),
        ((50, 150), 100, 0.5, [[0, 0, 100, 50], [50, 0, 150, 50]]),
        ((50, 200), 100, 0, [[0, 0, 100, 50], [100, 0, 200, 50]]),
        ((50, 201), 100, 0, [[0, 0, 100, 50], [50, 0, 150, 50], [101, 0, 201, 50]]),
        ((120, 101), 100, 0.2, [[0, 0, 100, 100], [1, 0, 101, 100], [0, 20, 100, 120], [1, 20, 101, 120]]),
    ],
)
def test_tiles_by_hand(image_hw, size, overlap, tiles):
    assert plan_tiles(image_hw, size, overlap).tolist() == tiles


@pytest.mark.parametrize("size", [32, 100, 640])
@pytest.mark.parametrize("overlap", [0, 0.13, 0.2, 0.5, 0.9])
def test_tiles_cover_and_overlap_enough(size, overlap):
    for height, width in ((1, 1), (33, 640), (641, 99), (500, 777)):
        tiles = plan_tiles((height, width), size, overlap)
        seen = torch.zeros(height, width, dtype=torch.bool)
        for left, top, right, bottom in tiles.tolist():
            assert (bottom - top, right - left) == (min(size, height), min(size, width))
            seen[top:bottom, left:right] = True
        assert seen.all()
        for low, high in ((0, 2), (1, 3)):
            starts, ends = tiles[:, low].unique(), tiles[:, high].unique()
            assert (ends[:-1] - starts[1:] >= overlap * min(size, max(height, width)) - 1e-6).all()


def test_cut_sides_are_those_at_inner_borders():
    boxes = torch.tensor([[0, 0, 50, 50], [50, 10, 100, 100], [50, 10, 99, 90], [50, 10, 98, 90]])
    cut = cut_sides(boxes.float(), LEFT, IMAGE)  # a hundredth of the tile, 1 px, is near enough
    assert cut.tolist() == [[False] * 4, [False, False, True, False], [False, False, True, False], [False] * 4]
    middle = cut_sides(torch.tensor([[80.0, 50.0, 180.0, 150.0]]), [80, 50, 180, 150], (300, 300))
    assert middle.tolist() == [[True] * 4]
    assert cut_sides(torch.zeros(0, 6), LEFT, IMAGE).shape == (0, 4)


# -- merging -------------------------------------------------------------------------------------------------------


def test_nothing_found():
    assert merged({}) == []
    assert two([], []) == []
    assert merged({(0, 0, 1, 1): []}, (1, 1)) == []


def test_an_object_found_twice_is_one():
    assert two([[82, 10, 96, 30, 0.7, 0]], [[82, 11, 96, 30, 0.9, 0]]) == [[82, 11, 96, 30, 0.9, 0]]
    assert len(two([[82, 10, 96, 30, 0.7, 0]], [[82, 11, 96, 30, 0.9, 1]])) == 2
    assert len(two([[82, 10, 96, 30, 0.7, 0]], [[82, 11, 96, 30, 0.9, 1]], agnostic=True)) == 1


def test_a_part_goes_when_a_neighbour_has_the_whole():
    part, whole = [90, 40, 100, 60, 0.9, 0], [90, 40, 120, 60, 0.8, 0]  # IoU 1/3: suppression alone keeps both
    assert two([part], [whole]) == [whole]
    assert two([part], []) == [part]
    other_class = [*whole[:5], 1]
    assert two([part], [other_class]) == [part, other_class]
    assert two([part], [other_class], agnostic=True) == [other_class]


def test_a_faint_box_takes_no_sure_part_away():
    part, faint = [90, 40, 100, 60, 0.9, 0], [90, 40, 120, 60, 0.4, 0]
    assert two([part], [faint]) == [part, faint]


def test_what_is_not_cut_stays_inside_a_larger_box():
    small, large = [85, 45, 95, 55, 0.5, 0], [82, 10, 150, 90, 0.9, 0]
    assert two([small], [large]) == [large, small]


def test_the_whole_image_finds_what_no_tile_holds():
    halves = {tuple(LEFT): [[10, 10, 100, 90, 0.8, 0]], tuple(RIGHT): [[80, 10, 170, 90, 0.7, 0]]}
    assert merged({**halves, tuple(WHOLE): [[9, 10, 171, 90, 0.6, 0]]}) == [[9, 10, 171, 90, 0.6, 0]]


def test_parts_that_continue_each_other_are_joined():
    left, right = [60, 40, 100, 60, 0.6, 0], [80, 41, 130, 60, 0.8, 0]
    assert two([left], [right]) == [[60, 40, 130, 60, 0.8, 0]]
    assert sorted(two([left], [[*right[:5], 1]])) == sorted([left, [*right[:5], 1]])


def test_parts_that_only_meet_are_not_joined():
    left = [60, 40, 100, 60, 0.6, 0]
    elsewhere = [80, 70, 130, 95, 0.8, 0]
    assert two([left], [elsewhere]) == [elsewhere, left]
    taller = [80, 5, 130, 95, 0.8, 0]  # extents of 20 and 90 px along the border
    assert two([left], [taller]) == [taller, left]


def test_tiles_side_by_side_without_overlap():
    found = {(0, 0, 100, 100): [[70, 40, 100, 60, 0.6, 0]], (100, 0, 200, 100): [[100.5, 41, 130, 60, 0.8, 0]]}
    assert merged(found, (100, 200)) == [[70, 40, 130, 60, 0.8, 0]]


def test_a_row_of_tiles_joins_along_its_length():
    found = {
        (0, 0, 100, 50): [[50, 20, 100, 30, 0.5, 0]],
        (80, 0, 180, 50): [[80, 20, 180, 30, 0.9, 0]],
        (160, 0, 260, 50): [[160, 20, 200, 30, 0.7, 0]],
    }
    assert merged(found, (50, 260)) == [[50, 20, 200, 30, 0.9, 0]]


def test_four_tiles_join_around_their_corner():
    found = {
        (0, 0, 100, 100): [[60, 60, 100, 100, 0.5, 0]],
        (80, 0, 180, 100): [[80, 60, 140, 100, 0.6, 0]],
        (0, 80, 100, 180): [[60, 80, 100, 150, 0.7, 0]],
        (80, 80, 180, 180): [[80, 80, 140, 150, 0.8, 0]],
    }
    assert merged(found, (180, 180)) == [[60, 60, 140, 150, 0.8, 0]]


def test_a_side_is_joined_once_with_the_surest():
    left = [60, 40, 100, 60, 0.6, 0]
    sure, faint = [80, 40, 130, 60, 0.8, 0], [80, 34, 150, 66, 0.1, 0]
    assert two([left], [faint, sure]) == [[60, 40, 130, 60, 0.8, 0], faint]


def test_leftovers_inside_a_joined_box_go():
    left, right = [60, 40, 100, 80, 0.6, 0], [80, 40, 130, 80, 0.8, 0]
    leftover = [80, 62, 90, 72, 0.5, 0]
    assert two([left], [right, leftover]) == [[60, 40, 130, 80, 0.8, 0]]


def test_the_best_are_kept():
    rows = [[10 * n, 10, 10 * n + 8, 30, 0.1 * n, 0] for n in range(1, 8)]
    assert [row[4] for row in two(rows, [], max_det=2)] == [0.7, 0.6]


def test_thousands_of_boxes_are_merged():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1500, 2, generator=generator) * 80
    rows = torch.cat([corner, corner + 10, torch.rand(1500, 1, generator=generator), torch.zeros(1500, 1)], 1)
    rows[:500, 2] = 100  # cut
    shifted = rows + torch.tensor([80, 0, 80, 0, 0, 0])
    shifted[:500, 0] = 80
    out = merge_tiles([rows, shifted], torch.tensor([LEFT, RIGHT]), IMAGE, max_det=300)
    assert len(out) <= 300 and (out[:, 4].diff() <= 0).all()
