"""What a comparison's runs show: figures per arm, differences from the control, one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from wagle.comparison.arms import CONTROL, Cell
from wagle.comparison.runs import COMPARED, SHARE, read_run
from wagle.comparison.statistics import LEVEL, Reading, holm, mean_difference
from wagle.comparison.tuning import Tuned
from wagle.comparison.units import forget_set_varies
from wagle.recipe.recipe import Recipe

ENOUGH = 5  # units; with fewer, a comparison is exploratory


class Found(NamedTuple):
    """Everything that was run.

    Attributes:
        runs: per cell, what ``run_arm`` found on each unit, in the order of the units.
        tuned: the learning rate per cell.
        references: the figures of each unit's reference; None if there is none.
    """

    runs: Mapping[Cell, Sequence[Mapping[str, Any]]]
    tuned: Mapping[Cell, Tuned]
    references: Sequence[Mapping[str, float]] | None


def summarise(recipe: Recipe, found: Found, *, trials: int) -> dict[str, Any]:
    """The figures of a comparison as JSON, without any record's text.

    Args:
        recipe: of the comparison.
        found: what was run.
        trials: learning rates per arm.
    """
    readings = {
        cell: [read_run(run, COMPARED) for run in runs] for cell, runs in found.runs.items()
    }
    first = next(iter(found.runs.values()))
    before = [run["trajectory"][0][COMPARED] for run in first]
    reference = [r[COMPARED] for r in found.references] if found.references is not None else None
    differences = _differences(readings)
    exploratory = len(first) < ENOUGH
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "objective": recipe.unlearning.objective,
        "share": SHARE,
        "trials": trials,
        "units": len(first),
        "exploratory": exploratory,
        "forget_set_varies": forget_set_varies(recipe),
        "before": before,
        "reference": reference,
        "arms": [
            _arm(cell, found.runs[cell], readings[cell], found.tuned[cell], reference)
            for cell in found.runs
        ],
        "differences": differences,
        "sentence": say(differences, len(first), exploratory),
    }


def _arm(
    cell: Cell,
    runs: Sequence[Mapping[str, Any]],
    readings: Sequence[Reading],
    tuned: Tuned,
    reference: Sequence[float] | None,
) -> dict[str, Any]:
    mean = fmean(reading.figure for reading in readings)
    return {
        "name": cell.name,
        "arm": cell.arm,
        "ratio": cell.ratio,
        "learning_rate": tuned.learning_rate,
        "edge": tuned.edge,
        "selected": runs[0]["selected"],
        "mean": mean,
        "at_least": any(reading.at_least for reading in readings),
        "over": reference is not None and mean < 0.5 * fmean(reference),
        "units": [
            {
                **reading._asdict(),
                "stopped": run["stopped"],
                "seconds": run["seconds"],
                "curve": _curve(run["trajectory"]),
            }
            for run, reading in zip(runs, readings, strict=True)
        ],
    }


def _curve(looks: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """[share of the retain probability before, compared figure] per look."""
    return [[look["retain"] / looks[0]["retain"], look[COMPARED]] for look in looks]


def _differences(readings: Mapping[Cell, Sequence[Reading]]) -> list[dict[str, Any]]:
    """Every arm against the control of its ratio; an arm without a ratio against every control.

    All of these form one family of tests.
    """
    controls = {cell.ratio: own for cell, own in readings.items() if cell.arm == CONTROL}
    pairs = [
        (cell, ratio)
        for ratio in controls
        for cell in readings
        if cell.arm != CONTROL and cell.ratio in (ratio, None)
    ]
    found = []
    for cell, ratio in pairs:
        own, control = readings[cell], controls[ratio]
        values = [a.figure - b.figure for a, b in zip(own, control, strict=True)]
        found.append(
            {
                "arm": cell.arm,
                "ratio": ratio,
                **mean_difference(values)._asdict(),
                "bound": _bound(own, control),
                "without_unit_0": _rest(values),
            }
        )
    tested = [one for one in found if one["p"] is not None]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["holm"] = p
    return found


def _rest(values: Sequence[float]) -> dict[str, Any] | None:
    """The same over the units on which nothing was tuned."""
    return mean_difference(values[1:])._asdict() if len(values) > 1 else None


def _bound(own: Sequence[Reading], control: Sequence[Reading]) -> str:
    """How a difference is limited by runs that ended before their figure could be read.

    Such a figure could still have fallen: ``at most`` if only the arm has some, ``at least`` if
    only the control has, ``open`` if both have, "" if neither has.
    """
    return {
        (False, False): "",
        (True, False): "at most",
        (False, True): "at least",
        (True, True): "open",
    }[any(r.at_least for r in own), any(r.at_least for r in control)]


def differs(one: Mapping[str, Any]) -> bool:
    """Whether a difference is shown: significant in its family, and not due to a run's early end.

    If the arm is lower, a longer run of its own could only make it lower still; a longer run of the
    control might remove the difference. And vice versa.
    """
    safe = {"", "at most"} if one["mean"] < 0 else {"", "at least"}
    return one.get("holm") is not None and one["holm"] < LEVEL and one["bound"] in safe


def say(differences: Sequence[Mapping[str, Any]], units: int, exploratory: bool) -> str:
    """Whether any arm differs from the control, in words made from the figures alone."""
    hint = f"Exploratory, with {units} unit{'s' * (units > 1)}: " if exploratory else ""
    if units < 2:
        return f"{hint}one unit shows no difference between arms."
    shown = [one for one in differences if differs(one)]
    early = sum(one["holm"] < LEVEL for one in differences) - len(shown)
    rest = (
        f" {early} more are undecided: a run ended before its figure could be read; give more steps."
        if early
        else ""
    )
    if not shown:
        smallest = sorted(one["smallest"] for one in differences)
        return (
            f"{hint}{'no' if hint else 'No'} arm differs from {CONTROL} at the 5 % level (Holm-corrected over "
            f"{len(differences)} differences, {units} units); this many units could have shown "
            f"differences of {smallest[0]:.3f} to {smallest[-1]:.3f} or more.{rest}"
        )
    listed = "; ".join(
        f"{one['arm']} at ratio {one['ratio']:g} forgets {'more' if one['mean'] < 0 else 'less'} "
        f"({one['mean']:+.3f}, 95 % interval {one['interval'][0]:+.3f} to {one['interval'][1]:+.3f})"
        for one in shown
    )
    return (
        f"{hint}{len(shown)} of {len(differences)} differences from {CONTROL} at the same retain "
        f"probability hold at the 5 % level (Holm-corrected, {units} units): {listed}.{rest}"
    )
