"""A plan: what a recipe will need on this machine, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wagle.model.loading import resolve_model
from wagle.recipe.recipe import Recipe
from wagle.run.inputs import Inputs
from wagle.run.models import Models
from wagle.run.planning.formulas import seconds
from wagle.run.planning.machine import Machine, block_rate, this_machine
from wagle.run.planning.shapes import shape_of
from wagle.run.planning.stages import how_of, largest_ratios, ratio_of, stage_needs, ways
from wagle.run.planning.terms import Batch, Need, Shape
from wagle.run.planning.work import Counted, count_sets, forgetting, readable
from wagle.system.errors import WagleError

CARDS = (8, 24, 80)  # GB of GPUs in the table
CONTEXT = 0.6e9  # bytes that CUDA and its kernels take on a card
_TRANSIENT = ("checkpoint", "values before", "entering", "vectors")
_PART = 0.7  # of a matrix product's rate that a whole block reaches, where no block was timed
_QUICK = 1e11  # operations of a block that are done in a moment


def make_plan(recipe: Recipe, folder: str | Path, *, measure: bool = False) -> dict[str, Any]:
    """What every stage of a recipe needs, and every way of unlearning, as plain data.

    Args:
        recipe: what would be done.
        folder: the run folder, whose disk counts; it need not exist.
        measure: time one block, and the disk for longer, instead of a glance.

    Raises:
        WagleError: the model cannot be built from its configuration, or there is no forget set.
    """
    home = resolve_model(recipe.model.path)
    if recipe.forget is None:
        raise WagleError("a plan needs a forget set: add forget: {source: ...} to the recipe")
    shape = shape_of(home, trust_remote_code=recipe.model.trust_remote_code)
    inputs = Inputs(recipe, Models(Path(folder), recipe))
    sets, how_counted = count_sets(recipe, inputs, tokenised=readable(home))
    eager = recipe.model.attention == "eager"
    machine = this_machine(folder, rates="long" if measure else "quick")
    batch = forgetting(recipe, sets).batch
    machine, timed = _with_blocks(machine, recipe, home, shape, batch, long=measure)
    needs = stage_needs(recipe, shape, sets, machine.free, eager=eager)
    return {
        "model": {"path": str(recipe.model.path), **asdict(shape)},
        "records": {"how": how_counted, "sets": _told(sets)},
        "machine": {**machine.to_json(), "timed": timed},
        "ratio": ratio_of(recipe),
        "stages": {name: need_json(need, machine) for name, need in needs.items()},
        "run": run_json(needs, machine),
        "ways": [
            {
                "way": w.name,
                "ratio": w.ratio,
                **need_json(w.need, machine),
                "fits": _fits(w.need, machine),
            }
            for w in ways(recipe, shape, sets, eager=eager)
        ],
        "largest_ratio": largest_ratios(
            recipe, shape, sets, machine.free, machine.disk, eager=eager
        ),
        "not_planned": _beyond(recipe),
    }


def need_json(need: Need, machine: Machine) -> dict[str, Any]:
    """A need as plain data, with its seconds on a machine."""
    return {
        "memory": need.memory,
        "peak": need.peak,
        "on_card": need.on_card,
        "disk": need.disk,
        "read": need.read,
        "written": need.written,
        **{name: getattr(need, name) for name in ("flops", "half", "stepped", "hashed", "decoded")},
        "seconds": seconds(need, machine.rates) if machine.rates else None,
    }


def run_json(needs: Mapping[str, Need], machine: Machine) -> dict[str, Any]:
    """What a whole run needs: the largest peak, all that stays on disk, all seconds."""
    return {
        "peak": max(need.peak for need in needs.values()),
        "disk": disk_of(needs),
        "seconds": sum(seconds(n, machine.rates) for n in needs.values())
        if machine.rates
        else None,
    }


def disk_of(needs: Mapping[str, Need]) -> float:
    """Bytes on disk at the worst moment: what all stages leave, and what one keeps meanwhile."""
    passing = (sum(n.disk.values()) - lasting(n, ()) for n in needs.values())
    return sum(lasting(need, ()) for need in needs.values()) + max(passing, default=0.0)


def lasting(need: Need, kept: Sequence[str]) -> float:
    """Bytes that a stage surely writes to the disk: what it leaves, and what it works on there.

    Checkpoints come only with time, and the values from before lie in the folder for temporary files.

    Args:
        need: of the stage.
        kept: what it keeps only meanwhile, and counts.
    """
    return sum(size for what, size in need.disk.items() if what not in _TRANSIENT or what in kept)


def _with_blocks(
    machine: Machine, recipe: Recipe, home: Path, shape: Shape, batch: Batch, *, long: bool
) -> tuple[Machine, str]:
    """The machine with rates of whole blocks: timed where that is quick or asked for."""
    rates = dict(machine.rates)
    eager = recipe.model.attention == "eager"
    if not long:
        records = int(_QUICK / max(1, 6 * shape.block * max(1, batch.width)))
        if records < 1:
            rates |= {name: _PART * rates[name] for name in ("flops", "flops_half")}
            return replace(machine, rates=rates), "matrix product"
        batch = replace(batch, records=min(records, batch.records))
    halves = {how_of(recipe, recipe.unlearning, eager=eager).half, False}
    for half in halves:
        trust = recipe.model.trust_remote_code
        rates["flops_half" if half else "flops"] = block_rate(
            home, batch, half=half, eager=eager, trust_remote_code=trust
        )
    return replace(machine, rates=rates), "block"


def _told(sets: Mapping[str, Counted]) -> dict[str, dict[str, int]]:
    return {
        name: {
            "records": one.count,
            "tokens": sum(one.lengths),
            "longest": max(one.lengths, default=0),
        }
        for name, one in sets.items()
    }


def _fits(need: Need, machine: Machine) -> dict[str, bool]:
    """Whether this machine's memory and disk suffice, and on which cards it fits."""
    here = need.peak <= machine.free and need.disk_bytes <= machine.disk
    cards = {f"{size} GB": need.on_card + CONTEXT <= size * (1 << 30) for size in CARDS}
    return {"here": here, **cards}


def _beyond(recipe: Recipe) -> list[str]:
    """What the run also does, and the plan leaves out."""
    asked = {
        "attacks": recipe.attacks,
        "controls": recipe.controls,
        "deploy": recipe.deploy,
        "benchmarks": recipe.evaluation.benchmarks,
    }
    return [name for name, given in asked.items() if given]
