"""Moving average of weights and early stopping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from golden_formulas import assert_golden, fill_module, golden_json
from utils.ema import EarlyStopping, ModelEMA


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def test_the_average_is_a_separate_copy_in_eval_mode_without_gradients():
    model = small_model().train()
    average = ModelEMA(model)
    assert not average.ema.training
    assert model.training
    assert not any(value.requires_grad for value in average.ema.parameters())
    with torch.no_grad():
        model[0].weight.add_(1)
    assert not torch.equal(average.ema[0].weight, model[0].weight)


def test_an_update_by_hand():
    model = fill_module(small_model(), "old:")
    average = ModelEMA(model, decay=0.9, tau=10, updates=4)
    old = model[0].weight.detach().clone()
    fill_module(model, "new:")
    average.update(model)
    share = 0.9 * (1 - np.exp(-5 / 10))
    assert average.updates == 5
    torch.testing.assert_close(average.ema[0].weight, share * old + (1 - share) * model[0].weight.detach())


def test_what_never_changes_stays_exact_and_whole_numbers_are_left_alone():
    model = fill_module(small_model(), "frozen:")
    average = ModelEMA(model)
    model[1].num_batches_tracked += 7
    for _ in range(50):
        average.update(model)
    torch.testing.assert_close(average.ema[0].weight, model[0].weight, rtol=0, atol=0)
    assert average.ema[1].num_batches_tracked == 0


def test_a_wrapped_model_and_another_precision_are_understood():
    model = fill_module(small_model(), "wrapped:")
    average = ModelEMA(nn.DataParallel(model))
    average.update(nn.DataParallel(fill_module(small_model(), "other:").double()))
    assert average.ema[0].weight.dtype == torch.float32


def test_attributes_are_copied_by_name():
    model = small_model()
    average = ModelEMA(model)
    model.names, model.reducer, model.stride = {0: "a"}, "never", 32
    average.update_attr(model, include=("names",))
    assert average.ema.names == {0: "a"}
    assert not hasattr(average.ema, "stride")
    average.update_attr(model)
    assert average.ema.stride == 32
    assert not hasattr(average.ema, "reducer")


@pytest.mark.golden
def test_golden_average():
    case = golden_json("schedule")["ema"]
    model = fill_module(small_model(), case["start_salt"])
    average = ModelEMA(model)
    for updates, decay in case["decay"].items():
        assert average.decay(int(updates)) == pytest.approx(decay, abs=1e-12)
    for salt, want in zip(case["fill_salts"], case["after"], strict=True):
        average.update(fill_module(model, salt))
        for name, value in average.ema.state_dict().items():
            assert_golden(value.reshape(-1), np.array(want[name]))


def run_of(stopper: EarlyStopping, fitnesses) -> list[tuple[bool, bool]]:
    return [(stopper(epoch=epoch, fitness=fitness), stopper.possible_stop) for epoch, fitness in enumerate(fitnesses)]


def test_training_stops_after_patience_epochs_without_better_fitness():
    stopper = EarlyStopping(patience=3)
    told = run_of(stopper, [0.1, 0.5, 0.5, 0.4, 0.5])  # an equal fitness is not better
    assert told == [(False, False)] * 3 + [(False, True), (True, True)]
    assert (stopper.best_epoch, stopper.best_fitness) == (1, 0.5)


def test_patience_zero_never_stops():
    assert run_of(EarlyStopping(patience=0), [0.5] + [0.1] * 500) == [(False, False)] * 501


def test_a_fitness_that_is_no_number_is_never_better():
    stopper = EarlyStopping(patience=2, best_fitness=0.3, best_epoch=7)
    assert not stopper(epoch=8, fitness=float("nan"))
    assert stopper(epoch=9, fitness=float("nan"))
    assert stopper.best_epoch == 7
