"""The figures that ``tofu`` makes by comparing with a reference and with the model before."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from wagle.evaluation.benchmarks.tofu.figures import basis_of, undefined
from wagle.evaluation.benchmarks.tofu.overall import mean_of
from wagle.evaluation.benchmarks.tofu.requests import Item, Plan
from wagle.evaluation.figures import CALLED, HIGHER, OVERALL, Figure, Measured, distance_figures
from wagle.evaluation.membership.leakage import (
    HEADLINE,
    asked_leakage,
    check_asked,
    privacy_replicates,
)
from wagle.evaluation.membership.requests import FOUR, Probe
from wagle.evaluation.peers.naming import open_unlearning_names
from wagle.evaluation.peers.reading import same_basis
from wagle.metrics.statistics import AUC_REPLICATES, REPLICATES, composite_interval, percentiles
from wagle.metrics.utility import (
    UTILITY,
    forget_quality,
    overall_score,
    privacy_score,
    utility_score,
)
from wagle.system.errors import WagleError

_SCORES = ("memorization", "privacy_score", "utility_score")
_SCORED = (*UTILITY, ("forget", "fluency"))  # in the utility score, before and after


def check_fit(
    plan: Plan,
    forget: Sequence[Item],
    probes: Mapping[str, Sequence[Probe]],
    attacks: Collection[str],
    reference: Measured,
    role: str = "reference",
) -> None:
    """Refuse a reference for other records or formulas, before any model is asked.

    Args:
        plan: the benchmark's plan.
        forget: the forget records, as they will be asked.
        probes: the membership probes of the forget and holdout records, if any.
        attacks: the labels of the membership attacks.
        reference: the figures of a model that never learned the forget set.
        role: that model's role; the model before unlearning may know the forget set.
    """
    places = [item.record.place for item in forget]
    _ratios(places, basis_of(plan, "forget"), reference, role)
    check_asked(probes, attacks, reference.figures, role)


def _ratios(
    places: Collection[str], note: str | None, reference: Measured, role: str = "reference"
) -> Figure:
    """The truth ratios of a reference, which must cover these records on this basis."""
    other = reference.figures.get("forget", {}).get("log_truth_ratio")
    if other is None:
        raise WagleError(f"{CALLED[role]} has no forget.log_truth_ratio; evaluate it with tofu too")
    if set(places) != other.per_record.keys() or not same_basis(note, other.note):
        raise WagleError(
            f"{CALLED[role]} has other records or formulas: {other.n} records ({other.note}), the "
            f"model's {len(places)} ({note}); evaluate both with the same split, variant and rows"
        )
    return other


def against(plan: Plan, own: Measured, reference: Measured) -> Measured:
    """Forget quality and privacy leakage, against a model that never learned the forget set."""
    mine = own.figures["forget"]["log_truth_ratio"]
    other = _ratios(mine.per_record.keys(), mine.note, reference)
    values = [list(figure.per_record.values()) for figure in (mine, other)]
    made = distance_figures("forget_quality", forget_quality(*values))
    made |= _leakage(plan, own, reference)
    named = {"forget": {"log_truth_ratio": mine}, OVERALL: made}
    return Measured(
        {OVERALL: made}, {}, {} if plan.form.published else open_unlearning_names(named)
    )


def _leakage(plan: Plan, own: Measured, reference: Measured) -> dict[str, Figure]:
    """Privacy leakage per attack, and the harmonic mean of ``privacy`` if all four were run."""
    made = asked_leakage(own.figures, reference.figures, seed=plan.seed)
    names = {attack: "privacy" if attack == HEADLINE else f"privacy_{attack}" for attack in FOUR}
    if not made.keys() >= {*names.values()}:
        return made
    privacies = {attack: made[name] for attack, name in names.items()}
    members = {name: figure.value for name, figure in privacies.items()}
    unit, count = "harmonic mean of four", privacies["loss"].n
    if None in members.values():
        made["privacy_score"] = replace(
            undefined(unit, "not reported: an attack's privacy is not defined"), count=count
        )
        return made
    drawn = privacy_replicates(own.figures, reference.figures, FOUR, plan.seed)
    scores = [privacy_score(dict(zip(FOUR, row, strict=True))) for row in drawn.T.tolist()]
    made["privacy_score"] = Figure(
        privacy_score(members),
        percentiles(np.asarray(scores)),
        f"bootstrap 95 %, {AUC_REPLICATES} replicates",
        direction=HIGHER,
        unit=unit,
        count=count,
    )
    return made


# ---------------------------------------------------------------------------------------------
# Compared with the model before


def since(plan: Plan, own: Measured, original: Measured) -> Measured:
    """How much utility and fluency are left, and with privacy one score for everything.

    Args:
        plan: the benchmark's plan.
        own: the figures after unlearning, including those against a reference if there is one.
        original: the figures of the model before.
    """
    if "fluency" not in own.figures["forget"] or plan.form.published:
        return Measured({})
    made = {"utility_score": _utility_score(plan, own, original)}
    scores = {**own.figures[OVERALL], **made}
    if "privacy_score" in scores:
        made["overall_score"] = _overall_score([scores[name] for name in _SCORES])
    return Measured({OVERALL: made})


def _utility_score(plan: Plan, own: Measured, original: Measured) -> Figure:
    """Model utility and fluency relative to before; both models are drawn the same records."""
    unit = "harmonic mean of two"
    both = [m.figures.get(name, {}).get(k) for m in (own, original) for name, k in _SCORED]
    found = [figure for figure in both if figure is not None and figure.value is not None]
    if len(found) < len(both):
        return undefined(unit, "not reported: the model before lacks a figure it is made of")
    mean = mean_of(UTILITY)

    def score(values: Sequence[float]) -> float:
        after, before = values[: len(_SCORED)], values[len(_SCORED) :]
        made = utility_score(mean(after[:-1]), mean(before[:-1]), after[-1], before[-1])
        return math.nan if made is None else made

    value = score([figure.number for figure in found])
    if math.isnan(value):
        return undefined(unit, "not reported: the model before has no utility, or no fluency")
    try:
        interval = composite_interval([figure.per_record for figure in found], score, plan.seed)
    except WagleError:  # in some draws, no utility before
        interval = None
    return Figure(
        value,
        interval,
        f"bootstrap 95 %, {REPLICATES} replicates"
        if interval
        else "none: not defined in some draws",
        direction=HIGHER,
        unit=unit,
        note="of model_utility and forget.fluency, each relative to the model before, at most 1",
        count=sum(figure.n for figure in found),
    )


def _overall_score(scores: Sequence[Figure]) -> Figure:
    """One number for what went, how much of that shows, and what stayed."""
    unit, note = "harmonic mean of three", f"of {', '.join(_SCORES)}"
    known = [score.value for score in scores if score.value is not None]
    if len(known) < len(scores):
        return undefined(unit, f"{note}, of which one is not defined")
    value = overall_score(*known)
    return Figure(value, None, "none: made of scores", direction=HIGHER, unit=unit, note=note)
