"""Intervals and tests over records: means, shares, AUCs, composites, differences between models.

All intervals are 95 % percentile intervals; all draws are functions of ``seed`` and the counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wagle.system.errors import WagleError

REPLICATES = 10_000
AUC_REPLICATES = 2_000
NO_WIDTH = "all values are equal, so the interval has no width"

_Floats = NDArray[np.float64]
_BLOCK = 1 << 22  # draws held in memory at once


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over records (10 000 replicates)."""
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    return percentiles(np.concatenate([data[d].mean(axis=1) for d in draws(generator, len(data))]))


def draws(generator: np.random.Generator, count: int) -> Iterator[NDArray[np.int64]]:
    """Records (r, count) drawn for all replicates, in chunks whose size never changes them."""
    most = max(1, _BLOCK // count)
    for start in range(0, REPLICATES, most):
        yield generator.integers(0, count, (min(most, REPLICATES - start), count))


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def percentiles(replicates: _Floats) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles, interpolated linearly between replicates."""
    low, high = np.quantile(replicates, [0.025, 0.975])
    return float(low), float(high)


def width_note(values: Sequence[float]) -> str | None:
    """A note for readers of an interval if all ``values`` are equal, else None."""
    return NO_WIDTH if len(set(values)) == 1 else None


def cluster_interval(
    values: Sequence[float], clusters: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over records that come in clusters.

    Whole clusters are drawn, as many as there are; a replicate is the mean over all records in
    those drawn. If records resemble one another within a cluster (TOFU's 20 questions per author),
    ``bootstrap_interval`` is too narrow.

    Args:
        values: (n,) a value per record.
        clusters: (n,) the name of each record's cluster.
        seed: the seed for the draws.

    Raises:
        WagleError: different numbers of values and names, or none.
    """
    if len(values) != len(clusters) or not clusters:
        raise WagleError(
            f"{len(values)} values and {len(clusters)} cluster names: give one name per value"
        )
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    home = np.asarray([names[name] for name in clusters])
    totals = np.bincount(home, weights=np.asarray(values, dtype=np.float64))
    sizes = np.bincount(home)
    blocks = draws(np.random.default_rng(seed), len(names))
    return percentiles(
        np.concatenate([totals[d].sum(axis=1) / sizes[d].sum(axis=1) for d in blocks])
    )


# ---------------------------------------------------------------------------------------------
# AUC


def auc_replicates(greater: Sequence[float], smaller: Sequence[float], seed: int = 0) -> _Floats:
    """Bootstrap replicates (2 000,) of ``P(greater > smaller) + P(equal) / 2``.

    The two sets are drawn separately, ``greater`` first in each replicate. The draws depend only on
    seed and counts, so those of two models over the same records, in the same order, are paired.

    Args:
        greater: (n,), for membership the scores of the holdout set.
        smaller: (m,), for membership those of the forget set.
        seed: the seed for the draws.
    """
    one, other = np.asarray(greater, np.float64), np.asarray(smaller, np.float64)
    wins = (one[:, None] > other) + (one[:, None] == other) / 2  # (n, m)
    generator = np.random.default_rng(seed)
    drawn = np.empty((AUC_REPLICATES, len(one)))  # how often each record is drawn
    against = np.empty((AUC_REPLICATES, len(other)))
    for replicate in range(AUC_REPLICATES):
        for row, count in ((drawn, len(one)), (against, len(other))):
            row[replicate] = np.bincount(generator.integers(0, count, count), minlength=count)
    totals: _Floats = ((drawn @ wins) * against).sum(axis=1)
    return totals / (len(one) * len(other))


def auc_interval(
    greater: Sequence[float], smaller: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of ``P(greater > smaller) + P(equal) / 2`` (2 000 replicates)."""
    return percentiles(auc_replicates(greater, smaller, seed))


# ---------------------------------------------------------------------------------------------
# Composites and differences


def composite_interval(
    components: Sequence[Mapping[str, float]],
    compose: Callable[[Sequence[float]], float],
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of a figure computed from means, such as a harmonic mean of nine.

    In each of 10 000 replicates the records of every component are drawn, their means are taken and
    the composite is recomputed. Components over the same records share their draws.

    Args:
        components: the values per record, by place.
        compose: computes the composite from the means, in the order of the components.
        seed: the seed for the draws.

    Raises:
        WagleError: a component without records, or a composite that is not finite.
    """
    generator = np.random.default_rng(seed)
    together: dict[tuple[str, ...], list[int]] = {}
    for number, rows in enumerate(components):
        if not rows:
            raise WagleError(f"component {number} of a composite has no records")
        together.setdefault(tuple(sorted(rows)), []).append(number)
    means = np.empty((REPLICATES, len(components)))
    for places, numbers in together.items():
        values = np.asarray([[components[i][place] for place in places] for i in numbers])
        done = 0
        for block in draws(generator, len(places)):
            for i, own in zip(numbers, values, strict=True):
                means[done : done + len(block), i] = own[block].mean(axis=1)
            done += len(block)
    made = np.asarray([compose(row) for row in means.tolist()], dtype=np.float64)
    if not np.isfinite(made).all():
        raise WagleError("a composite is not finite in some bootstrap replicates; are there zeros?")
    return percentiles(made)


class PairedDifference(NamedTuple):
    """How far apart two models are on the same records.

    Attributes:
        mean: the mean of the per-record differences.
        interval: its 95 % bootstrap interval.
        p: the two-sided p of the sign-flip permutation test against a mean of 0.
        n: the number of records.
    """

    mean: float
    interval: tuple[float, float]
    p: float
    n: int


def paired_difference(
    one: Mapping[str, float], other: Mapping[str, float], seed: int = 0
) -> PairedDifference:
    """The mean of ``one - other`` over the records of both.

    The test flips the signs of the differences, in every way if there are at most 9 999 of them (13
    records), else in 9 999 drawn at random.

    Args:
        one: values per record, by place.
        other: another model's values for the same records.
        seed: the seed for the draws.

    Raises:
        WagleError: no records, or not the same ones.
    """
    same_records(one, other, "a paired difference")
    gaps = np.asarray([one[place] - other[place] for place in one], dtype=np.float64)
    if not gaps.any():
        return PairedDifference(0.0, (0.0, 0.0), 1.0, len(gaps))
    return PairedDifference(
        float(gaps.mean()), bootstrap_interval(gaps.tolist(), seed), _flip_p(gaps, seed), len(gaps)
    )


def _flip_p(gaps: _Floats, seed: int) -> float:
    if len(gaps) == 1:
        return 1.0  # either sign is as far from 0; scipy needs two values
    from scipy.stats import permutation_test

    def mean(sample: _Floats, axis: int) -> Any:
        return sample.mean(axis=axis)

    found = permutation_test(
        (gaps,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=REPLICATES - 1,
        batch=max(1, _BLOCK // len(gaps)),
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def same_records(one: Mapping[str, float], other: Mapping[str, float], what: str) -> None:
    """Refuse values for different records, or for none.

    Raises:
        WagleError: says how many records each side has, and names one that is not shared.
    """
    if not one or not other:
        raise WagleError(f"{what} needs at least one record for each model")
    lone = sorted(one.keys() ^ other.keys())
    if lone:
        raise WagleError(
            f"{what} needs the same records: {len(one)} and {len(other)} were given, and "
            f"{lone[0]} is only in one; evaluate both models on the same split and settings"
        )
