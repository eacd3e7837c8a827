"""The verdict: what the probes say about forgetting, against a reference. Never "forgotten"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from wagle.evaluation.figures import CALLED, FORGOTTEN, OVERALL, TARGET, Figure
from wagle.evaluation.losses import Limits, losses, what_was_lost
from wagle.evaluation.result import Evaluation
from wagle.metrics.bands import acceptable
from wagle.metrics.table import PROBES

NO_LEAK = "no leak found by these probes"
LEAKS = "leaks"
DAMAGED = "damaged"
OVER = "over-unlearned"
INCONCLUSIVE = "inconclusive"
PRECEDENCE = (LEAKS, DAMAGED, OVER, INCONCLUSIVE, NO_LEAK)
MEMBERSHIP = (OVERALL, "privleak")  # compared with the reference already, which is 0
RETRAINED = ("know", "privleak")  # metrics that depend on what else the reference was taught
CHANCE = ("know",)  # metrics that are not 0 for a model that knows nothing
MAIN = "probability"  # the metric that alone, by its interval or by a half, shows over-unlearning
TINY = 0.05  # a figure of the reference below which no clear fall can be seen (of 1)
COLLAPSED = 0.5  # share of the answers' 4-grams that are repeats, or of answers that are empty


@dataclass(frozen=True)
class Verdict:
    """The verdict in words, and a sentence per figure that led to it.

    Attributes:
        word: one of ``PRECEDENCE``; the first that applies.
        reasons: a sentence per figure that led to it, those of the word first.
        over: the sentences that say too much of the forget set is gone: a leak outweighs that, but
            does not undo it.
        lost: the sentences that say too much is lost of what must stay.
    """

    word: str
    reasons: tuple[str, ...]
    over: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class Compared(NamedTuple):
    """A probe: its figure for the model after and before unlearning, and for the reference."""

    name: str
    metric: str
    now: Figure
    then: Figure
    goal: Figure

    def sentence(self, how: str) -> str:
        """How the model after compares with the reference, in a sentence."""
        return _sentence(_label(self.name, self.metric), self.now, self.goal, how)


def judge(
    after: Evaluation,
    before: Evaluation,
    reference: Evaluation | None,
    limits: Limits | None = None,
) -> Verdict:
    """Compare the unlearned model with a model that never learned the forget set.

    The model is damaged if a set that must stay surely lost more than its limit: if the whole 95 %
    interval of its paired loss lies beyond.

    A probe leaks if its figure lies above the reference's 95 % interval; so does the privacy
    leakage against the reference if its whole interval lies below 0. The model is over-unlearned if
    the probability lies below that interval or under half the reference's; if another probe is
    under half of it and the two intervals do not overlap; if the answers are less likely than under
    a uniform guess; if the whole interval of the privacy leakage lies above 0; or if answers have
    become repetitive or empty, or are no longer language: their fluency, if it was measured, is
    under half of the reference's and the intervals do not overlap (if the reference has none, of
    the model before). Nothing can be concluded without a reference, if no probe was measured on all
    three models, or if the model before unlearning does not fail the same probes (the positive
    control).

    Args:
        after: the unlearned model.
        before: the model before.
        reference: the model that never learned the forget set.
        limits: what each set that must stay may lose, as a share of its figure before; a set that
            is not named may lose 5 %, and None lets it lose any.
    """
    found = _forgetting(after, before, reference)
    lost = what_was_lost(losses(after, before, limits))
    if not lost:
        return found
    if found.word == LEAKS:
        reasons = (*found.reasons, *_too(lost, DAMAGED))
        return replace(found, reasons=reasons, lost=lost)
    rest = _too(found.reasons, OVER) if found.word == OVER else found.reasons
    return Verdict(DAMAGED, (*lost, *rest), found.over, lost)


def _forgetting(after: Evaluation, before: Evaluation, reference: Evaluation | None) -> Verdict:
    """What the probes say about the forget set."""
    if reference is None:
        lost = _garbled(after, before)
        return Verdict(
            INCONCLUSIVE,
            ("There is no reference: a model that never learned the forget set.", *lost),
            lost,
        )
    probes = _compared(after, before, reference)
    leak, leak_before = _leakage(after, before)
    if not probes and leak is None:
        return Verdict(
            INCONCLUSIVE,
            (
                "No probe was compared: the model after, the model before and the reference have "
                "no figure in common that counts with this reference.",
            ),
        )
    leaked = leak_before is not None and leak_before.high < 0
    if not leaked and not any(_above(p.then, p.goal) for p in probes):
        return Verdict(
            INCONCLUSIVE,
            ("The model before unlearning does not differ from the reference on these probes.",),
        )
    leaks = [p.sentence("above") for p in probes if _above(p.now, p.goal)]
    if leaked and leak is not None and leak.high < 0:
        leaks.append(_privleak(leak, "the forget set still stands out as known"))
    over = (*_over(after, reference, probes, leak), *_garbled(after, before, reference))
    if leaks:
        return Verdict(LEAKS, (*leaks, *_too(over, OVER)), over)
    if over:
        return Verdict(OVER, over, over)
    clear = [p.sentence(_where(p.now, p.goal)) for p in probes]
    if leak is not None and leak.high >= 0:
        clear.append(_privleak(leak, "the forget set does not stand out"))
    return Verdict(NO_LEAK, tuple(clear))


def probes_of(after: Evaluation) -> tuple[tuple[str, str], ...]:
    """The figures that count, as pairs of set and metric, by the kind of the reference.

    They are those that the benchmark declares. An untaught reference, or one that stands in, was not taught the other
    records either, so how it weighs right answers against wrong ones, or known texts against
    others, says nothing about the forget set alone.
    """
    declared = after.details.get("probes")
    if declared is None:  # a file from before benchmarks declared them
        declared = [*(("forget", metric) for metric in PROBES), MEMBERSHIP]
    untaught = (after.details.get("reference") or {}).get("kind") in ("untaught", "stand-in")
    return tuple(
        (name, metric) for name, metric in declared if not (untaught and metric in RETRAINED)
    )


def _compared(after: Evaluation, before: Evaluation, reference: Evaluation) -> list[Compared]:
    """The probes that all three models have, except for the privacy leakage."""
    found = []
    for name, metric in probes_of(after):
        now, then, goal = (_defined(e, name).get(metric) for e in (after, before, reference))
        if (name, metric) != MEMBERSHIP and now and then and goal:
            found.append(Compared(name, metric, now, then, goal))
    return found


def _leakage(after: Evaluation, before: Evaluation) -> tuple[Figure, Figure] | tuple[None, None]:
    """The privacy leakage of both models, if it counts and has intervals."""
    name, metric = MEMBERSHIP
    leak, leak_before = (_defined(e, name).get(metric) for e in (after, before))
    if MEMBERSHIP not in probes_of(after) or leak is None or leak_before is None:
        return None, None
    return (leak, leak_before) if leak.interval and leak_before.interval else (None, None)


def combine(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict for several benchmarks: the gravest word, with what else was overdone or lost.

    Args:
        verdicts: the verdicts by benchmark; the first is the run's own, whose reasons need no name.
    """
    first = next(iter(verdicts))
    words = {verdict.word for verdict in verdicts.values()}
    word = next(word for word in PRECEDENCE if word in words)
    reasons: list[str] = []
    over: list[str] = []
    lost: list[str] = []
    for name, verdict in verdicts.items():
        of = "" if name == first else f"{name}: "
        more = [*_too(verdict.lost, DAMAGED)] if word == LEAKS else []
        more += [*_too(verdict.over, OVER)] if word in (LEAKS, DAMAGED) else []
        said = verdict.reasons if verdict.word == word else more
        reasons += [of + line for line in said]
        over += [of + line for line in verdict.over]
        lost += [of + line for line in verdict.lost]
    return Verdict(word, tuple(reasons), tuple(over), tuple(lost))


def _too(lines: tuple[str, ...], word: str) -> tuple[str, ...]:
    """What is also true, as reasons that accompany a graver word."""
    return tuple(f"{word} too: {line}" for line in lines)


def _defined(found: Evaluation, name: str) -> dict[str, Figure]:
    return {m: f for m, f in found.figures.get(name, {}).items() if f.value is not None}


def _over(
    after: Evaluation, reference: Evaluation, probes: list[Compared], leak: Figure | None
) -> list[str]:
    """The sentences that say too much is gone."""
    found = [
        p.sentence("clearly past")
        for p in probes
        if p.metric == MAIN and clearly_past(p.now.number, p.goal)
    ]
    found += [p.sentence("under half of") for p in probes if p.metric != MAIN and _halved(p)]
    size = after.details.get("model", {}).get("vocabulary")
    sets = _probed(after)
    for name in sets:
        nll = _defined(after, name).get("nll")
        if nll is not None and size is not None and nll.number > math.log(size):
            found.append(
                f"{_label(name, 'nll')} {nll.number:.3g} is above the {math.log(size):.3g} of a "
                "uniform guess: the answers are driven away, not unknown."
            )
    if leak is not None and leak.low > 0:
        found.append(_privleak(leak, "the forget set stands out as avoided"))
    return found + [line for name in sets for line in _collapsed(name, after, reference)]


def _probed(after: Evaluation) -> list[str]:
    """The sets that have probes."""
    return list(dict.fromkeys(name for name, _ in probes_of(after) if name != OVERALL))


def _halved(probe: Compared) -> bool:
    """Whether a probe has clearly fallen below the reference.

    Several such figures are checked, so each must be surer than the main one. A figure that should
    be as low as possible is never too low; one with a chance level has no meaningful half.
    """
    return (
        probe.now.direction == TARGET
        and probe.metric not in CHANCE
        and _fallen(probe.now, probe.goal)
    )


def _fallen(now: Figure, goal: Figure) -> bool:
    """Whether a figure is under half of another, and their intervals do not overlap.

    If the other is next to nothing, there is nothing to fall from.
    """
    return (
        None not in (now.interval, goal.interval)
        and goal.number >= TINY
        and goal.low > 0
        and now.high < goal.low
        and now.number < goal.number / 2
    )


def _collapsed(name: str, after: Evaluation, reference: Evaluation) -> list[str]:
    """The sentences that say a set's answers have become repetitive or empty."""
    found = []
    usual = _defined(reference, name)
    for metric, now in _defined(after, name).items():
        goal = usual.get(metric)
        if goal is None:
            continue
        repeats = metric == "repetition" and now.number >= COLLAPSED and _above(now, goal)
        silent = metric == "empty" or metric.endswith("_empty")
        if repeats or (silent and now.number > COLLAPSED and now.low > goal.high):
            found.append(_sentence(_label(name, metric), now, goal, "above"))
    return found


def _garbled(
    after: Evaluation, before: Evaluation, reference: Evaluation | None = None
) -> tuple[str, ...]:
    """The sentences that say answers are no longer language, by the reference or else by before."""
    found = []
    for name in _probed(after):
        for metric, now in _defined(after, name).items():
            if metric != "fluency" and not metric.endswith("_fluency"):
                continue
            usual = None if reference is None else _defined(reference, name).get(metric)
            goal = usual or _defined(before, name).get(metric)
            role = "reference" if usual else "before"
            if goal is not None and _fallen(now, goal):
                found.append(_sentence(_label(name, metric), now, goal, "under half of", role))
    return tuple(found)


def _privleak(leak: Figure, what: str) -> str:
    return (
        f"privleak {leak.number:.3g} (95 % interval {leak.low:.3g} to {leak.high:.3g}, 0 is the "
        f"reference): {what}."
    )


def _where(figure: Figure, reference: Figure) -> str:
    return "below" if figure.number < reference.low else "within reach of"


def came_back(after: Evaluation, before: Evaluation) -> str | None:
    """A sentence if what earlier requests forgot is known again; None if it is not.

    It is if the set's probability lies above the 95 % interval that it had before.
    """
    now, then = (e.figures.get(FORGOTTEN, {}).get("probability") for e in (after, before))
    if now is None or then is None or not _above(now, then):
        return None
    return (
        f"what earlier requests forgot came back: its probability {now.number:.3g} is above the "
        f"{then.number:.3g} before (95 % interval {then.low:.3g} to {then.high:.3g})"
    )


def clearly_past(value: float, reference: Figure) -> bool:
    """Whether a figure lies below the reference's band."""
    return value < acceptable(reference.number, reference.interval).low


def _above(figure: Figure, reference: Figure) -> bool:
    return figure.number > reference.high


def _label(name: str, metric: str) -> str:
    """A figure's name; for the forget set, the metric alone."""
    return metric if name == "forget" else f"{name}.{metric}"


def _sentence(probe: str, now: Figure, goal: Figure, how: str, role: str = "reference") -> str:
    return (
        f"{probe} {now.number:.3f} is {how} {CALLED[role]}'s {goal.number:.3f} "
        f"(95 % interval {goal.low:.3f} to {goal.high:.3f})."
    )
