"""One run of a comparison: an arm moves a unit's model, with looks at its effect along the way."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from wagle.comparison.arms import Cell
from wagle.comparison.statistics import Reading, read_at
from wagle.comparison.units import Unit
from wagle.data.reading import read_records
from wagle.data.tokens import Tokens
from wagle.recipe.sections.unlearning import Unlearning
from wagle.run.opening import Run
from wagle.system.errors import TrainingStopped, WagleError
from wagle.system.memory import give_memory_back
from wagle.unlearning.forgetting import forget_probability, unlearn_with
from wagle.unlearning.lora import adapt
from wagle.unlearning.watching.looks import make_looked

SHARE = 0.95  # of the retain probability before: where the arms are compared
TUNED = "forget"  # the figure that tuning sees: original questions
COMPARED = "heldout"  # the figure that is compared: paraphrased questions, which tuning never sees
RECORDS = 64  # paraphrased questions, at most
LOOKS = 6  # per run, roughly: a look at all sets costs as much as three steps
_FROM_TRAINING = {"retain": "retain.probability", "forget": "forget.probability"}


def heldout_tokens(run: Run) -> list[Tokens]:
    """Paraphrased forget questions with the original answers, drawn by (seed, record).

    Raises:
        WagleError: no forget record has a paraphrased question, or there is no retain set.
    """
    if run.recipe.retain is None or run.recipe.retain.is_made:
        raise WagleError("the recipe has no retain set; add one: retain: {source: ...}")
    run.inputs.need("retain")
    records = [r for r in run.inputs.need("forget") if r.paraphrased_prompt]
    if not records:
        raise WagleError(
            "wagle compare asks paraphrased questions that tuning never saw, but no forget record "
            "has one; add the field paraphrased_question"
        )
    some = read_records(
        records, name="forget", take=min(RECORDS, len(records)), seed=run.recipe.seed
    )
    return [run.inputs.encoder.answer(r, str(r.paraphrased_prompt), r.answer) for r in some]


def count_steps(run: Run) -> int:
    """How many optimiser steps the recipe's unlearning has."""
    settings = run.recipe.unlearning
    if settings.max_steps is not None:
        return settings.max_steps
    records = len(run.inputs.encoder.encode(run.inputs.need(settings.anchor)))
    return math.ceil(settings.epochs * records / (settings.batch_size * settings.accumulation))


def run_arm(
    unit: Unit, cell: Cell, *, learning_rate: float, steps: int, tuning: bool = False
) -> dict[str, Any]:
    """Unlearn with one arm, keeping only what the looks found, not the model.

    Args:
        unit: the unit whose taught model is loaded.
        cell: the arm and its ratio.
        learning_rate: of this run, instead of the recipe's.
        steps: of this run; no rule ends it earlier.
        tuning: do not ask the paraphrased questions, and end where the figure is read, as what
            comes later does not count.

    Returns:
        JSON: ``learning_rate``, ``selected`` (weights), ``trajectory`` (per look, the first before
        training: ``step``, ``retain``, ``forget`` and, unless tuning, ``heldout``), ``stopped``
        (why the run broke off, or null) and ``seconds``.
    """
    recipe, started = unit.run.recipe, time.perf_counter()
    looks: list[dict[str, Any]] = []

    def keep(figures: Mapping[str, Any]) -> None:
        names = {**_FROM_TRAINING, **({} if tuning else {COMPARED: COMPARED})}
        if all(name in figures for name in names.values()):
            found = {key: figures[name] for key, name in names.items()}
            looks.append({"step": figures["step"], **found})

    def ask(live: nn.Module) -> dict[str, float]:
        return {COMPARED: forget_probability(live, heldout, recipe.evaluation.precision)}

    heldout = [] if tuning else heldout_tokens(unit.run)
    mask = unit.masks.of(cell)
    model = _load(unit, cell)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    stopped = None
    try:
        unlearn_with(
            _settings(recipe.unlearning, learning_rate, steps, tuning=tuning),
            model,
            unit.run.inputs.encoder,
            unit.run.inputs.need("forget"),
            unit.run.inputs.need("retain"),
            mask=mask,
            evaluate=None if tuning else ask,
            wrong_answers=False,
            overlap=recipe.overlap,
            seed=recipe.seed,
            on_step=keep,
        )
    except TrainingStopped as error:
        stopped = str(error)
    del model
    give_memory_back()
    finite = [look for look in looks if all(map(math.isfinite, look.values()))]
    if len(finite) < len(looks) and stopped is None:
        stopped = "a figure is not finite; lower the learning rate"
    return {
        "learning_rate": learning_rate,
        "selected": trained if mask is None else mask.count,
        "trajectory": finite,
        "stopped": stopped,
        "seconds": round(time.perf_counter() - started, 2),
    }


def _settings(asked: Unlearning, learning_rate: float, steps: int, *, tuning: bool) -> Unlearning:
    """The recipe's settings, except what a comparison decides: the rate, the looks, the end."""
    every = max(1, steps // LOOKS)
    decided = {
        "learning_rate": learning_rate,
        "max_steps": steps,
        "stop_when": [f"retain.probability < {SHARE} * before"] if tuning else [],
        "best": None,
        "check_every": every,
        "evaluate_every": every,
    }
    return asked.model_copy(update=decided)


def _load(unit: Unit, cell: Cell) -> PreTrainedModel:
    recipe = unit.run.recipe
    model = unit.run.models.load(unit.run.models.base, recipe.model.dtype)
    if cell.arm != "lora":
        return model
    adapted: PreTrainedModel = adapt(model, unit.lora, recipe.seed)
    return adapted


def look_at_reference(unit: Unit) -> dict[str, float]:
    """The forget figures of the unit's reference, a model that never learned them."""
    run = unit.run
    assert run.models.reference is not None
    looked = make_looked(
        run.inputs.encoder, run.inputs.need("forget"), [], whole=False, seed=run.recipe.seed
    )
    sets = {TUNED: looked.sets["forget"], COMPARED: heldout_tokens(run)}
    model = run.models.load(run.models.reference)
    precision = run.recipe.evaluation.precision
    found = {key: forget_probability(model, tokens, precision) for key, tokens in sets.items()}
    del model
    give_memory_back()
    return found


def read_run(found: Mapping[str, Any], name: str) -> Reading:
    """The figure ``name`` of a run at the point where the retain probability is 0.95 of before."""
    looks: Sequence[Mapping[str, float]] = found["trajectory"]
    steps, kept, figures = ([look[key] for look in looks] for key in ("step", "retain", name))
    return read_at(steps, kept, figures, SHARE)
