"""What a comparison computes from its runs: pure functions of numbers.

A trajectory becomes one figure (the forgetting at a fixed loss of what is kept), the figures of two
arms over the same units become a difference with an interval, and several differences become a
family of corrected p-values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from wagle.system.errors import WagleError

LEVEL = 0.05  # of tests and intervals, two-sided
POWER = 0.8  # of detecting the smallest difference
_QUANTILES = 5000


class Reading(NamedTuple):
    """The forget figure of one run at a fixed share of what was kept.

    Attributes:
        figure: the figure there, or at the end of the run if that share was never reached.
        at_least: the share was never reached, so the forgetting is at least this strong.
        step: the step of the reading, usually between two looks.
    """

    figure: float
    at_least: bool
    step: float


def read_at(
    steps: Sequence[float], kept: Sequence[float], figures: Sequence[float], share: float
) -> Reading:
    """Read a forget figure where the kept figure first falls to ``share`` of its start.

    Both figures are interpolated linearly between the two looks around that crossing. What comes
    after it does not count, even if the kept figure recovers.

    Args:
        steps: of the looks, ascending, the first before any training.
        kept: the retain probability at each look.
        figures: the forget figure at each look.
        share: between 0 and 1.

    Raises:
        WagleError: the first retain probability is 0, so there is nothing to keep.
    """
    if kept[0] <= 0:
        raise WagleError(
            "the model gives the retain records zero probability before unlearning; teach it more"
        )
    looks = list(zip(steps, (value / kept[0] for value in kept), figures, strict=True))
    for (step, high, figure), (then, low, after) in pairwise(looks):
        if high > share >= low:
            part = (high - share) / (high - low)
            return Reading(figure + part * (after - figure), False, step + part * (then - step))
    return Reading(figures[-1], True, steps[-1])


class Difference(NamedTuple):
    """A mean of paired differences over units.

    Attributes:
        mean: of the differences.
        interval: 95 % t interval; None for fewer than two units.
        p: two-sided p-value of a paired t test against 0; None for fewer than two units.
        smallest: the smallest true difference that this many units with this spread would show, at
            the 5 % level with a power of 80 %; None for fewer than two units.
        units: how many.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float | None
    smallest: float | None
    units: int


def mean_difference(differences: Sequence[float]) -> Difference:
    """The mean of one difference per unit with its t interval, and what could have been detected.

    Differences that are all equal have no spread: their interval is a point, and p is 0 (1 where
    the difference is 0).
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=np.float64)
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Difference(mean, None, None, None, count)
    spread = float(values.std(ddof=1))
    error = spread / math.sqrt(count)
    if error == 0:
        return Difference(mean, (mean, mean), float(mean == 0), 0.0, count)
    reach = float(t.ppf(1 - LEVEL / 2, count - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, count - 1))
    return Difference(
        mean, (mean - reach, mean + reach), p, smallest_difference(spread, count), count
    )


def smallest_difference(spread: float, count: int) -> float:
    """The true difference that a paired t test detects with a power of 80 % at the 5 % level.

    |T| exceeds its critical value with probability 0.8 when T has the noncentral t distribution
    of ``shift = difference * sqrt(count) / spread``. Given the measured spread s, in units of the
    true one, that probability is a normal one; it is averaged over quantiles of s (scipy 1.17
    returns NaN for some of the noncentral distributions needed here).

    Args:
        spread: standard deviation of the paired differences, in their units.
        count: of units, at least 2.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    freedom = count - 1
    limit = float(t.ppf(1 - LEVEL / 2, freedom))
    measured = np.sqrt(chi2.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, freedom) / freedom)

    def lack(shift: float) -> float:
        found = norm.cdf(shift - limit * measured) + norm.cdf(-shift - limit * measured)
        return float(found.mean()) - POWER

    shift: float = brentq(lack, 0.0, 10 * limit)
    return shift * spread / math.sqrt(count)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for all tests of a family together, in their order.

    The k-th smallest of m is multiplied by ``m - k + 1``; none falls below that of a smaller one,
    and none exceeds 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found = [0.0] * len(p_values)
    most = 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        found[i] = most
    return found
