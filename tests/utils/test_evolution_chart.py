"""The picture of an evolution."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evolution_chart import plot_evolution
from utils.genetics import LIMITS, random_genes
from utils.image_io import read_image


@pytest.mark.parametrize("count", [1, 60])
def test_the_picture_has_points_and_a_red_mark(tmp_path, count):
    rng = np.random.default_rng(3)
    individuals = [random_genes(rng) for _ in range(count)]
    values = {name: [one[name] for one in individuals] for name in LIMITS}
    plot_evolution(values, rng.uniform(0.2, 0.6, count), range(1, count + 1), tmp_path / "evolve.png", "mAP50")
    blue, green, red = np.moveaxis(read_image(tmp_path / "evolve.png").astype(int), 2, 0)
    assert ((red - green > 100) & (red - blue > 60)).sum() > 13 * 50  # the cross in each panel
    assert ((blue - red > 100).sum() > 1000) == (count > 1)  # many dots only where there are many trainings
