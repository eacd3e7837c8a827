"""The section on what was asked: the recipe in words, and its sets of records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wagle.evaluation.figures import SETS
from wagle.evaluation.neighbours import NEIGHBOURS, NEUTRAL
from wagle.evaluation.stand_in import BASE, TWINS
from wagle.recipe.recipe import NO_REFERENCE, Recipe
from wagle.report.disclosure import last
from wagle.report.html.page import Page
from wagle.report.html.section import Section
from wagle.report.numbers import number
from wagle.report.settings import described, listed
from wagle.report.text.run import landed_text
from wagle.unlearning.watching.rules import REACHED, parse_best

_STAND_INS = {
    BASE: "the model before it was taught or adapted",
    TWINS: "twins of the forget records, about invented subjects, asked of the model itself",
}
_MADE = {
    NEIGHBOURS: "assumed: the model's own answers about invented subjects",
    NEUTRAL: "assumed: the model's own answers to neutral questions, and neutral texts",
}
_SETS = {
    "forget": "must go",
    "retain": "must stay; used while unlearning",
    "retain_heldout": "must stay; unlearning never saw it",
    "general": "general knowledge; unlearning never saw it",
    "holdout": "like the forget set; no model was trained on it",
}


def asked(page: Page) -> Section:
    """The facts and the sets of the recipe."""
    context = {
        "asked": _facts(page),
        "sets": _record_sets(page.recipe, page.count, page.state.get("neighbours", {}).get("kind")),
    }
    return Section("asked", "What was asked", 10, context)


def _facts(page: Page) -> dict[str, str]:
    """What the recipe asked for, as terms with their values."""
    recipe, training = page.recipe, page.recipe.unlearning
    unlearned = page.state.get("unlearn", {})
    objective = unlearned.get("objective") or {
        "name": training.objective,
        **training.objective_settings,
    }
    length = (
        f"{training.epochs} epochs" if training.max_steps is None else f"{training.max_steps} steps"
    )
    records = training.batch_size * training.accumulation
    return {
        "Model": _model(recipe),
        "Reference": _reference(page),
        "Objective": described(
            objective["name"], {k: v for k, v in objective.items() if k != "name"}
        ),
        "Training": f"{length}, {records} records a step, {training.optimizer}, learning rate "
        f"{training.learning_rate:g} ({training.schedule}), {training.precision}",
        **_selection(page),
        "Stop rule": _stop(page),
        "Seed": str(recipe.seed),
    }


def _model(recipe: Recipe) -> str:
    name = last(recipe.model.path)
    if recipe.after is not None:
        name = f"the model left by {last(recipe.after)}"
    if recipe.model.adapter is not None:
        name += f" with the adapter {last(recipe.model.adapter)}"
    return f"{name}, {recipe.model.dtype}"


def _reference(page: Page) -> str:
    recipe, of = page.recipe, page.state.get("reference", {}).get("of")
    if of is not None:
        return f"none was given; a stand-in: {_STAND_INS[of]}"
    if recipe.reference in (None, NO_REFERENCE):
        return "none: without a model that never learned the forget set, nothing can be concluded"
    if recipe.reference == "untaught":
        return "untaught: the model before it was taught"
    if recipe.reference == "retrained":
        return "retrained: taught like the model, but without the forget set"
    return f"{last(recipe.reference)}: a model that never learned the forget set"


def _selection(page: Page) -> dict[str, str]:
    """What is trained: a share of the weights by a score, all of them, or an adapter."""
    chosen = {"Score": _score(page), "Ratio": _ratio(page)}
    lora = page.recipe.unlearning.lora
    if lora is None:
        skipped = page.state.get("mask", {}).get("skipped")
        return chosen if skipped is None else {"Weights": skipped}
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    text = f"LoRA of rank {lora.rank}, alpha {lora.alpha}, on {targets}"
    if lora.quantize != "none":
        text += f", trained over a base in {lora.quantize}"
    return {"Adapter": text + ", then merged", **(chosen if lora.masked else {})}


def _score(page: Page) -> str:
    asked, mask = page.recipe.attribution, page.state.get("mask", {})
    text = described(mask.get("score", asked.score), mask.get("settings", {}))
    if asked.mask is not None:
        return f"{text}, from the mask {last(asked.mask)}"
    if isinstance(asked.gamma, float) or "gamma" not in mask.get("settings", {}):
        return text
    given = (
        asked.gamma
        if isinstance(asked.gamma, str)
        else listed({str(k): v for k, v in asked.gamma.items()})
    )
    return f"{text}, gamma chosen by {given}"


def _ratio(page: Page) -> str:
    ratio, ladder = page.ratio, page.state.get("mask", {}).get("ratios", [])
    text = "that of the mask" if ratio is None else f"{ratio:g} of the candidate weights"
    return text + (
        f", of the ladder {', '.join(f'{r:g}' for r in ladder)}" if len(ladder) > 1 else ""
    )


def _stop(page: Page) -> str:
    training, found = page.recipe.unlearning, page.state.get("unlearn", {})
    text = "the end of training"
    turned = training.wrapper == "task_vector" and training.wrapper_settings.get("scale", -1) < 0
    if training.stop_when == "auto" and page.goal is not None and not turned:
        value = f" ({number(page.goal.number)})" if page.goal.value is not None else ""
        text = f"when the forget probability reaches the reference's{value}, or the end of training"
    elif training.stop_when != "auto" and training.stop_when:
        text = f"when {' or '.join(training.stop_when)}, or the end of training"
    if "steps" in found:
        stopped = found.get("stopped", "end")
        why = {"end": "the end of training", REACHED: "the reference was reached"}
        text += f"; stopped at step {found['steps']:,}: {why.get(stopped, stopped)}"
    if found.get("landed"):
        text += f"; landed: {landed_text(found['landed'])}"
    if found.get("best") and training.best is not None:
        rule = parse_best(training.best)
        text += f"; the model is that of step {found['best']['step']:,}, {rule}"
        text += "" if found["best"].get("meets", True) else " (no step met this condition)"
    return text


def _record_sets(
    recipe: Recipe, count: Callable[[str], int | None], made: str | None
) -> list[dict[str, Any]]:
    """The sets of the recipe: their role, their source and how many records they have."""
    found = []
    for name in SETS:
        asked = getattr(recipe, name)
        if name == "retain" and made is not None:
            row = {"name": name, "role": _SETS[name], "source": _MADE[made], "n": count(name)}
            found.append(row)
        elif asked is not None:
            sources = [asked.source] if isinstance(asked.source, str) else asked.source
            cut = [f"{key} {v}" for key in ("split", "rows") if (v := getattr(asked, key))]
            cut += [f"take {asked.take}"] if asked.take != "all" else []
            source = ", ".join([" + ".join(last(one) for one in sources), *cut])
            found.append({"name": name, "role": _SETS[name], "source": source, "n": count(name)})
    return found
