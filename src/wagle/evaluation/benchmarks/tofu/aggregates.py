"""What ``tofu`` makes of the figures of its sets: over all of them, beside a reference and before."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from wagle.evaluation.asking.requests import Answers
from wagle.evaluation.benchmarks.tofu.figures import basis_of, lacking, set_figures, undefined
from wagle.evaluation.benchmarks.tofu.requests import WORLD, Item, Plan
from wagle.evaluation.figures import (
    CALLED,
    HIGHER,
    OVERALL,
    Figure,
    Measured,
    distance_figures,
    joined,
)
from wagle.evaluation.membership.leakage import (
    HEADLINE,
    asked_figures,
    asked_leakage,
    check_asked,
    no_leakage,
    privacy_replicates,
)
from wagle.evaluation.membership.requests import FOUR, Attack, Probe
from wagle.evaluation.peers.naming import open_unlearning_names, published_names
from wagle.evaluation.peers.reading import same_basis
from wagle.metrics.membership import Trace, auc, min_k
from wagle.metrics.statistics import (
    AUC_REPLICATES,
    REPLICATES,
    auc_interval,
    composite_interval,
    percentiles,
)
from wagle.metrics.text import closer_look_efficacy
from wagle.metrics.utility import (
    KEPT_SETS,
    UTILITY,
    forget_quality,
    forget_retain_ks,
    harmonic_mean,
    memorization_score,
    overall_score,
    privacy_score,
    unlearning_average,
    utility_average,
    utility_score,
)
from wagle.system.errors import WagleError

_MEMORIZED = ("extraction_strength", "exact_memorization", "paraphrased_answer", "know")
_CLOSER = ("probability", "rouge_l", "truth_ratio", "cosine", "entailment")  # of the forget set
_CLOSER_KEPT = (*_CLOSER, "token_entropy")  # of every other
_SCORES = ("memorization", "privacy_score", "utility_score")
_SCORED = (*UTILITY, ("forget", "fluency"))  # before and after, in the utility score


def measure(
    plan: Plan,
    sets: Mapping[str, Sequence[Item]],
    probes: Mapping[str, Sequence[Probe]],
    attacks: Mapping[str, Attack],
    note: str | None,
    answers: Answers,
) -> Measured:
    """The figures of every set, of all together, and of membership where there is a holdout set.

    Args:
        plan: of the benchmark.
        sets: the records by set, as they were asked.
        probes: of the forget and the holdout records, or none.
        attacks: on membership.
        note: for the reader of these, or why there are none.
        answers: of the engine.
    """
    found = {name: set_figures(plan, name, items, answers) for name, items in sets.items()}
    figures = {name: made for name, (made, _) in found.items()}
    figures[OVERALL] = overall_figures(plan, figures, sets, answers)
    more: Mapping[str, Mapping[str, Figure]] = {}
    if probes:
        mean = plan.form.mean_norm
        more = asked_figures(probes, answers, attacks, mean_norm=mean, note=note, seed=plan.seed)
    elif note is not None:
        more = {OVERALL: no_leakage(note)}
    measured = joined(Measured(figures), Measured(more))
    texts = {name: said for name, (_, said) in found.items() if said}
    names = published_names if plan.form.published else open_unlearning_names
    return Measured(measured.figures, texts, names(measured.figures))


# ---------------------------------------------------------------------------------------------
# Over all sets


def overall_figures(
    plan: Plan,
    figures: Mapping[str, Mapping[str, Figure]],
    sets: Mapping[str, Sequence[Item]],
    answers: Answers,
) -> dict[str, Figure]:
    """What is made of several figures, or of two sets."""
    composite = partial(_composite, plan, figures)
    made = {
        "memorization": composite(
            [("forget", metric) for metric in _MEMORIZED],
            lambda values: memorization_score(*values),
            "share, higher is less memorised",
        )
    }
    if plan.form.published:
        return {**made, **_published(plan, figures, sets, answers)}
    if not plan.generate:
        two = [("retain", "probability"), ("retain", "truth_ratio")]
        return {**made, "utility_proxy": composite(two, _mean_of(two), "harmonic mean of two")}
    made["model_utility"] = composite(UTILITY, _mean_of(UTILITY), "harmonic mean of nine")
    return {**made, **(_closer_look(composite) if plan.closer_look is not None else {})}


def _composite(
    plan: Plan,
    figures: Mapping[str, Mapping[str, Figure]],
    parts: Sequence[tuple[str, str]],
    compose: Callable[[Sequence[float]], float],
    unit: str,
    note: str | None = None,
) -> Figure:
    """A figure made of the means of others, which are named by set and metric."""
    members = [figures[name][metric] for name, metric in parts]
    return Figure(
        compose([member.number for member in members]),
        composite_interval([member.per_record for member in members], compose, plan.seed),
        f"bootstrap 95 %, {REPLICATES} replicates",
        direction=HIGHER,
        unit=unit,
        note=note,
        count=sum(member.n for member in members),
    )


def _mean_of(parts: Sequence[tuple[str, str]]) -> Callable[[Sequence[float]], float]:
    """The harmonic mean, which names a member that has none."""
    names = [f"{name}.{metric}" for name, metric in parts]
    return lambda values: harmonic_mean(dict(zip(names, values, strict=True)))


def _closer_look(composite: Callable[..., Figure]) -> dict[str, Figure]:
    """Forget efficacy and two utilities, none of which is TOFU's model utility.

    Source: Yuan et al. 2024, arXiv 2410.08109.
    """
    sets = {name: [(name, metric) for metric in _CLOSER_KEPT] for name in KEPT_SETS}
    retain, every = sets["retain"], [part for parts in sets.values() for part in parts]
    six = ", ".join(_CLOSER_KEPT)
    return {
        "closer_look_efficacy": composite(
            [("forget", metric) for metric in _CLOSER],
            lambda values: closer_look_efficacy(*values),
            "share, higher is more forgotten",
            f"1 less the mean of {', '.join(_CLOSER)} of forget, of truth_ratio what is left to 1",
        ),
        "closer_look_utility_retain": composite(
            retain, _mean_of(retain), "harmonic mean of six", f"of retain: {six}"
        ),
        "closer_look_utility": composite(
            every, _mean_of(every), "harmonic mean of 18", f"of {', '.join(KEPT_SETS)}: {six}"
        ),
    }


def _published(
    plan: Plan,
    figures: Mapping[str, Mapping[str, Figure]],
    sets: Mapping[str, Sequence[Item]],
    answers: Answers,
) -> dict[str, Figure]:
    """The published code's figures over two sets, under names that say what they are."""
    ratios = [list(figures[n]["truth_ratio"].per_record.values()) for n in ("forget", "retain")]
    made = distance_figures("forget_retain_ks", forget_retain_ks(*ratios))
    for percent in range(10, 70, 10):
        scores = {
            name: [
                min_k(
                    Trace(i.record.place, answers.likelihood(i.whole).token_nll), k=f"0.{percent}"
                )
                for i in sets[name]
                if i.whole is not None
            ]
            for name in ("forget", "retain")
        }
        made[f"forget_retain_auc_{percent}"] = _separation(plan, scores["forget"], scores["retain"])
    why, unit = lacking(plan), "mean of shares"
    if why is not None:
        for name in ("unlearning_average", "utility_average"):
            made[name] = undefined(unit, why)
    else:
        kept = {
            name: (
                figures[name]["contains_answer" if name in WORLD else "embedding_accuracy"].number,
                figures[name]["rouge_l"].number,
            )
            for name in KEPT_SETS
        }
        gone = [figures["forget"][m].number for m in ("embedding_accuracy", "rouge_l")]
        quality, found = made["forget_retain_ks"].number, made["forget_retain_auc_50"].number
        for name, value in (
            ("unlearning_average", unlearning_average(quality, found, *gone)),
            ("utility_average", utility_average(kept)),
        ):
            made[name] = Figure(value, None, "none", direction=HIGHER, unit=unit)
    return made


def _separation(plan: Plan, forget: Sequence[float], retain: Sequence[float]) -> Figure:
    return Figure(
        auc(retain, forget),  # how often a forget record is the less likely one
        auc_interval(forget, retain, plan.seed),
        f"bootstrap 95 %, {AUC_REPLICATES} replicates",
        unit="AUC",
        note="forget against retain records, both trained on: separation, no membership",
        count=len(forget) + len(retain),
    )


# ---------------------------------------------------------------------------------------------
# Beside a reference


def check_fit(
    plan: Plan,
    forget: Sequence[Item],
    probes: Mapping[str, Sequence[Probe]],
    attacks: Collection[str],
    reference: Measured,
    role: str = "reference",
) -> None:
    """Refuse a reference of other records or formulas before any model is asked.

    Args:
        plan: of the benchmark.
        forget: the forget records, as they will be asked.
        probes: of the forget and the holdout records, or none.
        attacks: labels of those on membership.
        reference: the figures of a model that never learned the forget set.
        role: of that model; one from before unlearning may know the forget set.
    """
    places = [item.record.place for item in forget]
    _ratios(places, basis_of(plan, "forget"), reference, role)
    check_asked(probes, attacks, reference.figures, role)


def _ratios(
    places: Collection[str], note: str | None, reference: Measured, role: str = "reference"
) -> Figure:
    """The truth ratios of a reference, which has to be of these records, on this basis."""
    other = reference.figures.get("forget", {}).get("log_truth_ratio")
    if other is None:
        raise WagleError(f"{CALLED[role]} has no forget.log_truth_ratio; evaluate it with tofu too")
    if set(places) != other.per_record.keys() or not same_basis(note, other.note):
        raise WagleError(
            f"{CALLED[role]} is of other records or formulas: {other.n} records ({other.note}), the "
            f"model's {len(places)} ({note}); evaluate both with the same split, variant and rows"
        )
    return other


def against(plan: Plan, own: Measured, reference: Measured) -> Measured:
    """Forget quality and privacy leakage beside a model that never learned the forget set."""
    mine = own.figures["forget"]["log_truth_ratio"]
    other = _ratios(mine.per_record.keys(), mine.note, reference)
    values = [list(figure.per_record.values()) for figure in (mine, other)]
    made = distance_figures("forget_quality", forget_quality(*values))
    made |= _leakage(plan, own, reference)
    figures = {OVERALL: made}
    return Measured(figures, {}, {} if plan.form.published else open_unlearning_names(figures))


def _leakage(plan: Plan, own: Measured, reference: Measured) -> dict[str, Figure]:
    """Privacy leakage per attack, and the harmonic mean of ``privacy`` over the four, if made."""
    made = asked_leakage(own.figures, reference.figures, seed=plan.seed)
    names = {attack: "privacy" if attack == HEADLINE else f"privacy_{attack}" for attack in FOUR}
    if not made.keys() >= {*names.values()}:
        return made
    privacies = {attack: made[name] for attack, name in names.items()}
    members = {name: figure.value for name, figure in privacies.items()}
    unit, count = "harmonic mean of four", privacies["loss"].n
    if None in members.values():
        made["privacy_score"] = replace(
            undefined(unit, "not told: an attack's privacy is not defined"), count=count
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
# Beside the model before


def since(plan: Plan, own: Measured, original: Measured) -> Measured:
    """What is left of the model's utility and fluency, and with privacy one score over all.

    Args:
        plan: of the benchmark.
        own: the figures after unlearning, with those beside a reference where there is one.
        original: of the model before.
    """
    if "fluency" not in own.figures["forget"] or plan.form.published:
        return Measured({})
    made = {"utility_score": _utility_score(plan, own, original)}
    scores = {**own.figures[OVERALL], **made}
    if "privacy_score" in scores:
        made["overall_score"] = _overall_score([scores[name] for name in _SCORES])
    return Measured({OVERALL: made})


def _utility_score(plan: Plan, own: Measured, original: Measured) -> Figure:
    """Model utility and fluency beside those before; both models are drawn the same records."""
    unit = "harmonic mean of two"
    both = [m.figures.get(name, {}).get(k) for m in (own, original) for name, k in _SCORED]
    found = [figure for figure in both if figure is not None and figure.value is not None]
    if len(found) < len(both):
        return undefined(unit, "not told: the model before lacks a figure that it is made of")
    mean = _mean_of(UTILITY)

    def score(values: Sequence[float]) -> float:
        after, before = values[: len(_SCORED)], values[len(_SCORED) :]
        made = utility_score(mean(after[:-1]), mean(before[:-1]), after[-1], before[-1])
        return math.nan if made is None else made

    value = score([figure.number for figure in found])
    if math.isnan(value):
        return undefined(unit, "not told: the model before has no utility, or no fluency")
    try:
        interval = composite_interval([figure.per_record for figure in found], score, plan.seed)
    except WagleError:  # without utility before, in some of the draws
        interval = None
    return Figure(
        value,
        interval,
        f"bootstrap 95 %, {REPLICATES} replicates"
        if interval
        else "none: not defined in some draws",
        direction=HIGHER,
        unit=unit,
        note="of model_utility and forget.fluency, each beside that of the model before, at most 1",
        count=sum(figure.n for figure in found),
    )


def _overall_score(scores: Sequence[Figure]) -> Figure:
    """One number of what went, what shows of that, and what stayed."""
    unit, note = "harmonic mean of three", f"of {', '.join(_SCORES)}"
    known = [score.value for score in scores if score.value is not None]
    if len(known) < len(scores):
        return undefined(unit, f"{note}, of which one is not defined")
    value = overall_score(*known)
    return Figure(value, None, "none: made of scores", direction=HIGHER, unit=unit, note=note)
