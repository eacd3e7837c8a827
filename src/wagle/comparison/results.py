"""What the runs of a comparison say: figures per arm, differences to the control, one sentence."""

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

ENOUGH = 5  # units; under that, a comparison is exploratory


class Found(NamedTuple):
    """All that was run.

    Attributes:
        runs: per cell, what ``run_arm`` found on each unit, in the order of the units.
        tuned: per cell, its learning rate.
        references: the figures of each unit's reference; None without one.
    """

    runs: Mapping[Cell, Sequence[Mapping[str, Any]]]
    tuned: Mapping[Cell, Tuned]
    references: Sequence[Mapping[str, float]] | None


def summarise(recipe: Recipe, found: Found, *, trials: int) -> dict[str, Any]:
    """The figures of a comparison as JSON: no text of a record is among them.

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
    """Every arm against the control of its ratio; what has no ratio, against each of them.

    All of them are one family of tests.
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
    """The same over the units that nothing was tuned on."""
    return mean_difference(values[1:])._asdict() if len(values) > 1 else None


def _bound(own: Sequence[Reading], control: Sequence[Reading]) -> str:
    """What it does to a difference that a run ended before its figure could be read.

    Such a figure could still have fallen: ``at most`` where only the arm has some, ``at least``
    where only the control has, ``open`` where both have, "" where none has.
    """
    return {
        (False, False): "",
        (True, False): "at most",
        (False, True): "at least",
        (True, True): "open",
    }[any(r.at_least for r in own), any(r.at_least for r in control)]


def differs(one: Mapping[str, Any]) -> bool:
    """Whether a difference is shown: significant in its family, and not by a run's early end.

    An arm that is lower could only be lower still, were its own run longer; were the control's
    longer, the difference might vanish. And the other way round.
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
        f" {early} more cannot be told: a run ended before its figure could be read; give more steps."
        if early
        else ""
    )
    if not shown:
        smallest = sorted(one["smallest"] for one in differences)
        return (
            f"{hint}{'no' if hint else 'No'} arm differs from {CONTROL} at the 5 % level (Holm-corrected over "
            f"{len(differences)} differences, {units} units); so many units could have shown "
            f"differences of {smallest[0]:.3f} to {smallest[-1]:.3f} or more.{rest}"
        )
    listed = "; ".join(
        f"{one['arm']} at ratio {one['ratio']:g} forgets {'more' if one['mean'] < 0 else 'less'} "
        f"({one['mean']:+.3f}, 95 % interval {one['interval'][0]:+.3f} to {one['interval'][1]:+.3f})"
        for one in shown
    )
    return (
        f"{hint}{len(shown)} of {len(differences)} differences to {CONTROL} at the same retain "
        f"probability hold at the 5 % level (Holm-corrected, {units} units): {listed}.{rest}"
    )
