"""The genetic search as arithmetic: limits, rates, tournaments, crossover, mutation."""

from __future__ import annotations

import numpy as np
import pytest

from engine.setup import HYPERPARAMETERS
from utils.genetics import (
    LIMITS,
    Rates,
    breed,
    crossover,
    elite_size,
    fittest,
    misfits,
    mutate,
    population_size,
    random_genes,
    tournament,
)

LOW = {key: low for key, (low, _) in LIMITS.items()}
HIGH = {key: high for key, (_, high) in LIMITS.items()}
MIDDLE = {key: (low + high) / 2 for key, (low, high) in LIMITS.items()}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def share(genes: dict[str, float]) -> np.ndarray:
    """Each value as a share of its key's range."""
    return np.array([(genes[key] - low) / (high - low) for key, (low, high) in LIMITS.items()])


def test_only_augmentation_evolves():
    assert tuple(LIMITS) == HYPERPARAMETERS[-13:]


# Sizes and rates ------------------------------------------------------------------------------------------------------


def test_a_search_of_any_length_has_several_generations():
    assert [population_size(count) for count in (1, 3, 4, 10, 60, 300, 5000)] == [1, 3, 4, 4, 10, 50, 50]


def test_rates_go_from_exploring_to_refining():
    assert Rates.at(0) == Rates(tournament=10, elite=2, crossover=1.0, mutation=0.5)
    assert Rates.at(0.5) == Rates(tournament=6, elite=3, crossover=0.75, mutation=pytest.approx(0.255))
    assert Rates.at(1) == Rates(tournament=2, elite=4, crossover=0.5, mutation=pytest.approx(0.01))
    assert Rates.at(1.5) == Rates.at(1)


def test_a_small_population_keeps_room_for_children():
    assert [elite_size(count, Rates.at(1)) for count in (1, 2, 4, 7, 50)] == [0, 1, 2, 3, 4]


# Individuals ----------------------------------------------------------------------------------------------------------


def test_random_individuals_fill_the_limits():
    drawn = np.array([share(random_genes(rng(seed))) for seed in range(500)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.06)
    assert (drawn.min(0) < 0.02).all()
    assert (drawn.max(0) > 0.98).all()


def test_misfits_are_named():
    assert misfits({**MIDDLE, "lr0": 5}) == misfits(LOW) == misfits(HIGH) == []
    assert misfits({**MIDDLE, "degrees": 46, "mosaic": "1", "flipud": True, "hsv_h": float("nan")}) == [
        "hsv_h: nan",
        "degrees: 46",
        "flipud: True",
        "mosaic: '1'",
    ]
    assert misfits({}) == [f"{key}: None" for key in LIMITS]


# Selection ------------------------------------------------------------------------------------------------------------


def test_the_fittest_come_first_and_ties_keep_their_order():
    assert fittest([0.1, 0.5, 0.3, 0.5], 3) == [1, 3, 2]
    assert fittest([], 2) == fittest([1.0], 0) == []


def test_a_tournament_of_two_favours_the_fit():
    fitness = [0.1, 0.2, 0.3, 0.4]
    wins = np.bincount([tournament(fitness, 2, rng(seed)) for seed in range(3000)], minlength=4)
    # Of the 6 pairs, the fittest is in 3 and wins all of them, the least fit wins none.
    np.testing.assert_allclose(wins / 3000, [0, 1 / 6, 2 / 6, 3 / 6], atol=0.03)


def test_a_tournament_never_has_more_than_half_of_all():
    fitness = [0.1, 0.2, 0.3, 0.4]
    assert {tournament(fitness, 10, rng(seed)) for seed in range(100)} == {1, 2, 3}
    assert tournament([0.7], 10, rng()) == 0
    assert {tournament([0.5, 0.5, 0.5], 2, rng(seed)) for seed in range(50)} == {0, 1}  # of a tie the first


# Children -------------------------------------------------------------------------------------------------------------


def test_crossover_cuts_once():
    cuts = []
    for seed in range(300):
        child = share(crossover(LOW, HIGH, rng(seed)))
        cuts.append(int((child == 0).sum()))
        assert child.tolist() == [0] * cuts[-1] + [1] * (13 - cuts[-1])
    assert set(cuts) == set(range(1, 13))  # both parents are always in it


def test_mutation_moves_each_key_as_often_as_it_should():
    children = np.array([share(mutate(MIDDLE, 0.3, rng(seed))) for seed in range(3000)])
    moved = np.abs(children - 0.5) > 1e-9
    # Rounding to 5 decimals can undo a step only where the range is as narrow as that of perspective.
    np.testing.assert_allclose(moved.mean(0), 0.3, atol=0.03)
    assert np.abs(children - 0.5).max() <= 0.1 + 0.005
    assert np.abs(children - 0.5).max() > 0.099
    assert mutate(MIDDLE, 0.0, rng()) == MIDDLE


def test_mutation_stays_within_the_limits():
    for start in (LOW, HIGH, {**MIDDLE, "degrees": 90.0, "mosaic": -1.0}):
        for seed in range(200):
            for probability in (0.0, 0.5, 1.0):
                assert misfits(mutate(start, probability, rng(seed))) == []


def test_values_have_five_decimals():
    child = mutate(MIDDLE, 1.0, rng())
    assert all(value == round(value, 5) for value in child.values())


def test_a_child_is_always_new():
    parents, known = [LOW, MIDDLE, HIGH], [LOW, MIDDLE, HIGH]
    for seed in range(300):
        child, places = breed(parents, [0.1, 0.2, 0.3], Rates.at(1), known, rng(seed))
        assert child not in known
        assert misfits(child) == []
        assert len(set(places)) == len(places)
        known.append(child)


def test_crossover_happens_as_often_as_it_should():
    rates = Rates(tournament=2, elite=2, crossover=0.7, mutation=0.1)
    pairs = [len(breed([LOW, MIDDLE, HIGH], [1, 2, 3], rates, [], rng(seed))[1]) == 2 for seed in range(2000)]
    assert np.mean(pairs) == pytest.approx(0.7, abs=0.04)


def test_one_parent_is_enough():
    child, places = breed([MIDDLE], [0.5], Rates.at(0), [MIDDLE], rng())
    assert places == (0,)
    assert child != MIDDLE


def test_the_same_generator_gives_the_same_child():
    def one(seed):
        return breed([LOW, MIDDLE, HIGH], [1, 2, 3], Rates.at(0.5), [], rng(seed))

    assert one(3) == one(3)
    assert one(3) != one(4)
