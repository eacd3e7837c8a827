"""What an attack brought back, compared with the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wagle.attacks.probe import SHUFFLED
from wagle.attacks.relearning import (
    Recovered,
    gap,
    recovered,
)
from wagle.attacks.shapes import Series
from wagle.metrics.table import METRICS


@dataclass(frozen=True)
class Effect:
    """What a state brought back of one figure of the unlearned model.

    Attributes:
        rise: against the model as it is; None where the attack only looks.
        recovered: the share of what was forgotten; None where that cannot be told (``note``), and
            where the attack only looks.
        gap: how much more it rose than the reference did, or, where the attack only looks, how far
            it lies above the reference's; None without one. Only this is evidence.
        note: why it cannot be told, or None.
    """

    rise: float | None
    recovered: float | None
    gap: float | None
    note: str | None


def effects(found: Mapping[str, Series]) -> dict[str, dict[str, Effect]]:
    """Per state that an attack made and per figure, what it did to the unlearned model.

    Figures that rise as a model forgets (losses), those of how its answers read (repetition) and
    those of shuffled labels are left out.

    Args:
        found: by role, ``after`` at least.
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
    """Whether a figure falls as a model forgets; one of labels that mean nothing does not."""
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
