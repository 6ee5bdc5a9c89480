"""The picture of an ablation."""

from __future__ import annotations

import pytest
from pictures import cut_off, ink, pixels_of

from utils.ablation_chart import AblationRow, plot_ablation
from utils.image_io import read_image

BASE = AblationRow("yolov5n", [0.50, 0.52, 0.51], [], None, (13.0, 14.0, 15.0), 0)
GREEN, RED, BLUE = (60, 157, 78), (209, 73, 91), (27, 108, 168)


def drawn(tmp_path, *rows):
    plot_ablation([BASE, *rows], tmp_path / "ablation.png")
    return read_image(tmp_path / "ablation.png")


def test_colours_say_what_is_more_than_chance(tmp_path):
    better = AblationRow("a", [0.6, 0.62, 0.61], [0.1, 0.1, 0.1], (0.09, 0.11), (20.0, 21.0, 22.0), 1)
    worse = AblationRow("b", [0.4, 0.42, 0.41], [-0.1, -0.1, -0.1], (-0.11, -0.09), (20.0, 21.0, 22.0), -1)
    chance = AblationRow("c", [0.5, 0.53, 0.50], [0.0, 0.01, -0.01], (-0.02, 0.02), (20.0, 21.0, 22.0), 0)
    pictures = {"all": drawn(tmp_path, better, worse, chance), "none": drawn(tmp_path, chance)}
    seen = {name: [pixels_of(one, colour) > 100 for colour in (GREEN, RED, BLUE)] for name, one in pictures.items()}
    assert seen == {"all": [True, True, True], "none": [False, False, True]}


def test_more_models_make_a_higher_picture(tmp_path):
    rows = [AblationRow(f"v{number}", [0.5], [0.0], None, (1.0, 1.0, 1.0), 0) for number in range(12)]
    assert drawn(tmp_path, *rows).shape[0] > 1.8 * drawn(tmp_path, rows[0]).shape[0]


@pytest.mark.parametrize("name", ["a-very-long-name-of-a-model-that-goes-on-and-on", "小目标"])
def test_nothing_trained_and_any_name_can_be_drawn(tmp_path, name):
    empty = AblationRow(name, [], [], None, (20.0, 21.0, 22.0), 0)
    plot_ablation([AblationRow("base", [], [], None, (1.0, 1.0, 1.0), 0), empty], tmp_path / "ablation.png")
    assert not cut_off(tmp_path / "ablation.png") and ink(tmp_path / "ablation.png") > 0.01


def test_long_names_that_differ_at_their_ends_can_be_told_apart(tmp_path):
    rows = [AblationRow(59 * "m" + end, [0.5], [0.0], None, (1.0, 1.0, 1.0), 0) for end in "ox"]
    first, second = (drawn(tmp_path, row) for row in rows)
    assert not cut_off(tmp_path / "ablation.png")
    assert first.shape == second.shape and (first != second).any()
