"""The verdict: what the probes say about forgetting, against a reference. Never "forgotten"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wagle.evaluation.figures import FORGOTTEN, OVERALL, Figure
from wagle.evaluation.result import Evaluation

NO_LEAK = "no leak found by these probes"
LEAKS = "leaks"
OVER = "over-unlearned"
INCONCLUSIVE = "inconclusive"
PROBES = (
    "probability",
    "paraphrased",
    "extraction_strength",
    "exact_memorization",
    "rouge_l",
)
RELATIVE = (
    "know",
)  # probes too, but only beside a retrained model: they turn on what it was taught
COLLAPSED = 0.5  # of the 4-grams of answers are repeats


@dataclass(frozen=True)
class Verdict:
    """The verdict in words, and a sentence per figure that led to it."""

    word: str
    reasons: tuple[str, ...]


def judge(after: Evaluation, before: Evaluation, reference: Evaluation | None) -> Verdict:
    """Compare the unlearned model with a model that never learned the forget set.

    A probe leaks where the figure lies above the reference's 95 % interval, and where the privacy
    leakage against the reference lies below 0 with its whole interval. The model is over-unlearned
    where the probability lies below that interval or under half the reference's, where the answers
    are less likely than by a uniform guess, where the privacy leakage lies above 0 with its whole
    interval, or where answers have become repetitions. Without a reference, or where the model
    before unlearning does not fail the same probes (the positive control), nothing can be
    concluded.
    """
    if reference is None:
        return Verdict(
            INCONCLUSIVE, ("There is no reference: a model that never learned the forget set.",)
        )
    now, then, goal = (_defined(e, "forget") for e in (after, before, reference))
    probes = [p for p in probes_of(after) if p in now and p in goal and p in then]
    leak, leak_before = (_defined(e, OVERALL).get("privleak") for e in (after, before))
    leaked = leak is not None and leak_before is not None and leak_before.high < 0
    if not leaked and not any(_above(then[p], goal[p]) for p in probes):
        return Verdict(
            INCONCLUSIVE,
            ("The model before unlearning does not differ from the reference on these probes.",),
        )
    leaks = [_sentence(p, now[p], goal[p], "above") for p in probes if _above(now[p], goal[p])]
    if leaked and leak is not None and leak.high < 0:
        leaks.append(_privleak(leak, "the forget set still stands out as known"))
    if leaks:
        return Verdict(LEAKS, tuple(leaks))
    over = _over(after, reference)
    if over:
        return Verdict(OVER, tuple(over))
    return Verdict(
        NO_LEAK, tuple(_sentence(p, now[p], goal[p], _where(now[p], goal[p])) for p in probes)
    )


def probes_of(after: Evaluation) -> tuple[str, ...]:
    """The figures of the forget set that count, by the kind of the reference.

    An untaught reference was taught none of the other records either, so how it weighs right
    answers against wrong ones says nothing of the forget set alone.
    """
    kind = (after.details.get("reference") or {}).get("kind")
    return PROBES if kind == "untaught" else (*PROBES, *RELATIVE)


def combine(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict of several benchmarks: a leak anywhere is a leak.

    Args:
        verdicts: by benchmark; the first is the run's own, whose reasons need no name.
    """
    for word in (LEAKS, OVER, NO_LEAK, INCONCLUSIVE):
        found = {name: v.reasons for name, v in verdicts.items() if v.word == word}
        if found:
            first = next(iter(verdicts))
            return Verdict(
                word,
                tuple(
                    line if name == first else f"{name}: {line}"
                    for name, lines in found.items()
                    for line in lines
                ),
            )
    raise AssertionError("there is no verdict to combine")


def _defined(found: Evaluation, name: str) -> dict[str, Figure]:
    return {m: f for m, f in found.figures.get(name, {}).items() if f.value is not None}


def _over(after: Evaluation, reference: Evaluation) -> list[str]:
    """What says that too much is gone."""
    now, goal = _defined(after, "forget"), _defined(reference, "forget")
    found = []
    if "probability" in now and "probability" in goal:
        probability, target = now["probability"], goal["probability"]
        if clearly_past(probability.number, target):
            found.append(_sentence("probability", probability, target, "clearly past"))
    size = after.details.get("model", {}).get("vocabulary")
    nll = now.get("nll")
    if nll is not None and size is not None and nll.number > math.log(size):
        found.append(
            f"nll {nll.number:.3g} is above the {math.log(size):.3g} of a uniform guess: the "
            "answers are driven away, not unknown."
        )
    leak = _defined(after, OVERALL).get("privleak")
    if leak is not None and leak.low > 0:
        found.append(_privleak(leak, "the forget set stands out as avoided"))
    said, usual = now.get("repetition"), goal.get("repetition")
    if said is not None and usual is not None and said.number >= COLLAPSED and _above(said, usual):
        found.append(_sentence("repetition", said, usual, "above"))
    return found


def _privleak(leak: Figure, what: str) -> str:
    return (
        f"privleak {leak.number:.3g} (95 % interval {leak.low:.3g} to {leak.high:.3g}, 0 is the "
        f"reference): {what}."
    )


def _where(figure: Figure, reference: Figure) -> str:
    return "below" if figure.number < reference.low else "within reach of"


def came_back(after: Evaluation, before: Evaluation) -> str | None:
    """Whether what earlier requests forgot is known again, in a sentence; None where it is not.

    It is where the set's probability lies above the 95 % interval that it had before.
    """
    now, then = (e.figures.get(FORGOTTEN, {}).get("probability") for e in (after, before))
    if now is None or then is None or not _above(now, then):
        return None
    return (
        f"what earlier requests forgot came back: its probability {now.number:.3g} is above the "
        f"{then.number:.3g} before (95 % interval {then.low:.3g} to {then.high:.3g})"
    )


def clearly_past(value: float, reference: Figure) -> bool:
    """Whether a figure lies below the reference's interval, or under half of the reference."""
    return value < reference.low or value < 0.5 * reference.number


def _above(figure: Figure, reference: Figure) -> bool:
    return figure.number > reference.high


def _sentence(probe: str, now: Figure, goal: Figure, how: str) -> str:
    return (
        f"{probe} {now.number:.3f} is {how} the reference's {goal.number:.3f} "
        f"(95 % interval {goal.low:.3f} to {goal.high:.3f})."
    )
