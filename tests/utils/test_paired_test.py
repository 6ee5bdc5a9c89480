"""Student's t and the paired test, against published tables and worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from utils.paired_test import adjust_by_holm, critical_t, mean_and_deviation, paired_t_test, two_sided_p

# Percentage points of the t distribution as printed in statistical tables: degrees of freedom, then t for a two-sided
# 0.10, 0.05, 0.01 and 0.001.
TABLE = [
    (1, 6.314, 12.706, 63.657, 636.619),
    (2, 2.920, 4.303, 9.925, 31.599),
    (3, 2.353, 3.182, 5.841, 12.924),
    (4, 2.132, 2.776, 4.604, 8.610),
    (5, 2.015, 2.571, 4.032, 6.869),
    (6, 1.943, 2.447, 3.707, 5.959),
    (9, 1.833, 2.262, 3.250, 4.781),
    (10, 1.812, 2.228, 3.169, 4.587),
    (29, 1.699, 2.045, 2.756, 3.659),
    (30, 1.697, 2.042, 2.750, 3.646),
    (120, 1.658, 1.980, 2.617, 3.373),
]
# Student's own example (1908): hours of sleep gained by ten patients, second drug less first
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"df{row[0]}")
@pytest.mark.parametrize(("column", "share"), [(1, 0.10), (2, 0.05), (3, 0.01), (4, 0.001)])
def test_quantiles_and_probabilities_are_those_of_the_tables(row, column, share):
    freedom, printed = row[0], row[column]
    assert critical_t(1 - share, freedom) == pytest.approx(printed, abs=6e-4)
    assert two_sided_p(printed, freedom) == pytest.approx(share, rel=2e-3)
    assert two_sided_p(critical_t(1 - share, freedom), freedom) == pytest.approx(share, rel=1e-9)


def test_probabilities_where_they_have_a_closed_form():
    assert two_sided_p(1.0, 1) == pytest.approx(0.5)  # Cauchy
    assert two_sided_p(math.sqrt(2), 2) == pytest.approx(1 - math.sqrt(0.5))
    for freedom in (1, 2, 3, 8):
        assert two_sided_p(0.0, freedom) == 1
        assert two_sided_p(-1.5, freedom) == two_sided_p(1.5, freedom)
        assert two_sided_p(math.inf, freedom) == pytest.approx(0, abs=1e-15)
        assert 0 <= two_sided_p(1e9, freedom) < 1e-8


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12, 51])
@pytest.mark.parametrize("t", [0.3, 1.7, 4.1])
def test_probabilities_are_the_integral_of_the_density(t, freedom):
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    x = (np.arange(200_000) + 0.5) * (t / 200_000)  # middles of narrow strips
    inside = 2 * np.exp(log_scale - (freedom + 1) / 2 * np.log1p(x * x / freedom)).sum() * (t / 200_000)
    assert two_sided_p(t, freedom) == pytest.approx(1 - inside, abs=1e-9)


def test_students_own_example():
    test = paired_t_test(SLEEP)
    assert test.pairs == 10
    assert test.mean == pytest.approx(1.58)
    assert test.t == pytest.approx(4.0621, abs=5e-5)
    assert test.p == pytest.approx(0.002833, abs=5e-7)
    assert (test.low, test.high) == pytest.approx((0.7001142, 2.4598858), abs=5e-8)
    turned = paired_t_test([-value for value in SLEEP])
    assert (turned.mean, turned.t, turned.p) == pytest.approx((-test.mean, -test.t, test.p))


def test_three_pairs_by_hand():
    test = paired_t_test([0.01, 0.02, 0.03])  # deviation 0.01, so t = 0.02 / (0.01 / sqrt 3)
    assert test.t == pytest.approx(2 * math.sqrt(3))
    assert test.p == pytest.approx(1 - math.sin(math.atan(test.t / math.sqrt(2))))
    assert test.high - test.mean == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert test.low < 0 < test.high and test.p > 0.05  # the interval and the probability agree


def test_two_pairs_in_closed_form():
    test = paired_t_test([0.1, 0.2])  # one degree of freedom is Cauchy's distribution: p = 1 - 2/pi atan |t|
    assert test.t == pytest.approx(3)
    assert test.p == pytest.approx(1 - 2 / math.pi * math.atan(3))
    assert test.high - test.mean == pytest.approx(math.tan(0.95 * math.pi / 2) * 0.05)


def test_interval_leaves_zero_out_exactly_where_the_probability_is_low():
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(300):
        test = paired_t_test(rng.normal(0.5, 0.5, int(rng.integers(2, 8))))
        assert (test.low > 0 or test.high < 0) == (test.p < 0.05)
        decided += test.p < 0.05
    assert 50 < decided < 250


@pytest.mark.parametrize("differences", [[], [0.0], [0.3]])
def test_fewer_than_two_pairs_are_no_test(differences):
    test = paired_t_test(differences)
    assert (test.pairs, test.t, test.p, test.low, test.high) == (len(differences), None, None, None, None)
    assert test.mean == (differences[0] if differences else None)
    assert test.identical == (differences == [0.0])


def test_no_spread_is_no_test():
    nothing = paired_t_test([0.0, 0.0, 0.0])
    assert nothing.identical and (nothing.mean, nothing.deviation, nothing.t, nothing.p) == (0, 0, None, None)
    rounded = paired_t_test([0.0, 1e-17, -1e-17])
    assert rounded.identical and rounded.p is None
    same = paired_t_test([0.9 - 0.8, 0.5 - 0.4, 0.3 - 0.2])  # equal but for the last bits
    assert not same.identical
    assert same.mean == pytest.approx(0.1) and same.p is None and same.low is None


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        paired_t_test([0.1, math.nan])
    with pytest.raises(ValueError, match="finite"):
        paired_t_test([0.1, math.inf, 0.2])
    with pytest.raises(ValueError, match="degrees of freedom"):
        two_sided_p(1.0, 0)
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            critical_t(confidence, 2)


def test_mean_and_deviation():
    assert mean_and_deviation([]) == (None, None)
    assert mean_and_deviation([0.5]) == (0.5, None)
    assert mean_and_deviation([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt(7 / 3)))


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        ([0.03, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the two in the middle are held together
        ([0.6, 0.7], [1.0, 1.0]),
    ],
)
def test_holm(raw, adjusted):
    assert adjust_by_holm(raw) == pytest.approx(adjusted)
