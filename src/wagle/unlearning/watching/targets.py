"""Where a run should land: the band of a figure, and the parts of it that are tried in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wagle.metrics.bands import Band, acceptable
from wagle.unlearning.watching.rules import Figures, Known, Rule

TOLERANCE = 0.05  # of a limit that is no reference's: how far beyond it a run may land
_PROBES = ("forget.extraction_strength", "forget.exact_memorization")  # seen in the same look
_ROOM = 12  # parts of a band, of which the last is kept free


@dataclass(frozen=True)
class Target:
    """Where a figure should be when a run ends.

    Attributes:
        figure: the figure of the rule, such as ``forget.probability``.
        falling: whether unlearning makes it fall.
        band: the range that it must not leave.
        aims: parts of the band, tried in turn: the next one if other probes leak in the one before.
        others: other probes of the same set, each with the upper end of the reference's band.
    """

    figure: str
    falling: bool
    band: Band
    aims: tuple[Band, ...]
    others: Mapping[str, float] = field(default_factory=dict)

    def leaks(self, figures: Figures) -> bool:
        """Whether another probe lies above the reference's band."""
        return any(figures[name] > high for name, high in self.others.items())

    def spent(self, figures: Figures) -> bool:
        """Whether nothing is gained by further steps: no probe leaks, or the band is used up."""
        if not self.leaks(figures):
            return True
        value, last = figures[self.figure], self.aims[-1]
        return value <= last.high if self.falling else value >= last.low


def target_of(rule: Rule, known: Known) -> Target:
    """The target of a rule.

    For a reference's figure it is the middle third of its band, or, if other probes still leak
    there, the part between that and the band's far end. For any other limit, it is the limit and
    the ``TOLERANCE`` of it beyond.
    """
    falling = rule.comparison.startswith("<")
    band = _band(rule, known)
    if band is None:
        limit = rule.limit(known)
        beyond = limit * (1 - TOLERANCE if falling else 1 + TOLERANCE)
        band = Band(min(limit, beyond), max(limit, beyond))
        return Target(rule.figure, falling, band, (band,))
    goal, room = known["reference"], (band.high - band.low) / _ROOM
    middle = band.middle
    far = Band(band.low + room, middle.low) if falling else Band(middle.high, band.high - room)
    others = {
        name: goal[f"{name}.high"]
        for name in _PROBES
        if rule.figure == "forget.probability" and f"{name}.high" in goal
    }
    return Target(rule.figure, falling, band, (middle, far) if others else (middle,), others)


def _band(rule: Rule, known: Known) -> Band | None:
    """The reference's band, if the rule is about that and its interval has a width."""
    if rule.name != "reference" or rule.factor != 1:
        return None
    goal = known["reference"]
    low, high = (goal.get(f"{rule.figure}.{end}") for end in ("low", "high"))
    if low is None or high is None or not low < high:
        return None
    return acceptable(goal[rule.figure], (low, high))
