"""Decide whether a model knows some records: pure functions of numbers.

A figure's *gap* is the mean over records of a record's value minus the mean of its twins'. A model
knows the records by a figure if

- the gap is above 0 by a sign-flip test over records (Holm's correction over the figures),
- it is large enough to matter: at least ``LEAST``, also after what shows without the question is
  taken off (the same difference for the answers after other records' questions), and
- the records stand out of the sets of twins: the gap is beyond what sets of twins differ by.

The last two guard against names: a real name may be likelier than an invented one to a model that
knows nothing about its bearer, and all records of a set may share one name, so that a test over
records alone would find any such difference significant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from wagle.evaluation.knowing.asking import Readings, Values
from wagle.metrics.statistics import paired_difference

KNOWS, UNKNOWN, UNCLEAR = "knows", "does not know", "cannot tell"
BASE_KNOWS = "base knows"
LEVEL = 0.05  # of the tests, after Holm's correction
LEAST = 0.1  # the smallest gap that counts, of 1


class Finding(NamedTuple):
    """What one figure shows about one model.

    Attributes:
        n: how many records have the figure.
        records: its mean over records.
        twins: its mean over their twins.
        swapped: its mean over the answers after other records' questions; None: not measured.
        gap: the mean over records of record minus mean of twins.
        interval: the 95 % bootstrap interval of the gap.
        p: of the sign-flip test of the gap over records, two-sided, after Holm's correction.
        net: the gap minus the same difference after other records' questions; None: not measured.
        reach: how far a set that nobody knows would lie from the twins: the gap must exceed it.
    """

    n: int
    records: float
    twins: float
    swapped: float | None
    gap: float
    interval: tuple[float, float]
    p: float
    net: float | None
    reach: float

    @property
    def effect(self) -> float:
        """The gap, or what is left of it without what shows after other questions."""
        return self.gap if self.net is None else min(self.gap, self.net)

    @property
    def known(self) -> bool:
        """Whether the model knows the records by this figure."""
        return self.p < LEVEL and self.effect >= LEAST and self.gap > self.reach

    @property
    def unknown(self) -> bool:
        """Whether a gap that matters is excluded."""
        return self.interval[1] < LEAST


def find(readings: Mapping[str, Readings], seed: int = 0) -> dict[str, Finding]:
    """What every figure shows that at least two records have, in the order of ``readings``.

    Args:
        readings: of one model, by figure.
        seed: of the bootstrap and the test.
    """
    found = {}
    for name, read in readings.items():
        there = np.isfinite(read.records) & np.isfinite(read.twins).all(axis=0)
        if there.sum() >= 2:
            found[name] = _finding(Readings(*(part[..., there] for part in read)), seed)
    return dict(zip(found, _holm([*found.values()]), strict=True))


def _finding(read: Readings, seed: int) -> Finding:
    gaps = read.records - read.twins.mean(axis=0)
    tested = paired_difference(_placed(gaps), _placed(np.zeros_like(gaps)), seed=seed)
    put = np.isfinite(read.swapped) & np.isfinite(read.twins_swapped).all(axis=0)
    swapped = net = None
    if put.any():
        beside = read.swapped - read.twins_swapped.mean(axis=0)
        swapped, net = float(read.swapped[put].mean()), float((gaps - beside)[put].mean())
    return Finding(
        n=len(gaps),
        records=float(read.records.mean()),
        twins=float(read.twins.mean()),
        swapped=swapped,
        gap=tested.mean,
        interval=tested.interval,
        p=tested.p,
        net=net,
        reach=_reach(read.twins.mean(axis=1)),
    )


def _placed(values: Values) -> dict[str, float]:
    return {str(i): float(value) for i, value in enumerate(values)}


def _reach(means: Values) -> float:
    """How far the mean of one more set would lie above those of K sets, in 39 of 40 cases."""
    from scipy.stats import t

    count = len(means)
    return float(t.ppf(0.975, count - 1) * means.std(ddof=1) * math.sqrt(1 + 1 / count))


def _holm(found: list[Finding]) -> list[Finding]:
    """The findings with their p corrected for how many there are."""
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    corrected, least = list(found), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, found[i].p * (len(found) - rank)))
        corrected[i] = found[i]._replace(p=least)
    return corrected


def gained(own: Mapping[str, Readings], base: Mapping[str, Readings], seed: int = 0) -> bool:
    """Whether a model's gap is larger than its base's, clearly and by enough, in any figure.

    What names alone do to a model, they do to its base too, so it cancels out.
    """
    apart = {}
    for name, read in own.items():
        if name in base:
            parts = zip(read, base[name], strict=True)
            apart[name] = Readings(*(mine - theirs for mine, theirs in parts))
    return any(finding.known for finding in find(apart, seed).values())


def decide(found: Mapping[str, Finding]) -> str:
    """One model's word: ``knows``, ``does not know`` or ``cannot tell``."""
    if any(finding.known for finding in found.values()):
        return KNOWS
    return UNKNOWN if found and all(f.unknown for f in found.values()) else UNCLEAR


def decide_beside_base(own: str, base: str, more: bool) -> str:
    """The word for a model next to its base.

    Args:
        own: the model's word.
        base: the base's.
        more: whether the model knows more than its base, as ``gained`` says.
    """
    if own == UNKNOWN:
        return UNKNOWN
    if base == KNOWS:
        return BASE_KNOWS if own == KNOWS else UNCLEAR
    return KNOWS if more else UNCLEAR
