"""Evaluate one model outside a run, in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import HOLDOUT, SETS
from wagle.evaluation.knowing.checking import Knowledge, check_knowledge
from wagle.evaluation.measuring import evaluate
from wagle.evaluation.models import find_model
from wagle.evaluation.result import Evaluation
from wagle.evaluation.served.engines import AUTO, ENGINES, open_to_ask
from wagle.evaluation.served.opening import check_named, find_tokenizer
from wagle.model.loading import check_name
from wagle.recipe.reading import load_recipe, read_settings
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.evaluation import EvaluationSettings
from wagle.recipe.sections.training import Training
from wagle.run.inputs import encoder_of
from wagle.run.integrity.seals import check_sealed_file, check_seals
from wagle.run.opening import Run
from wagle.run.stages.measuring.evaluations import ask_twins, questions_about, way_of
from wagle.system.errors import WagleError, choose, no_setting
from wagle.unlearning.retraining import Retrained, retrain_adapter


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
    engine: str = AUTO,
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
        engine: how model folders are asked: ``whole``, ``stream`` or ``auto``.

    Raises:
        WagleError: a setting is unknown, no set of records is given, or ``evaluate`` refuses.
    """
    for named in (source, before, reference):
        if named is not None:
            _check_named(named)
    model: str | Path = source if check_named(source, find_model) else find_model(source)
    made = find_tokenizer(tokenizer or model, find_model)
    choose(ENGINES, engine, "engine")
    common: dict[str, Any] = {
        "engine": engine,
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
    given = {n: records for n, records in run.inputs.sets.items() if getattr(run.recipe, n)}
    asked = {**questions_about(run, given), **way_of(run), "engine": engine}
    if before is not None and reference is None and "forget" in asked:
        how = {**asked, "cache": cache}
        common["stand_in"] = partial(_twins, before, model, patch, encoder, how)
    return evaluate(model, encoder, **{**asked, **common})


def _twins(
    before: str,
    model: str | Path,
    patch: Sequence[str] | None,
    encoder: Encoder,
    asked: Mapping[str, Any],
) -> Evaluation | None:
    """A stand-in for a reference: twins of the forget set, asked of the model before unlearning.

    If only its result is there, the model itself is asked, with its patches; if that is no folder,
    nobody is.
    """
    known = Path(before)
    if (known / "recipe.yaml").is_file():
        base = Run(known, load_recipe(known / "recipe.yaml")).models.base
        known = base if base.is_dir() else known
    elif not known.is_file():
        if check_named(before, find_model):
            return None
        known = find_model(before)
    if known.is_dir():
        live = open_to_ask(known, asked["engine"]).model
    elif isinstance(model, str):
        return None
    else:
        live = open_to_ask(model, asked["engine"], patches=patch or ()).model
    how = {name: value for name, value in asked.items() if name not in SETS}
    return ask_twins(live, encoder, asked["forget"], **how)


_HOW = {  # sections of a recipe, other than the sets, that decide how a model is asked
    "model": ("template", "system_prompt", "max_length"),
    "evaluation": tuple(
        name
        for name in EvaluationSettings.model_fields
        if name not in ("benchmarks", "precision", "engine")  # options of the command itself
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


def _check_named(named: str) -> None:
    """Refuse a run, or a result file of a run, that was edited."""
    check_name(named)
    if (Path(named) / "recipe.yaml").is_file():
        check_seals(named)
    elif Path(named).is_file():
        check_sealed_file(named)


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


def check_model(
    source: str,
    words: Sequence[str],
    *,
    forget: str,
    base: str | None = None,
    adapter: str | None = None,
    records: str | None = None,
    twins: int,
    precision: str = "float32",
    seed: int,
) -> Knowledge:
    """Check what one model knows about records that are written as in a recipe.

    Args:
        source: a model folder, a run folder (for its model) or ``demo``.
        words: how to ask, as for ``measure_model``; without sets of records.
        forget: the records in question.
        base: the model that it was trained from.
        adapter: an adapter of the model or, with a base, of that.
        records: everything that the adapter was taught.
        twins: how many invented twins each record gets.
        precision: of the matrix products.
        seed: of the draws.
    """
    model = find_model(source)
    run = Run(model, _recipe_of([*words, f"forget={forget}"], Path(source), model, precision))
    everything = None if records is None else _set_of(run, "records", records)
    return check_knowledge(
        source,
        run.inputs.encoder,
        forget=run.inputs.need("forget"),
        base=base,
        adapter=adapter,
        records=everything,
        twins=twins,
        batch_tokens=run.recipe.evaluation.batch_tokens,
        precision=precision,
        seed=seed,
        named={"forget": forget, **({} if records is None else {"records": records})},
    )


def retrain(
    base: str,
    words: Sequence[str],
    *,
    adapter: str,
    records: str,
    forget: str,
    out: str,
    seed: int,
) -> Retrained:
    """Retrain an adapter without records that are written as in a recipe.

    Args:
        base: the model folder that the adapter belongs to.
        words: settings of the section finetune, and of ``model`` how records are written.
        adapter: the adapter whose configuration the new one has.
        records: everything that it was taught.
        forget: what the new one must not be taught.
        out: the folder to make.
        seed: of initial values and order.
    """
    model = find_model(base)
    asked = [w if w.startswith("model.") else f"finetune.{w}" for w in words]
    given = {"name": "retraining", "model": {"path": str(model)}, "finetune": {}}
    recipe = load_recipe(given, [*asked, f"forget={forget}"])
    run = Run(model, recipe)
    assert recipe.finetune is not None
    own = {name: getattr(recipe.finetune, name) for name in Training.model_fields}
    said = {name: own[name] for name in recipe.finetune.model_fields_set & own.keys()}
    return retrain_adapter(
        model,
        run.inputs.encoder,
        adapter=adapter,
        records=_set_of(run, "records", records),
        forget=run.inputs.need("forget"),
        out=out,
        training=Training(**{"schedule": own["schedule"], **said}),
        attention=recipe.model.attention,
        seed=seed,
    )


def _set_of(run: Run, name: str, written: str) -> list[Record]:
    """Records written as in a recipe, in place of a set that recipes do not have."""
    asked = load_recipe(run.recipe.resolved(), [f"retain={written}", "overlap=allow"]).retain
    assert asked is not None
    return run.inputs.read(name, asked)
