"""Target assignment and the loss."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from golden_formulas import assert_golden, check_numbers, golden_arrays, golden_json, normal, sample_positions
from utils.assign import answering_cells, assign_level, fitting_pairs, last_claims
from utils.loss import ComputeLoss, LossSettings, binary_loss, level_weights, objectness_targets, scale_gains

HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "anchor_t": 4.0}


def stand_in_model(anchors, nc: int, hyp: dict, strides=(8.0, 16.0, 32.0, 64.0)) -> SimpleNamespace:
    """All that the loss reads of a model."""
    anchors = torch.as_tensor(anchors, dtype=torch.float32)
    head = SimpleNamespace(anchors=anchors, stride=torch.tensor(strides[: len(anchors)]), nc=nc)
    return SimpleNamespace(model=[head], hyp=hyp)


def small_model(nc: int = 3, **hyp) -> SimpleNamespace:
    return stand_in_model([[[2.0, 2.0], [4.0, 4.0]], [[2.0, 2.0], [4.0, 4.0]]], nc, HYP | hyp)


def small_levels(nc: int = 3, batch: int = 2) -> list[torch.Tensor]:
    return [torch.from_numpy(normal(f"level{side}", (batch, 2, side, side, nc + 5))) for side in (8, 4)]


# Assignment


def test_no_targets_match_nothing():
    matches = assign_level(torch.zeros(0, 6), torch.ones(3, 2), 8, 8, 4.0)
    assert [tuple(part.shape) for part in matches] == [(0,)] * 5 + [(0, 4), (0, 2)]


def test_sides_may_differ_by_less_than_the_threshold():
    sizes = torch.tensor([[2.0, 2.0], [7.9, 2.0], [8.0, 2.0], [2.0, 0.5], [0.0, 2.0]])
    anchor, target = fitting_pairs(sizes, torch.tensor([[2.0, 2.0], [32.0, 8.0]]), 4.0)
    assert list(zip(anchor.tolist(), target.tolist(), strict=True)) == [(0, 0), (0, 1)]  # equal to 4 is too much


@pytest.mark.parametrize(
    ("centre", "cells"),
    [
        ((2.5, 2.5), {0}),  # in the middle: strictly nearer than half a cell
        ((2.2, 2.7), {0, 1, 4}),  # left and down
        ((2.7, 2.2), {0, 2, 3}),  # up and right
        ((0.2, 7.9), {0}),  # nothing beyond the border
        ((1.0, 4.5), {0, 3}),  # on a line: both sides are near, but left of it would leave x > 1
    ],
)
def test_near_neighbours_answer_too(centre, cells):
    direction, pair = answering_cells(torch.tensor([centre]), torch.tensor([8.0, 8.0]))
    assert set(direction.tolist()) == cells
    assert pair.eq(0).all()


def test_offsets_are_measured_from_the_answering_cell():
    targets = torch.tensor([[1, 2, 2.25 / 8, 5.75 / 8, 3 / 8, 2 / 8]])
    matches = assign_level(targets, torch.tensor([[2.0, 2.0]]), 8, 8, 4.0)
    assert list(zip(matches.column.tolist(), matches.row.tolist(), strict=True)) == [(2, 5), (1, 5), (2, 6)]
    torch.testing.assert_close(
        matches.boxes, torch.tensor([[0.25, 0.75, 3, 2], [1.25, 0.75, 3, 2], [0.25, -0.25, 3, 2]])
    )
    assert matches.image.tolist() == [1] * 3
    assert matches.classes.tolist() == [2] * 3


def test_a_grid_higher_than_wide_keeps_rows_and_columns_apart():
    matches = assign_level(torch.tensor([[0, 0, 0.5, 1.0, 0.5, 0.25]]), torch.tensor([[2.0, 2.0]]), 8, 4, 4.0)
    assert matches.row.max() == 7  # the centre lies on the lower border
    assert matches.column.max() <= 3
    assert matches.flat_index(1, 8, 4).max() < 32


@pytest.mark.parametrize(("keys", "winners"), [([], []), ([5], [0]), ([3, 1, 3, 3, 1], [3, 4]), ([2, 1, 0], [0, 1, 2])])
def test_the_last_claim_wins(keys, winners):
    assert sorted(last_claims(torch.tensor(keys, dtype=torch.int64)).tolist()) == winners


def test_objectness_of_a_shared_cell_is_that_of_the_last_target():
    many = torch.arange(5000) % 7  # enough for a parallel write to come out in any order
    quality = torch.arange(5000, dtype=torch.float32)
    found = objectness_targets((1, 1, 2, 4), many, quality)
    torch.testing.assert_close(found.view(-1)[:7], torch.stack([quality[many == key][-1] for key in range(7)]))
    assert found.view(-1)[7] == 0


# Terms


def test_weights_of_the_levels():
    assert level_weights(3) == [4.0, 1.0, 0.4]
    assert level_weights(2) == [4.0, 1.0]
    assert level_weights(5) == [4.0, 1.0, 0.25, 0.06, 0.02]


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    chance = torch.sigmoid(logits)
    want = (0.25 * 0.5**1.5 * -chance[0].log() + 0.75 * chance[1] ** 1.5 * -(1 - chance[1]).log()) / 2
    torch.testing.assert_close(binary_loss(logits, targets, gamma=1.5), want)
    plain = (-chance[0].log() * 3 - (1 - chance[1]).log()) / 2
    torch.testing.assert_close(binary_loss(logits, targets, positive_weight=3.0), plain)


def test_gains_scale_with_the_task_and_the_given_ones_stay():
    given = {"box": 0.05, "cls": 0.5, "obj": 1.0, "lr0": 0.01}
    found = scale_gains(given, levels=4, classes=20, imgsz=320)
    assert found == pytest.approx({"box": 0.0375, "cls": 0.09375, "obj": 0.1875, "lr0": 0.01})
    assert given["box"] == 0.05


@pytest.mark.golden
@pytest.mark.parametrize("name", list(golden_json("schedule")["schedules"]))
def test_golden_gains(name):
    case = golden_json("schedule")["schedules"][name]
    found = scale_gains(case["hyp"], case["levels"], case["classes"], case["image_size"])
    assert {key: found[key] for key in ("box", "cls", "obj")} == pytest.approx(
        {key: case["hyp_after_scaling"][key] for key in ("box", "cls", "obj")}, abs=1e-8
    )


def test_settings_come_from_a_hyperparameter_mapping():
    settings = LossSettings.of(HYP | {"cls_pw": 2, "lr0": 0.01})
    assert settings == LossSettings(box=0.05, obj=1.0, cls=0.5, cls_pw=2.0)


# The whole


def test_without_targets_only_the_background_counts():
    levels = small_levels()
    total, items = ComputeLoss(small_model())(levels, torch.zeros(0, 6))
    want = sum(
        weight * torch.nn.functional.softplus(level[..., 4]).mean()
        for weight, level in zip((4, 1), levels, strict=True)
    )
    assert total.shape == (1,)
    torch.testing.assert_close(items, torch.tensor([0.0, float(want), 0.0]))
    torch.testing.assert_close(total, items.sum().view(1) * 2)


def test_every_output_of_a_matched_cell_gets_a_gradient_and_no_other_box():
    levels = [level.requires_grad_() for level in small_levels()]
    targets = torch.tensor([[0, 1, 0.4, 0.4, 0.3, 0.3]])
    loss = ComputeLoss(small_model())
    loss(levels, targets)[0].backward()
    _, _, indices, _ = loss.build_targets(levels, targets)
    for level, places in zip(levels, indices, strict=True):
        touched = torch.zeros(level.shape[:4], dtype=torch.bool)
        touched[places] = True
        assert (level.grad[touched] != 0).all()
        assert (level.grad[~touched][:, :4] == 0).all()
        assert (level.grad[..., 4] != 0).all()


def test_half_precision_predictions_give_a_float32_loss():
    targets = torch.tensor([[0, 1, 0.4, 0.4, 0.3, 0.3]])
    loss = ComputeLoss(small_model())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, items = loss([level.bfloat16() for level in small_levels()], targets)
    assert total.dtype == items.dtype == torch.float32
    torch.testing.assert_close(items, loss(small_levels(), targets)[1], atol=2e-2, rtol=2e-2)


def test_a_wrapped_model_is_looked_into():
    targets = torch.tensor([[0, 1, 0.4, 0.4, 0.3, 0.3]])
    wrapped = SimpleNamespace(module=small_model())
    torch.testing.assert_close(
        ComputeLoss(wrapped)(small_levels(), targets)[0], ComputeLoss(small_model())(small_levels(), targets)[0]
    )


def test_autobalance_follows_the_losses_and_keeps_stride_16_at_one():
    levels = small_levels()
    loss = ComputeLoss(small_model(), autobalance=True)
    before = ComputeLoss(small_model())(levels, torch.zeros(0, 6))[0]
    torch.testing.assert_close(loss(levels, torch.zeros(0, 6))[0], before)  # this batch still has the old weights
    terms = [float(torch.nn.functional.softplus(level[..., 4]).mean()) for level in levels]
    moved = [weight * 0.9999 + 0.0001 / term for weight, term in zip((4, 1), terms, strict=True)]
    assert loss.balance == pytest.approx([moved[0] / moved[1], 1.0])


def golden_case(name: str):
    case = golden_json("loss")["cases"][name]
    levels = []
    for index, shape in enumerate(case["prediction_shapes"]):
        values = normal(case["predictions"].replace("<level>", str(index)), shape, 0.5)
        np.testing.assert_allclose(check_numbers(values), case["prediction_checks"][index])
        levels.append(torch.from_numpy(values).requires_grad_())
    stored = {
        key.removeprefix(f"{name}."): value
        for key, value in golden_arrays("loss").items()
        if key.startswith(f"{name}.")
    }
    model = stand_in_model(case["anchors_over_stride"], case["nc"], case["hyp"])
    return ComputeLoss(model), levels, torch.from_numpy(stored["targets"]), stored


@pytest.mark.golden
@pytest.mark.parametrize("name", list(golden_json("loss")["cases"]))
def test_golden_matches(name):
    loss, levels, targets, want = golden_case(name)
    for index, (classes, boxes, places, anchors) in enumerate(zip(*loss.build_targets(levels, targets), strict=True)):
        columns = [*(place.numpy() for place in places), classes.numpy(), *boxes.numpy().T]
        order = np.lexsort(columns[::-1])  # by image, anchor, row, column, class, then box
        np.testing.assert_array_equal(np.stack(columns[:4], 1)[order], want[f"indices{index}"])
        np.testing.assert_array_equal(classes.numpy()[order], want[f"tcls{index}"])
        assert_golden(boxes[order], want[f"tbox{index}"])
        assert_golden(anchors[order], want[f"anchor{index}"])


@pytest.mark.golden
@pytest.mark.parametrize("name", list(golden_json("loss")["cases"]))
def test_golden_loss_and_gradients(name):
    loss, levels, targets, want = golden_case(name)
    total, items = loss(levels, targets)
    assert_golden(total, want["total"])
    assert_golden(items, want["items"])
    total.backward()
    for index, level in enumerate(levels):
        gradient = level.grad.numpy().reshape(-1)
        scale = np.abs(want[f"grad_top{index}"]).max()
        spread = want["grad_abs_sum"][index]
        sample = gradient[sample_positions(gradient.size, 64)]
        np.testing.assert_allclose(sample, want[f"grad_sample{index}"], atol=1e-3 * scale, rtol=0)
        top = gradient[want[f"grad_top_at{index}"]]
        np.testing.assert_allclose(top, want[f"grad_top{index}"], atol=1e-3 * scale, rtol=0)
        np.testing.assert_allclose(gradient.astype(float).sum(), want["grad_sum"][index], atol=1e-4 * spread, rtol=0)
        np.testing.assert_allclose(np.abs(gradient.astype(float)).sum(), spread, rtol=1e-4)
