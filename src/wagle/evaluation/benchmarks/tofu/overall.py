"""The figures that ``tofu`` makes of several sets together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from wagle.evaluation.asking.requests import Answers
from wagle.evaluation.benchmarks.tofu.figures import lacking, set_figures, undefined
from wagle.evaluation.benchmarks.tofu.requests import WORLD, Item, Plan
from wagle.evaluation.figures import HIGHER, OVERALL, Figure, Measured, distance_figures, joined
from wagle.evaluation.membership.leakage import asked_figures, no_leakage
from wagle.evaluation.membership.requests import Attack, Probe
from wagle.evaluation.peers.logs import FLOORED
from wagle.evaluation.peers.naming import open_unlearning_names, published_names
from wagle.metrics.membership import Trace, auc, min_k
from wagle.metrics.statistics import AUC_REPLICATES, REPLICATES, auc_interval, composite_interval
from wagle.metrics.text import closer_look_efficacy
from wagle.metrics.utility import (
    KEPT_SETS,
    UTILITY,
    forget_retain_ks,
    harmonic_mean,
    memorization_score,
    unlearning_average,
    utility_average,
)

ES = "extraction_strength"
_MEMORIZED = (ES, "exact_memorization", "paraphrased_answer", "know")
_CLOSER = ("probability", "rouge_l", "truth_ratio", "cosine", "entailment")  # for the forget set
_CLOSER_KEPT = (*_CLOSER, "token_entropy")  # for every other set


def measure(
    plan: Plan,
    sets: Mapping[str, Sequence[Item]],
    probes: Mapping[str, Sequence[Probe]],
    attacks: Mapping[str, Attack],
    note: str | None,
    answers: Answers,
) -> Measured:
    """The figures of every set and of all together, and membership if there is a holdout set.

    Args:
        plan: the benchmark's plan.
        sets: the requests of the records, by set.
        probes: the membership probes of the forget and holdout records, if any.
        attacks: the membership attacks.
        note: for the reader of the attacks, or why there are none.
        answers: the engine's answers.
    """
    found = {name: set_figures(plan, name, items, answers) for name, items in sets.items()}
    figures = {name: made for name, (made, _) in found.items()}
    figures[OVERALL] = overall_figures(plan, figures, sets, answers)
    more: Mapping[str, Mapping[str, Figure]] = {}
    if probes:
        mean = plan.form.peer
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
    """Figures made from several others, or from two sets."""
    composite = partial(_composite, plan, figures)
    made = {
        "memorization": composite(
            [("forget", FLOORED if plan.form.peer and m == ES else m) for m in _MEMORIZED],
            lambda values: memorization_score(*values),
            "share, higher is less memorised",
        )
    }
    if plan.form.published:
        return {**made, **_published(plan, figures, sets, answers)}
    if not plan.generate:
        two = [("retain", "probability"), ("retain", "truth_ratio")]
        return {**made, "utility_proxy": composite(two, mean_of(two), "harmonic mean of two")}
    made["model_utility"] = composite(UTILITY, mean_of(UTILITY), "harmonic mean of nine")
    return {**made, **(_closer_look(composite) if plan.closer_look is not None else {})}


def _composite(
    plan: Plan,
    figures: Mapping[str, Mapping[str, Figure]],
    parts: Sequence[tuple[str, str]],
    compose: Callable[[Sequence[float]], float],
    unit: str,
    note: str | None = None,
) -> Figure:
    """A figure made from the means of others, given as set and metric."""
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


def mean_of(parts: Sequence[tuple[str, str]]) -> Callable[[Sequence[float]], float]:
    """The harmonic mean; an error names a member without a usable value."""
    names = [f"{name}.{metric}" for name, metric in parts]
    return lambda values: harmonic_mean(dict(zip(names, values, strict=True)))


def _closer_look(composite: Callable[..., Figure]) -> dict[str, Figure]:
    """Forget efficacy and two utilities, neither of which is TOFU's model utility.

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
            f"1 minus the mean of {', '.join(_CLOSER)} of forget, with 1 - truth_ratio",
        ),
        "closer_look_utility_retain": composite(
            retain, mean_of(retain), "harmonic mean of six", f"of retain: {six}"
        ),
        "closer_look_utility": composite(
            every, mean_of(every), "harmonic mean of 18", f"of {', '.join(KEPT_SETS)}: {six}"
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
        auc(retain, forget),  # how often the forget record is the less likely one
        auc_interval(forget, retain, plan.seed),
        f"bootstrap 95 %, {AUC_REPLICATES} replicates",
        unit="AUC",
        note="forget against retain records, both trained on: separation, no membership",
        count=len(forget) + len(retain),
    )
