"""What a recipe asked for, in words; and names instead of paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from wagle.evaluation.figures import SETS, Figure
from wagle.recipe.recipe import Recipe
from wagle.report.html.templates import number
from wagle.unlearning.watching.rules import REACHED, parse_best

State: TypeAlias = Mapping[str, Mapping[str, Any]]  # what state.json says of every stage
_SETS = {
    "forget": "must go",
    "retain": "must stay; used while unlearning",
    "retain_heldout": "must stay; unlearning never saw it",
    "general": "general knowledge; unlearning never saw it",
    "holdout": "like the forget set; no model was trained on it",
}


def last(path: str) -> str:
    """The last part of a path: where a model lies is nobody's business."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path


class Shortener:
    """Cuts absolute paths in a text to ``…/NAME``: those of the recipe, and what looks like one."""

    _looks = re.compile(r"(?<![\w.~:/\\-])(?:~|[A-Za-z]:)?(?:[\\/][^\s'\"\\/<>,;:()\[\]{}]+){2,}")

    def __init__(self, recipe: Recipe) -> None:
        found = [
            recipe.model.path,
            recipe.model.adapter,
            recipe.after,
            recipe.reference,
            recipe.attribution.mask,
        ]
        sets = [getattr(recipe, name) for name in SETS]
        sets.append(recipe.finetune.records if recipe.finetune else None)
        for asked in sets:
            if asked is not None:
                found += [asked.source] if isinstance(asked.source, str) else asked.source
        absolute = {path for path in found if path and re.match(r"[\\/~]|[A-Za-z]:[\\/]", path)}
        self.paths = sorted(absolute, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for path in self.paths:
            text = text.replace(path, f"…/{last(path)}")
        return self._looks.sub(lambda found: f"…/{last(found[0])}", text)


def facts(recipe: Recipe, state: State, goal: Figure | None) -> dict[str, str]:
    """What the recipe asked for, as terms and what they were.

    Args:
        recipe: of the run.
        state: of its stages.
        goal: the forget probability of the reference.
    """
    training = recipe.unlearning
    unlearned = state.get("unlearn", {})
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
        "Reference": _reference(recipe),
        "Objective": described(
            objective["name"], {k: v for k, v in objective.items() if k != "name"}
        ),
        "Training": f"{length}, {records} records a step, {training.optimizer}, learning rate "
        f"{training.learning_rate:g} ({training.schedule}), {training.precision}",
        **_selection(recipe, state),
        "Stop rule": _stop(recipe, state, goal),
        "Seed": str(recipe.seed),
    }


def described(name: str, settings: Mapping[str, Any]) -> str:
    """A name with its settings."""
    return f"{name} ({listed(settings)})" if settings else name


def listed(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{key} {_value(value)}" for key, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _model(recipe: Recipe) -> str:
    name = last(recipe.model.path)
    if recipe.after is not None:
        name = f"what {last(recipe.after)} left"
    if recipe.model.adapter is not None:
        name += f" with the adapter {last(recipe.model.adapter)}"
    return f"{name}, {recipe.model.dtype}"


def _reference(recipe: Recipe) -> str:
    if recipe.reference is None:
        return "none: without a model that never learned the forget set, nothing can be concluded"
    if recipe.reference == "untaught":
        return "untaught: the model before it was taught"
    if recipe.reference == "retrained":
        return "retrained: taught like the model, but without the forget set"
    return f"{last(recipe.reference)}: a model that never learned the forget set"


def _selection(recipe: Recipe, state: State) -> dict[str, str]:
    """What trains: a share of the weights by a score, all of them, or an adapter."""
    chosen = {"Score": _score(recipe, state), "Ratio": _shown_ratio(recipe, state)}
    lora = recipe.unlearning.lora
    if lora is None:
        skipped = state.get("mask", {}).get("skipped")
        return chosen if skipped is None else {"Weights": skipped}
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    text = f"LoRA of rank {lora.rank}, alpha {lora.alpha}, beside {targets}"
    if lora.quantize != "none":
        text += f", trained over a base in {lora.quantize}"
    return {"Adapter": text + ", then merged", **(chosen if lora.masked else {})}


def _score(recipe: Recipe, state: State) -> str:
    asked, mask = recipe.attribution, state.get("mask", {})
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


def chosen_ratio(recipe: Recipe, state: State) -> float | None:
    """The ratio that was trained, if it can be told."""
    asked = recipe.attribution
    ratios = state.get("mask", {}).get("ratios")
    if ratios is None and asked.mask is None:
        ratios = asked.ratio if isinstance(asked.ratio, list) else [asked.ratio]
    return asked.use or (ratios[0] if ratios and len(ratios) == 1 else None)


def _shown_ratio(recipe: Recipe, state: State) -> str:
    ratio, ladder = chosen_ratio(recipe, state), state.get("mask", {}).get("ratios", [])
    text = "that of the mask" if ratio is None else f"{ratio:g} of the candidate weights"
    return text + (
        f", of the ladder {', '.join(f'{r:g}' for r in ladder)}" if len(ladder) > 1 else ""
    )


def _stop(recipe: Recipe, state: State, goal: Figure | None) -> str:
    training, found = recipe.unlearning, state.get("unlearn", {})
    text = "the end of training"
    turned = training.wrapper == "task_vector" and training.wrapper_settings.get("scale", -1) < 0
    if training.stop_when == "auto" and recipe.reference is not None and not turned:
        value = f" ({number(goal.number)})" if goal else ""
        text = f"when the forget probability reaches the reference's{value}, or the end of training"
    elif training.stop_when != "auto" and training.stop_when:
        text = f"when {' or '.join(training.stop_when)}, or the end of training"
    if "steps" in found:
        stopped = found.get("stopped", "end")
        why = {"end": "the end of training", REACHED: "the reference was reached"}
        text += f"; stopped at step {found['steps']:,}: {why.get(stopped, stopped)}"
    if found.get("best") and training.best is not None:
        rule = parse_best(training.best)
        text += f"; the model is that of step {found['best']['step']:,}, {rule}"
        text += "" if found["best"].get("meets", True) else " (no step met this condition)"
    return text


def record_sets(recipe: Recipe, count: Callable[[str], int | None]) -> list[dict[str, Any]]:
    """The sets of the recipe: their role, their source and how many records they have."""
    found = []
    for name in SETS:
        asked = getattr(recipe, name)
        if asked is not None:
            sources = [asked.source] if isinstance(asked.source, str) else asked.source
            cut = [f"{key} {v}" for key in ("split", "rows") if (v := getattr(asked, key))]
            cut += [f"take {asked.take}"] if asked.take != "all" else []
            source = ", ".join([" + ".join(last(one) for one in sources), *cut])
            found.append({"name": name, "role": _SETS[name], "source": source, "n": count(name)})
    return found
