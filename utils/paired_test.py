"""Whether a difference is more than chance: Student's paired t test, its interval, and Holm's correction.

Student, "The Probable Error of a Mean", Biometrika 6 (1908): of n paired differences with mean m and deviation s,
t = m / (s / sqrt n) is compared with the t distribution of n - 1 degrees of freedom. The distribution is computed by
the finite series for whole degrees of freedom: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964),
26.7.3 and 26.7.4. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6
(1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDING = 1e-12  # differences of figures in 0..1 that are closer than this differ by rounding alone
_HALVINGS = 100  # of the interval that a quantile lies in: more than floats have bits


@dataclass(frozen=True)
class PairedTest:
    """What n paired differences say.

    Attributes:
        pairs: n.
        mean: of the differences; None without any.
        deviation: of the differences, with n - 1; None below two.
        t: the mean in units of its standard error; None where there is no spread to compare it with.
        p: probability of a |t| as large or larger where there is no difference in truth; None as t.
        low: lower end of the confidence interval of the mean; None as t.
        high: upper end.
    """

    pairs: int
    mean: float | None = None
    deviation: float | None = None
    t: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def identical(self) -> bool:
        """Whether there are pairs, and no pair differs."""
        same = self.mean is not None and abs(self.mean) <= _ROUNDING
        return same and (self.deviation is None or self.deviation <= _ROUNDING)


def paired_t_test(differences: Sequence[float], confidence: float = 0.95) -> PairedTest:
    """Test whether the mean of paired differences is zero.

    Fewer than two pairs, or differences that are all the same, leave ``t``, ``p`` and the interval None: there is no
    spread to compare the mean with. (The formula would call such a mean infinitely significant.)

    Args:
        differences: one a pair, of figures in 0..1.
        confidence: that the interval holds the true mean, between 0 and 1.

    Raises:
        ValueError: when a difference is not finite.
    """
    if not all(math.isfinite(value) for value in differences):
        raise ValueError(f"expected finite differences, got {list(differences)}")
    pairs = len(differences)
    mean, deviation = mean_and_deviation(differences)
    if mean is None or deviation is None or deviation <= _ROUNDING:
        return PairedTest(pairs, mean, deviation)
    error = deviation / math.sqrt(pairs)
    reach = critical_t(confidence, pairs - 1) * error
    t = mean / error
    return PairedTest(pairs, mean, deviation, t, two_sided_p(t, pairs - 1), mean - reach, mean + reach)


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation with n - 1; None for what so few values do not have."""
    numbers = [float(value) for value in values]
    mean = statistics.fmean(numbers) if numbers else None
    return mean, statistics.stdev(numbers) if len(numbers) > 1 else None


def two_sided_p(t: float, freedom: int) -> float:
    """Probability that Student's t is as far from 0 as ``t`` or farther.

    Args:
        t: any number.
        freedom: whole degrees of freedom, from 1.
    """
    _require_freedom(freedom)
    return max(1.0 - _inside(math.atan(abs(t) / math.sqrt(freedom)), freedom), 0.0)


def critical_t(confidence: float, freedom: int) -> float:
    """The number that |t| stays below with a probability.

    Args:
        confidence: the probability, between 0 and 1.
        freedom: whole degrees of freedom, from 1.
    """
    _require_freedom(freedom)
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(freedom); the probability rises with it
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Raise the p values of several tests, so that a limit on them bounds the chance of any false alarm.

    Args:
        p_values: in 0..1.

    Returns:
        Adjusted p values in the same order: the smallest times their number, the next times one less, and so on, none
        below the one before it or above 1.
    """
    count, reached = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        reached = max(reached, min((count - rank) * p_values[place], 1.0))
        adjusted[place] = reached
    return adjusted


def _inside(angle: float, freedom: int) -> float:
    """Probability of |t| < sqrt(freedom) * tan(angle), by the series of cosines (even and odd freedom)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for number in range(freedom // 2):
        total += term
        step = 2 * number + 2 + odd
        term *= (step - 1) / step * cosine * cosine
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _require_freedom(freedom: int) -> None:
    if freedom < 1:
        raise ValueError(f"expected degrees of freedom from 1, got {freedom}")
