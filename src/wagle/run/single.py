"""Evaluate one model outside a run, in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wagle.evaluation.figures import HOLDOUT, SETS
from wagle.evaluation.measuring import evaluate
from wagle.evaluation.models import find_model
from wagle.evaluation.result import Evaluation
from wagle.evaluation.served.opening import check_named, find_tokenizer
from wagle.recipe.reading import load_recipe, read_settings
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.evaluation import EvaluationSettings
from wagle.run.inputs import encoder_of
from wagle.run.opening import Run
from wagle.run.stages.measuring.evaluations import questions_about, way_of
from wagle.system.errors import WagleError, no_setting


def measure_model(
    source: str,
    words: Sequence[str],
    *,
    benchmark: str,
    before: str | None = None,
    reference: str | None = None,
    patch: Sequence[str] | None = None,
    tokenizer: str | None = None,
    cache: str | None = None,
    precision: str = "float32",
) -> Evaluation:
    """Evaluate one model outside a run.

    Args:
        source: a model folder, a run folder (for its model) or ``demo``; or what is served, as
            ``parse_form`` reads it.
        words: settings. For ``qa``: the sets of records, such as ``forget=FILE``, and how to ask
            about them, as in a recipe (by default as in the run folder's own); for another
            benchmark, its settings.
        benchmark: which one.
        before: the model before unlearning: a model folder, a result file, or a run folder (for its
            evaluation before, or the model itself).
        reference: a model that never learned the forget set, in any form that ``evaluate`` takes.
        patch: patches to apply to the model.
        tokenizer: the folder of the tokenizer, or a GGUF file; None: the model's own.
        cache: a private folder for answers.
        precision: of the matrix products.

    Raises:
        WagleError: a setting is unknown, no set of records is given, or ``evaluate`` refuses.
    """
    model: str | Path = source if check_named(source, find_model) else find_model(source)
    made = find_tokenizer(tokenizer or model, find_model)
    common: dict[str, Any] = {
        "before": None if before is None else _before(before, benchmark),
        "reference": reference,
        "patch": patch or None,
        "cache": cache,
    }
    if benchmark != "qa":
        settings = read_settings(words)
        return evaluate(
            model, made, benchmark=benchmark, settings=settings, precision=precision, **common
        )
    run = Run(Path(model), _recipe_of(words, Path(source), model, precision))
    encoder = encoder_of(run.recipe, made)
    return evaluate(
        model, encoder, **questions_about(run, run.inputs.sets), **way_of(run), **common
    )


_HOW = {  # sections of a recipe, other than the sets, that decide how a model is asked
    "model": ("template", "system_prompt", "max_length"),
    "evaluation": tuple(
        name
        for name in EvaluationSettings.model_fields
        if name not in ("benchmarks", "precision")  # options of the command itself
    ),
}
_WORDS = (*SETS, "seed", "overlap", *(f"{part}.{n}" for part, names in _HOW.items() for n in names))


def _recipe_of(words: Sequence[str], source: Path, model: str | Path, precision: str) -> Recipe:
    """The recipe that asks one model about sets of records."""
    keys = read_settings(words)
    for key in keys:
        if key not in _WORDS and key.partition(".")[0] not in SETS:
            raise no_setting(
                "the benchmark qa",
                key,
                _WORDS,
                near="; nearest: {}",
                listed="; it has {}",
                short=True,
            )
    given: dict[str, Any] = {"name": "evaluation", "model": {}, "evaluation": {}}
    if (source / "recipe.yaml").is_file():
        own = load_recipe(source / "recipe.yaml").resolved()
        given |= {"seed": own["seed"], "overlap": own["overlap"]}
        given |= {part: {n: own[part][n] for n in names} for part, names in _HOW.items()}
        if not any(key.partition(".")[0] == HOLDOUT for key in keys):
            given["evaluation"] |= {"attacks": None, "k": None}  # these need a holdout set
    given["model"]["path"] = str(model)
    given["evaluation"]["precision"] = precision
    recipe = load_recipe(given, words)
    if not any(getattr(recipe, name) for name in SETS):
        raise WagleError(
            "nothing to evaluate: give records, such as forget=FILE; the sets are "
            f"{', '.join(SETS)}, written as in a recipe"
        )
    return recipe


def _before(named: str, benchmark: str) -> str | Path:
    """The model before unlearning, or its result file; for a run folder, whichever it has."""
    folder = Path(named)
    if not (folder / "recipe.yaml").is_file():
        return named
    run = Run(folder, load_recipe(folder / "recipe.yaml"))
    labels = [b.called for b in run.recipe.evaluation.benchmarks if b.name == benchmark]
    names = ["before"] if benchmark == "qa" else [f"before-{label}" for label in labels]
    files = [path for n in names if (path := folder / "evaluation" / f"{n}.json").is_file()]
    return files[0] if len(files) == 1 else run.models.base
