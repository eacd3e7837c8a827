"""Derived figures: model utility, forget quality, aggregates. Pure functions of numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wagle.system.errors import WagleError

KEPT_SETS = ("retain", "real_authors", "world_facts")
UTILITY = tuple(
    (name, metric) for metric in ("probability", "rouge_l", "truth_ratio") for name in KEPT_SETS
)


def harmonic_mean(members: Mapping[str, float | None]) -> float:
    """The harmonic mean: 0 if any member is 0; no member is ever left out.

    Args:
        members: at least one value, by name; finite and not negative.

    Raises:
        WagleError: a member that is missing, negative or not finite; it is named.
    """
    if not members:
        raise WagleError("a harmonic mean needs at least one member")
    values = []
    for name, value in members.items():
        if value is None:
            raise WagleError(
                f"{name} is missing; a harmonic mean needs all of {', '.join(members)}"
            )
        if not math.isfinite(value) or value < 0:
            raise WagleError(f"{name} is {value}; the members of a harmonic mean are 0 or more")
        values.append(value)
    return 0.0 if 0.0 in values else len(values) / math.fsum(1 / value for value in values)


def model_utility(values: Mapping[str, Mapping[str, float | None]]) -> float:
    """Model utility: how much of the model is left apart from the forget set, 0 to 1.

    The harmonic mean of nine numbers: the probability, the ROUGE-L recall and the truth ratio
    (``true_better``) of the retain set, the real authors and the world facts.

    Args:
        values: ``values[set][metric]``; anything other than the nine is ignored.

    Raises:
        WagleError: one of the nine is missing, negative or not finite.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121.
    """
    return harmonic_mean(
        {f"{name}.{metric}": values.get(name, {}).get(metric) for name, metric in UTILITY}
    )


# ---------------------------------------------------------------------------------------------
# Two distributions of truth ratios


class Distance(NamedTuple):
    """How far apart two samples are, by the two-sided Kolmogorov-Smirnov test.

    Attributes:
        p: how likely a distance this large is for samples of one distribution; it depends on the
            counts, so values for other counts cannot be compared.
        statistic: D, 0 to 1.
        counts: the sizes of the two samples.
        log10_p: None if p is too small for a float64 and not at its floor.
        at_floor: whether the samples do not overlap at all: p cannot be smaller for these counts.
        shift: the median of the first sample less that of the second.
    """

    p: float
    statistic: float
    counts: tuple[int, int]
    log10_p: float | None
    at_floor: bool
    shift: float

    @property
    def note(self) -> str | None:
        """A note for readers of p, or None."""
        if not self.at_floor:
            return None
        return f"the floor for {self.counts[0]} and {self.counts[1]} records: no overlap at all"


def forget_quality(own: Sequence[float], reference: Sequence[float]) -> Distance:
    """Forget quality: could the model pass for one that was trained without the forget set?

    The paper's criterion is p > 0.05. A model that is more indifferent than the reference also
    fails: ``shift`` says in which direction.

    Args:
        own: log R of the forget records. Monotone maps (R, 1/R) make no difference.
        reference: the same records under a model that never learned them.

    Raises:
        WagleError: no records, or a ratio that is NaN or infinite.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121.
    """
    return _distance(own, reference, "forget quality")


def forget_retain_ks(forget: Sequence[float], retain: Sequence[float]) -> Distance:
    """What the published code calls forget quality: forget against retain, for one model.

    It is highest before unlearning, and lowest for an ideally retrained model.

    Args:
        forget: R or log R of the forget records.
        retain: the same for the retain records, under the same model.

    Source: the published WAGLE code, arXiv 2410.17509.
    """
    return _distance(forget, retain, "forget_retain_ks")


def _distance(one: Sequence[float], other: Sequence[float], what: str) -> Distance:
    from scipy.stats import ks_2samp

    if not one or not other:
        raise WagleError(
            f"{what} needs truth ratios on both sides, got {len(one)} and {len(other)}"
        )
    for values in (one, other):
        wrong = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
        if wrong is not None:
            raise WagleError(f"{what}: truth ratio {wrong} is {values[wrong]}; it must be finite")
    with warnings.catch_warnings():  # scipy 1.17 warns if an exact p of 1 is rounded above 1
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
        found = ks_2samp(one, other)
    p, statistic = float(found.pvalue), float(found.statistic)
    at_floor = max(one) < min(other) or max(other) < min(one)
    n, m = len(one), len(other)
    if at_floor:  # 2 / C(n + m, n), whose logarithm exists even if it is too small for a float64
        ways = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
        log10_p: float | None = min(0.0, (math.log(2) - ways) / math.log(10))
    else:
        log10_p = math.log10(p) if p > 0 else None
    return Distance(p, statistic, (n, m), log10_p, at_floor, _median(one) - _median(other))


def _median(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.median(values))


# ---------------------------------------------------------------------------------------------
# Aggregates


def memorization_score(
    extraction_strength: float, exact_memorization: float, paraphrased: float, know: float
) -> float:
    """``HM(1 - ES, 1 - EM, 1 - P(paraphrased answer), 1 - know)`` on forget records, 0 to 1.

    OpenUnlearning's four measures of memorisation, raw; the scaling in its table is not public.
    """
    return harmonic_mean(
        {
            "1 - extraction_strength": 1 - extraction_strength,
            "1 - exact_memorization": 1 - exact_memorization,
            "1 - paraphrased answer": 1 - paraphrased,
            "1 - know": 1 - know,
        }
    )


def privacy_score(by_attack: Mapping[str, float | None]) -> float:
    """The harmonic mean of ``privacy`` over membership attacks, 0 to 1."""
    return harmonic_mean({f"privacy of {name}": value for name, value in by_attack.items()})


def utility_score(
    utility: float, original_utility: float, fluency: float, original_fluency: float
) -> float | None:
    """``HM(min(1, MU / MU of the original), min(1, F / F of the original))``, 0 to 1.

    None if the original gives nothing to compare with: one of its two values is 0.

    Args:
        utility: model utility after unlearning.
        original_utility: model utility before.
        fluency: the fluency of the answers to the forget questions, higher is better.
        original_fluency: their fluency before.
    """
    if not (original_utility > 0 and original_fluency > 0):
        return None
    return harmonic_mean(
        {
            "utility": min(1.0, utility / original_utility),
            "fluency": min(1.0, fluency / original_fluency),
        }
    )


def overall_score(memorization: float, privacy: float, utility: float) -> float:
    """``HM(memorization, privacy, utility)`` of the three scores above: wagle's own aggregate."""
    return harmonic_mean({"memorization": memorization, "privacy": privacy, "utility": utility})


def unlearning_average(quality: float, membership: float, accuracy: float, rouge: float) -> float:
    """UE of the published tables: ``mean(FQ, MIA, 1 - accuracy, 1 - ROUGE)``.

    Args:
        quality: the published forget quality, ``forget_retain_ks``.
        membership: the published AUC of forget against retain records.
        accuracy: embedding accuracy on the forget set.
        rouge: ROUGE-L recall on the forget set.
    """
    return math.fsum((quality, membership, 1 - accuracy, 1 - rouge)) / 4


def utility_average(values: Mapping[str, tuple[float, float]]) -> float:
    """UT of the published tables: the mean of accuracy and ROUGE-L over the sets to keep.

    Args:
        values: (accuracy, ROUGE-L recall) by set.
    """
    return math.fsum(map(math.fsum, values.values())) / (2 * len(values))
