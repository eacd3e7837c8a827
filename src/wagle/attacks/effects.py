"""What an attack brought back, compared with the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from wagle.attacks.shapes import SHUFFLED, Series
from wagle.metrics.table import METRICS
from wagle.system.errors import WagleError

SMALLEST = 0.02  # drop below which no recovered share is reported


@dataclass(frozen=True)
class Effect:
    """What a state brought back in one figure of the unlearned model.

    Attributes:
        rise: relative to the model as it is; None if the attack only observes.
        recovered: the share of what was forgotten; None if that is not defined (see ``note``) or
            the attack only observes.
        gap: how much more it rose than the reference's did or, if the attack only observes, how far
            it lies above the reference's; None without a reference. Only this is evidence.
        note: why the share is not defined, or None.
    """

    rise: float | None
    recovered: float | None
    gap: float | None
    note: str | None


def effects(found: Mapping[str, Series]) -> dict[str, dict[str, Effect]]:
    """What an attack did to the unlearned model, per state it made and per figure.

    Figures that rise as a model forgets (losses), those on how its answers read (repetition) and
    those for shuffled labels are left out.

    Args:
        found: what was found, by role; at least ``after``.
    """
    after, made = found["after"], {}
    for state, figures in after.states.items():
        if state == after.start:
            continue
        several = {
            name: effect
            for name, figure in figures.items()
            if _falls(name)
            and figure.value is not None
            and (effect := _effect(found, state, name, figure.value)) is not None
        }
        if several:
            made[state] = several
    return made


def _falls(name: str) -> bool:
    """Whether a figure falls as a model forgets; one for meaningless labels does not."""
    if name.endswith(SHUFFLED):
        return False
    metric = METRICS.get(name.rpartition(".")[2])
    return metric is None or (metric.direction, metric.kept) == ("target", "higher")


def _effect(found: Mapping[str, Series], state: str, name: str, value: float) -> Effect | None:
    after, before, goal = map(found.get, ("after", "before", "reference"))
    assert after is not None
    other = _value(goal, state, name)
    if after.start is None:
        apart = None if other is None else value - other
        return Effect(None, None, apart, None)
    own = _value(after, after.start, name)
    if own is None:
        return None
    original, first = _value(before, after.start, name), _value(goal, after.start, name)
    came = Recovered(None, "there is no original model")
    if original is not None:
        came = recovered(own, value, original)
    apart = None if first is None or other is None else gap(value - own, other - first)
    return Effect(value - own, came.value, apart, came.note)


def _value(series: Series | None, state: str, name: str) -> float | None:
    figure = series.states.get(state, {}).get(name) if series is not None else None
    return figure.value if figure is not None else None


class Recovered(NamedTuple):
    """The share of what was forgotten that an attack brought back; if None, ``note`` says why."""

    value: float | None
    note: str | None


def recovered(unlearned: float, after: float, original: float) -> Recovered:
    """``(after - unlearned) / (original - unlearned)``: 0 is nothing, 1 is all.

    Args:
        unlearned: a figure of the unlearned model that falls as it forgets (a probability, ROUGE;
            for an NLL, its negative).
        after: the same after the attack.
        original: the same for the model before unlearning.

    Returns:
        No value if less than 0.02 was forgotten: the share would be noise.
    """
    for name, value in (("unlearned", unlearned), ("after", after), ("original", original)):
        if not math.isfinite(value):
            raise WagleError(f"the figure {name} is {value}; evaluate that model again")
    forgotten = original - unlearned
    if forgotten < SMALLEST:
        return Recovered(
            None,
            f"undefined: the unlearned model lies {forgotten:.3g} below the original, under "
            f"{SMALLEST}, so there is nothing to bring back",
        )
    return Recovered((after - unlearned) / forgotten, None)


def gap(own_rise: float, retrained_rise: float) -> float:
    """How much more an attack brought back than it taught a model that never knew it.

    Args:
        own_rise: by how much a figure of the unlearned model rose, as from ``Curve.rise``.
        retrained_rise: the same for the reference, under the same attack, budget and seed.
    """
    return own_rise - retrained_rise
