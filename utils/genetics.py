"""A genetic search over the 13 augmentation hyperparameters, as functions of numbers and a generator; no files.

The rule is that of YOLOv5's later versions: a population of 50, parents by tournament (10 falling to 2 participants),
one-point crossover (probability 1 falling to 0.5), mutation of each key by U(-0.1, 0.1) (probability 0.5 falling to
0.01), and an elite of 2 rising to 4 that lives on. Optimizer, loss and anchor settings do not evolve.

Differs from it in:

- The length of the search is a number of trainings, for that is what its user pays for. The population is a sixth of
  it, at most 50 and at least 4, so that a search of any length has some six generations: 300 trainings mean a
  population of 50, 10 trainings one of 4. All rates fall with the share of the trainings that is over.
- The elite is not trained again, which with one seed would give the same figures once more. A child that has been
  trained before is mutated again, more and more likely, until it is new.
- A mutation is a share of the key's range, not an absolute number: 0.1 is as wide as the whole range of ``hsv_h`` and
  nothing for ``degrees``.
- In a small population a tournament has at most half of it as participants, and the elite is at most half of it;
  otherwise the best one would be the only parent. The two parents are never the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITS: dict[str, tuple[float, float]] = {
    "hsv_h": (0.0, 0.1),
    "hsv_s": (0.0, 0.9),
    "hsv_v": (0.0, 0.9),
    "degrees": (0.0, 45.0),
    "translate": (0.0, 0.9),
    "scale": (0.0, 0.9),
    "shear": (0.0, 10.0),
    "perspective": (0.0, 0.001),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
}

_LARGEST_POPULATION, _LEAST_POPULATION, _GENERATIONS = 50, 4, 6
_STEP = 0.1  # largest mutation, as a share of a key's range
_DECIMALS = 5  # of an evolved value; what a person can still read

Genes = dict[str, float]


@dataclass(frozen=True)
class Rates:
    """How the next generation is made.

    Attributes:
        tournament: participants of which the best becomes a parent.
        elite: individuals that live on.
        crossover: probability that a child has two parents.
        mutation: probability that one of its keys changes.
    """

    tournament: int
    elite: int
    crossover: float
    mutation: float

    @classmethod
    def at(cls, progress: float) -> Rates:
        """The rates when a share of the search, 0..1, is over; beyond 1 they stay."""
        share = min(progress, 1.0)
        return cls(
            tournament=round(10 - 8 * share), elite=round(2 + 2 * share), crossover=1 - 0.5 * share,
            mutation=0.5 - 0.49 * share,
        )  # fmt: skip


def population_size(trainings: int) -> int:
    """Individuals of a generation, for a search of this many trainings."""
    return min(max(trainings // _GENERATIONS, _LEAST_POPULATION), _LARGEST_POPULATION, trainings)


def elite_size(population: int, rates: Rates) -> int:
    """How many live on; at most half, so that there is always a child."""
    return min(rates.elite, population // 2)


def misfits(values: Mapping[str, Any]) -> list[str]:
    """What keeps a hyperparameter file out of a population: ``key: value`` of each that is no number within limits."""
    return [f"{key}: {values.get(key)!r}" for key, limits in LIMITS.items() if not _is_within(values.get(key), limits)]


def _is_within(value: Any, limits: tuple[float, float]) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and limits[0] <= value <= limits[1]


def random_genes(rng: np.random.Generator) -> Genes:
    """An individual drawn evenly within the limits."""
    return {key: _rounded(rng.uniform(low, high)) for key, (low, high) in LIMITS.items()}


def tournament(fitness: Sequence[float], size: int, rng: np.random.Generator) -> int:
    """Draw participants, no one twice; the fittest wins.

    Args:
        fitness: of every individual.
        size: participants; at most half of all individuals, rounded up, take part.
        rng: for the draw.

    Returns:
        Index of the winner; of equally fit ones the first.
    """
    participants = min(size, math.ceil(len(fitness) / 2))
    drawn = rng.choice(len(fitness), participants, replace=False).tolist()
    return min(drawn, key=lambda place: (-fitness[place], place))


def fittest(fitness: Sequence[float], count: int) -> list[int]:
    """Places of the fittest individuals, the best first; of equally fit ones the first comes first."""
    return sorted(range(len(fitness)), key=lambda place: (-fitness[place], place))[:count]


def crossover(first: Mapping[str, float], second: Mapping[str, float], rng: np.random.Generator) -> Genes:
    """Cut both parents at one random key: the child is the first up to there, and the second from there on."""
    cut = int(rng.integers(1, len(LIMITS)))
    return {key: (first if place < cut else second)[key] for place, key in enumerate(LIMITS)}


def mutate(genes: Mapping[str, float], probability: float, rng: np.random.Generator) -> Genes:
    """Move each key with a probability by up to a tenth of its range to either side.

    Args:
        genes: where to start.
        probability: of each key's change, 0..1.
        rng: for the draws; their number is the same whatever happens.

    Returns:
        New values within the limits, also where the old ones were not.
    """
    moved = rng.random(len(LIMITS)) < probability
    steps = rng.uniform(-_STEP, _STEP, len(LIMITS))
    child = {}
    for (key, (low, high)), moves, step in zip(LIMITS.items(), moved, steps, strict=True):
        value = _rounded(genes[key] + step * (high - low)) if moves else genes[key]
        child[key] = min(max(value, low), high)
    return child


def breed(
    parents: Sequence[Mapping[str, float]],
    fitness: Sequence[float],
    rates: Rates,
    known: Collection[Genes],
    rng: np.random.Generator,
) -> tuple[Genes, tuple[int, ...]]:
    """Make a child that has not been there before.

    Args:
        parents: the present population.
        fitness: of each.
        rates: of this generation.
        known: all individuals so far.
        rng: for every draw.

    Returns:
        The child, and the places of its parents.
    """
    chosen = [tournament(fitness, rates.tournament, rng)]
    if rng.random() < rates.crossover and len(parents) > 1:
        others = [place for place in range(len(parents)) if place != chosen[0]]
        chosen.append(others[tournament([fitness[place] for place in others], rates.tournament, rng)])
        genes = crossover(parents[chosen[0]], parents[chosen[1]], rng)
    else:
        genes = dict(parents[chosen[0]])
    child, probability = mutate(genes, rates.mutation, rng), rates.mutation
    while child in known:
        probability = min(2 * probability, 1.0)
        child = mutate(genes, probability, rng)
    return child, tuple(chosen)


def _rounded(value: float) -> float:
    return round(float(value), _DECIMALS)
