"""Forget quality as figures: could the model pass for one that never learned the forget set?"""

from __future__ import annotations

from dataclasses import replace

from wagle.evaluation.figures import HIGHER, LOWER, TARGET, Figure
from wagle.evaluation.metrics.utility import Distance


def distance_figures(name: str, found: Distance) -> dict[str, Figure]:
    """Figures of a distance: its p under ``name``, and how it comes about."""

    def figure(value: float | None, unit: str, direction: str, note: str | None = None) -> Figure:
        return Figure(
            value, None, "none", direction=direction, unit=unit, note=note, count=sum(found.counts)
        )

    lost = "p is too small for a number" if found.log10_p is None else found.note
    return {
        name: figure(found.p, "p of Kolmogorov-Smirnov", HIGHER, found.note),
        f"{name}_log10": figure(found.log10_p, "log10 p", HIGHER, lost),
        f"{name}_distance": figure(found.statistic, "D", LOWER),
        f"{name}_shift": replace(figure(found.shift, "difference of medians", TARGET), target=0),
    }
