"""Evaluate a model: its figures, compared with the model before and with a reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.reading import read_records
from wagle.data.records import Source
from wagle.data.tokens import Encoder, as_encoder
from wagle.evaluation.comparable import data_entry, paired, with_reference
from wagle.evaluation.figures import FORGOTTEN, SETS, Measured, Task, joined
from wagle.evaluation.models import (
    Reference,
    Way,
    entry_of,
    find_model,
    known_result,
    patch_names,
)
from wagle.evaluation.result import Evaluation
from wagle.evaluation.roles import check_distinct, check_roles
from wagle.evaluation.served.absent import rests_on
from wagle.evaluation.served.asker import Asker
from wagle.evaluation.served.engines import AUTO
from wagle.evaluation.served.opening import as_asker, find_tokenizer
from wagle.evaluation.stand_in import assumptions
from wagle.evaluation.table import make_task
from wagle.evaluation.tasks.questions import VERSION, qa
from wagle.evaluation.verdict import judge
from wagle.system.errors import WagleError
from wagle.system.memory import give_memory_back

MAX_NEW_TOKENS = 128  # of a greedy answer
ASKED = {  # the defaults of the benchmark ``qa``
    "max_new_tokens": MAX_NEW_TOKENS,
    "generate": True,
    "fluency": None,
    "entailment": None,
    "attacks": None,
    "k": None,
}


def evaluate(
    model: PreTrainedModel | Asker | str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None = None,
    *,
    benchmark: str = "qa",
    settings: Mapping[str, Any] | None = None,
    forget: Source | None = None,
    retain: Source | None = None,
    retain_heldout: Source | None = None,
    general: Source | None = None,
    holdout: Source | None = None,
    forgotten: Source | None = None,
    before: Reference | None = None,
    reference: Reference | None = None,
    patch: str | Path | Sequence[str | Path] | None = None,
    cache: str | Path | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_tokens: int | None = None,
    precision: str = "float32",
    generate: bool = True,
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    attacks: Sequence[str] | None = None,
    k: Sequence[float] | None = None,
    limits: Mapping[str, float | None] | None = None,
    seed: int = 0,
    unchanged: bool = False,
    stand_in: Callable[[], Evaluation | None] | None = None,
    engine: str = AUTO,
) -> Evaluation:
    """Measure what a model knows about sets of records, or with a published benchmark.

    Args:
        model: a live model, or a name: a model folder, ``FOLDER+PATCH``, ``nf4:FOLDER``, a GGUF file,
            or ``http://host:port/v1#MODEL`` (docs/served.md).
        tokenizer: a fast tokenizer or an ``Encoder``; with a folder or a GGUF file, None takes its own.
        benchmark: ``qa`` asks about the sets below; any other name in BENCHMARKS brings its own
            data.
        settings: for a benchmark other than ``qa``: ``{"data": FOLDER, "split": "forget10"}``.
        forget: the records that should be forgotten.
        retain: the records kept while unlearning.
        retain_heldout: records that should be kept too, but were not used for unlearning.
        general: records of general knowledge.
        holdout: records like those to forget that no model was trained on, for membership attacks.
        forgotten: records that were forgotten before, and should not come back.
        before: the model before unlearning, or its result, in the same forms as the reference; it
            makes a verdict possible.
        reference: a model that never learned the forget set, or its result: a live model, a model
            folder, a run folder (its model), a result file of wagle, TOFU or OpenUnlearning.
        patch: for a model folder: a patch, or several in order, applied in memory before
            evaluating.
        cache: a private folder for answers: what is there is not asked again. Results that share it
            can tell whether they cover the same records of your own.
        max_new_tokens: the longest greedy answer (``qa``).
        batch_tokens: padded tokens per forward pass; None: as many as memory allows. It changes the
            speed, never the figures.
        precision: the precision of matrix products: ``float32``, or ``bfloat16`` (autocast).
        generate: also generate greedy answers (``qa``).
        fluency: a folder or hub name of a gibberish classifier with the label ``clean``: the
            probability that an answer is language (``qa``). None: not measured.
        entailment: a folder or hub name of a classifier of text pairs with the label
            ``entailment``: whether an answer entails the right one or, for sets to keep, follows
            from it (``qa``). None: not measured.
        attacks: names of membership attacks (``qa``); None: all except ``gradnorm``.
        k: shares of tokens for ``min_k`` and ``min_k++`` (``qa``); None: 0.4.
        limits: what each set that must stay may lose before the verdict is ``damaged``, as a share
            of its figure before; by default 5 %, and None lets it lose any.
        seed: for draws and the bootstrap.
        unchanged: the model may be the model before, as after the objective ``none``; otherwise two
            roles with one fingerprint are refused.
        stand_in: makes what stands in for a reference if there is none, once all else was checked.
        engine: how folders are asked: ``whole`` (the model in memory), ``stream`` (one block of it)
            or ``auto`` (``whole`` if it fits); the figures are the same.

    Returns:
        Figures per set and metric; ``print`` shows them as a table. ``details`` has the paired
        differences to the reference (``differences``) and to the model before (``changes``), and
        with the latter ``verdict`` and ``reasons``; ``beside`` has the results of both.

    Raises:
        WagleError: before the model is asked: there is nothing to ask about; data or settings are
            missing or wrong; a model, reference or patch is missing or does not fit; a result to
            compare with has other records or settings; two roles are the same model. Afterwards:
            answers are not finite; the reference knows the forget set as well as the model before.
    """
    started = time.perf_counter()
    encoder = _encoder(model, tokenizer, patch)
    given = _given(forget, retain, retain_heldout, general, holdout, forgotten)
    asked = _asked(max_new_tokens, generate, fluency, entailment, attacks, k)
    task = _task(benchmark, encoder, given, settings, asked, seed)
    way = Way(encoder, precision, batch_tokens, None if cache is None else Path(cache), engine)
    others = {r: o for r, o in (("before", before), ("reference", reference)) if o is not None}
    known = {r: known_result(r, other, task, benchmark, way) for r, other in others.items()}
    asker, own = _load(model, patch, way)
    kinds = {role: one[1] if (one := known[role]) else entry_of(o) for role, o in others.items()}
    check_distinct({"model": own, **kinds}, unchanged=unchanged)
    found = way.ask(asker, task, asker.mark)
    options = {"seed": seed, **_options(benchmark, settings, asked)}
    details = {"model": own, **_details(benchmark, task, way, options, started)}
    if others and isinstance(model, str | Path):
        del asker
        give_memory_back()
    beside = {r: known[r] or way.other(other, task, kinds[r]) for r, other in others.items()}
    beside = {**_standing_in(stand_in, reference, task, benchmark, way), **beside}
    check_roles(own, beside, unchanged=unchanged, seed=seed)
    return _set_beside(found, beside, details, task, seed, limits)


def _given(*sources: Source | None) -> dict[str, Source]:
    """The sets that were given, by name; the sources are in the order of SETS."""
    return {n: s for n, s in zip((*SETS, FORGOTTEN), sources, strict=True) if s is not None}


def _standing_in(
    stand_in: Callable[[], Evaluation | None] | None,
    reference: Reference | None,
    task: Task,
    benchmark: str,
    way: Way,
) -> dict[str, tuple[Evaluation, dict[str, Any]]]:
    """What stands in for a reference, if there is none and anything can."""
    made = None if stand_in is None or reference is not None else stand_in()
    found = None if made is None else known_result("reference", made, task, benchmark, way)
    return {} if found is None else {"reference": found}


def _encoder(
    model: PreTrainedModel | Asker | str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    patch: str | Path | Sequence[str | Path] | None,
) -> Encoder:
    """The encoder that was given, or that of the model's folder."""
    if patch is not None and not isinstance(model, str | Path):
        raise WagleError("a patch needs a model folder; give the folder of its base")
    if tokenizer is None and isinstance(model, str | Path):
        tokenizer = find_tokenizer(model, find_model)
    return as_encoder(tokenizer)


def _asked(
    max_new_tokens: int,
    generate: bool,
    fluency: str | Path | None,
    entailment: str | Path | None,
    attacks: Sequence[str] | None,
    k: Sequence[float] | None,
) -> dict[str, Any]:
    """The settings of ``qa``, as in a result file."""
    return {
        "max_new_tokens": max_new_tokens,
        "generate": generate,
        "fluency": None if fluency is None else str(fluency),
        "entailment": None if entailment is None else str(entailment),
        "attacks": None if attacks is None else list(attacks),
        "k": None if k is None else list(k),
    }


def _task(
    benchmark: str,
    encoder: Encoder,
    given: Mapping[str, Source],
    settings: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    seed: int,
) -> Task:
    """The task of the named benchmark; sets of records are only for ``qa``."""
    if benchmark == "qa":
        return _of_sets(encoder, given, settings, asked, seed)
    return _of_benchmark(benchmark, encoder, given, settings, asked, seed)


def _load(
    model: PreTrainedModel | Asker | str | Path,
    patch: str | Path | Sequence[str | Path] | None,
    way: Way,
) -> tuple[Asker, dict[str, Any]]:
    """What answers, the live model or the one that a name stands for, and which one it is."""
    asker = way.open(model, patch) if isinstance(model, str | Path) else as_asker(model)
    return asker, _model_entry(model, asker, patch)


def _model_entry(
    model: PreTrainedModel | Asker | str | Path,
    asker: Asker,
    patch: str | Path | Sequence[str | Path] | None,
) -> dict[str, Any]:
    """Which model was asked, for the result file."""
    return {
        "path": str(model) if isinstance(model, str | Path) else None,
        **({} if patch is None else {"patches": patch_names(patch)}),
        **asker.entry,
    }


def _options(
    benchmark: str, settings: Mapping[str, Any] | None, asked: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What was asked for, for the result file."""
    if benchmark == "qa":
        return asked
    return {k: str(v) if isinstance(v, Path) else v for k, v in (settings or {}).items()}


def _details(
    benchmark: str, task: Task, way: Way, options: Mapping[str, Any], started: float
) -> dict[str, Any]:
    """How a result came about, for the result file; comparisons are added later."""
    return {
        "template": way.encoder.describe(),
        "benchmark": benchmark,
        "variant": f"version {VERSION}" if benchmark == "qa" else task.data.get("variant"),
        "options": {"precision": way.precision, **options},
        "reference": None,
        "probes": [list(pair) for pair in task.probes],
        "data": data_entry(task, way.cache),
        "timing": {
            "seconds": round(time.perf_counter() - started, 2),
            "requests": len(set(task.requests)),
        },
        "versions": {
            "wagle": version("wagle"),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _set_beside(
    own: Measured,
    beside: Mapping[str, tuple[Evaluation, dict[str, Any]]],
    details: dict[str, Any],
    task: Task,
    seed: int,
    limits: Mapping[str, float | None] | None,
) -> Evaluation:
    """A model's result compared with the model before and the reference, if there are any."""
    others = {role: found for role, (found, _) in beside.items()}
    details |= {role: kind for role, (_, kind) in beside.items()}
    before, reference = others.get("before"), others.get("reference")
    if reference is not None:
        own = with_reference(own, reference.measured(), task)
        details["differences"] = paired(own, reference.measured(), seed=seed)
        if before is not None:
            more = with_reference(before.measured(), reference.measured(), task)
            before = replace(before, figures=more.figures)
            others["before"] = before
    if before is not None:
        if task.since is not None:
            own = joined(own, task.since(own, before.measured()))
        details["changes"] = paired(own, before.measured(), seed=seed)
    made = Evaluation(own.figures, own.texts, own.summary, details, others)
    if before is not None and task.probes:
        verdict = judge(made, before, reference, limits)
        reasons = [*verdict.reasons, *rests_on(made, before, reference), *assumptions(details)]
        details |= {"verdict": verdict.word, "reasons": reasons}
    return made


def _of_sets(
    encoder: Encoder,
    given: Mapping[str, Source],
    settings: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    seed: int,
) -> Task:
    """The benchmark ``qa`` on some sets of records."""
    if settings:
        raise WagleError(
            f"the benchmark qa takes sets of records, not settings; got {', '.join(settings)}"
        )
    if not given:
        raise WagleError("nothing to evaluate: give at least one set of records")
    sets = {name: read_records(source, name=name, seed=seed) for name, source in given.items()}
    return qa(encoder, sets=sets, **asked, seed=seed)


def _of_benchmark(
    benchmark: str,
    encoder: Encoder,
    given: Mapping[str, Source],
    settings: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    seed: int,
) -> Task:
    """A benchmark that brings its own records and has its own settings."""
    if given:
        raise WagleError(
            f"the benchmark {benchmark} brings its own records; leave out {', '.join(given)}"
        )
    if asked != ASKED:
        raise WagleError(
            f"{', '.join(ASKED)} belong to the benchmark qa; for {benchmark}, put those it has "
            "into settings"
        )
    return make_task(benchmark, encoder, settings or {}, seed=seed)
