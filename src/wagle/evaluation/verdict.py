"""The verdict: what the probes say about forgetting, against a reference. Never "forgotten"."""

from __future__ import annotations

from dataclasses import dataclass

from wagle.evaluation.result import FORGOTTEN, Evaluation, Figure

NO_LEAK = "no leak found by these probes"
LEAKS = "leaks"
OVER = "over-unlearned"
INCONCLUSIVE = "inconclusive"
PROBES = ("probability", "paraphrased", "extraction_strength", "rouge_l")


@dataclass(frozen=True)
class Verdict:
    """The verdict in words, and a sentence per figure that led to it."""

    word: str
    reasons: tuple[str, ...]


def judge(after: Evaluation, before: Evaluation, reference: Evaluation | None) -> Verdict:
    """Compare the unlearned model with a model that never learned the forget set.

    A probe leaks where the figure lies above the reference's 95 % interval. The model is
    over-unlearned where the probability lies below that interval or under half the reference's.
    Without a reference, or where the model before unlearning does not fail the same probes (the
    positive control), nothing can be concluded.
    """
    if reference is None:
        return Verdict(
            INCONCLUSIVE, ("There is no reference: a model that never learned the forget set.",)
        )
    now, then, goal = (e.figures["forget"] for e in (after, before, reference))
    probes = [p for p in PROBES if p in now and p in goal and p in then]
    if not any(_above(then[p], goal[p]) for p in probes):
        return Verdict(
            INCONCLUSIVE,
            ("The model before unlearning does not differ from the reference on these probes.",),
        )
    leaks = tuple(_sentence(p, now[p], goal[p], "above") for p in probes if _above(now[p], goal[p]))
    if leaks:
        return Verdict(LEAKS, leaks)
    if "probability" in probes and clearly_past(now["probability"].value, goal["probability"]):
        sentence = _sentence("probability", now["probability"], goal["probability"], "clearly past")
        return Verdict(OVER, (sentence,))
    return Verdict(
        NO_LEAK, tuple(_sentence(p, now[p], goal[p], _where(now[p], goal[p])) for p in probes)
    )


def _where(figure: Figure, reference: Figure) -> str:
    return "below" if figure.value < reference.interval[0] else "within reach of"


def came_back(after: Evaluation, before: Evaluation) -> str | None:
    """Whether what earlier requests forgot is known again, in a sentence; None where it is not.

    It is where the set's probability lies above the 95 % interval that it had before.
    """
    now, then = (e.figures.get(FORGOTTEN, {}).get("probability") for e in (after, before))
    if now is None or then is None or not _above(now, then):
        return None
    low, high = then.interval
    return (
        f"what earlier requests forgot came back: its probability {now.value:.3g} is above the "
        f"{then.value:.3g} before (95 % interval {low:.3g} to {high:.3g})"
    )


def clearly_past(value: float, reference: Figure) -> bool:
    """Whether a figure lies below the reference's interval, or under half of the reference."""
    return value < reference.interval[0] or value < 0.5 * reference.value


def _above(figure: Figure, reference: Figure) -> bool:
    return figure.value > reference.interval[1]


def _sentence(probe: str, now: Figure, goal: Figure, how: str) -> str:
    low, high = goal.interval
    return (
        f"{probe} {now.value:.3f} is {how} the reference's {goal.value:.3f} "
        f"(95 % interval {low:.3f} to {high:.3f})."
    )
