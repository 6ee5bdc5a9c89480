"""The individuals of an evolution: what has been trained, what comes next. No files; ``evolution_files`` keeps them.

Everything that is still to come follows from the individuals so far, the seed and the length of the search: child
number n draws from a generator of its own, so that going on after an interruption is the same as never stopping.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from utils.genetics import Genes, Rates, breed, elite_size, fittest, population_size, random_genes

_MAP50 = 2  # place among the results
_BREEDING = 0x6E5  # keeps these draws apart from those of the data and of training


@dataclass(frozen=True)
class Individual:
    """One set of augmentation hyperparameters, and how its training went.

    Attributes:
        number: of its training, from 1; also its row of ``evolve.csv``.
        generation: from 1.
        origin: where the values come from, in words.
        genes: the values.
        results: P, R, mAP50, mAP50-95, box, obj and cls loss; None before its training is over.
        failure: why its training came to nothing, else "".
    """

    number: int
    generation: int
    origin: str
    genes: Genes
    results: tuple[float, ...] | None = None
    failure: str = ""

    @property
    def fitness(self) -> float:
        """The mAP50 of its training; 0 where that failed."""
        reached = self.results[_MAP50] if self.results is not None and not self.failure else 0.0
        return reached if math.isfinite(reached) else 0.0


@dataclass
class Population:
    """All individuals so far, in the order of their trainings.

    Attributes:
        trainings: length of the search.
        seed: of every draw.
        individuals: trained ones, then those of the present generation that wait.
    """

    trainings: int
    seed: int
    individuals: list[Individual]

    @classmethod
    def found(cls, trainings: int, seed: int, known: Iterable[tuple[str, Genes]]) -> Self:
        """The first generation: individuals that are given, as far as there is room, the rest at random.

        Args:
            trainings: length of the search, from 1.
            seed: of every draw.
            known: (origin, values) of those to begin with, all different.
        """
        population = cls(trainings, seed, [])
        size = population_size(trainings)
        first = list(known)[:size]
        first += [("random", random_genes(population._generator(number))) for number in range(len(first) + 1, size + 1)]
        population.individuals = [Individual(number, 1, *one) for number, one in enumerate(first, start=1)]
        return population

    @property
    def trained(self) -> list[Individual]:
        """Those whose training is over."""
        return [one for one in self.individuals if one.results is not None]

    @property
    def best(self) -> Individual:
        """The fittest of those that are trained; of equally fit ones the first."""
        return max(self.trained, key=lambda one: (not one.failure, one.fitness, -one.number))

    @property
    def is_over(self) -> bool:
        """Whether as many trainings are over as were wanted."""
        return len(self.trained) >= self.trainings

    @property
    def at_end_of_generation(self) -> bool:
        """Whether nobody who is known waits for a training."""
        return len(self.trained) == len(self.individuals)

    def upcoming(self) -> Individual:
        """Whose training is next; makes the next generation when the present one is through. Not once it is over."""
        if self.at_end_of_generation:
            self.individuals += self._children()
        return self.individuals[len(self.trained)]

    def record(self, individual: Individual, results: Sequence[float], failure: str = "") -> Individual:
        """Note how the training of the upcoming individual went; returns it with that."""
        done = dataclasses.replace(individual, results=tuple(map(float, results)), failure=failure)
        self.individuals[individual.number - 1] = done
        return done

    def _children(self) -> list[Individual]:
        """The next generation, without the elite, which is trained already."""
        size, begun = population_size(self.trainings), len(self.individuals)
        rates = Rates.at(begun / self.trainings)
        count = min(size - elite_size(size, rates), self.trainings - begun)
        parents = self._parents(size)
        values, fitness = [one.genes for one in parents], [one.fitness for one in parents]
        known = [one.genes for one in self.individuals]
        children = []
        for number in range(begun + 1, begun + count + 1):
            genes, places = breed(values, fitness, rates, known, self._generator(number))
            known.append(genes)
            origin = "from " + " and ".join(str(parents[place].number) for place in places)
            children.append(Individual(number, self.individuals[-1].generation + 1, origin, genes))
        return children

    def _parents(self, size: int) -> list[Individual]:
        """The present population: the last generation, filled up with the best of the population before it."""
        parents: list[Individual] = []
        for generation in range(1, self.individuals[-1].generation + 1):
            children = [one for one in self.individuals if one.generation == generation]
            elite = fittest([one.fitness for one in parents], max(size - len(children), 0))
            parents = [parents[place] for place in elite] + children
        return parents

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng([_BREEDING, self.seed, number])
