"""Bands: the interval of a reference's figure, in which a model that has forgotten should lie."""

from __future__ import annotations

from typing import NamedTuple

HALF = 0.5  # share of the reference's value under which a figure is clearly past it


class Band(NamedTuple):
    """A range of a figure, both ends included; NaN lies nowhere.

    Attributes:
        low: the lower end.
        high: the upper end.
    """

    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether a figure lies inside."""
        return self.low <= value <= self.high

    @property
    def middle(self) -> Band:
        """The middle third: where landing aims, so that no coin toss carries a figure outside."""
        third = (self.high - self.low) / 3
        return Band(self.low + third, self.high - third)

    @property
    def centre(self) -> float:
        """The point halfway."""
        return (self.low + self.high) / 2


def acceptable(value: float, interval: tuple[float, float] | None) -> Band:
    """The band of a reference's figure: its interval, but never under half of its value.

    The verdict, the stop rules and landing all judge a forget probability by it.

    Args:
        value: the reference's figure.
        interval: its 95 % interval; None: the value alone.
    """
    low, high = (value, value) if interval is None else interval
    return Band(max(low, HALF * value), high)
