"""From a model and a benchmark to figures: ask the model, and set it beside a reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle import __version__
from wagle.data.records import Source, read_records
from wagle.data.tokens import Encoder, as_encoder
from wagle.errors import WagleError
from wagle.evaluation.benchmarks.catalogue import make_task
from wagle.evaluation.benchmarks.qa import VERSION, qa
from wagle.evaluation.cache import AnswerCache
from wagle.evaluation.comparable import check_comparable, data_entry
from wagle.evaluation.engine import answer_requests
from wagle.evaluation.figures import CALLED, FORGOTTEN, HOLDOUT, Figure, Measured, Task, joined
from wagle.evaluation.peers import read_result
from wagle.evaluation.result import Evaluation
from wagle.evaluation.statistics import paired_difference
from wagle.evaluation.verdict import judge
from wagle.memory import give_memory_back
from wagle.model import check_device, load_model, load_tokenizer, precision, resolve_model
from wagle.patch import load_patched
from wagle.weights import fingerprint

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 128  # of a greedy answer
ASKED = {  # of the benchmark ``qa``, unless the caller says otherwise
    "max_new_tokens": MAX_NEW_TOKENS,
    "generate": True,
    "fluency": None,
    "entailment": None,
    "attacks": None,
    "k": None,
}
Reference: TypeAlias = "PreTrainedModel | Evaluation | str | Path"


def evaluate(
    model: PreTrainedModel | str | Path,
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
    seed: int = 0,
) -> Evaluation:
    """Measure what a model knows: of sets of records, or with a benchmark of the field.

    Args:
        model: a live model or a local model folder.
        tokenizer: a fast tokenizer or an ``Encoder``; with a folder, None takes the folder's own.
        benchmark: ``qa`` asks about the sets that follow; any other name in BENCHMARKS brings its
            own data.
        settings: of a benchmark that is not ``qa``: ``{"data": FOLDER, "split": "forget10"}``.
        forget: the records that should be forgotten.
        retain: the records kept while unlearning.
        retain_heldout: records that should be kept too, but were not used.
        general: records of general knowledge.
        holdout: records like those to forget that no model was trained on, for membership attacks.
        forgotten: records that were forgotten before, and should not come back.
        before: the model before unlearning, or its result, in the same forms as the reference: with
            one there is a verdict.
        reference: a model that never learned the forget set, or its result: a live model, a model
            folder, a run folder (its model), a result file of wagle, TOFU or OpenUnlearning.
        patch: with a folder: evaluate what a patch, or several in order, make of it, in memory.
        cache: a folder for answers, private: what is there is not asked again. Results that share
            it can tell whether they are of the same records of your own.
        max_new_tokens: the longest greedy answer (``qa``).
        batch_tokens: padded tokens per forward pass; None: as many as memory is good for. Changes
            speed, never the figures.
        precision: of the matrix products: ``float32``, or ``bfloat16`` (autocast).
        generate: also ask for greedy answers (``qa``).
        fluency: a folder or hub name of a classifier of gibberish with the label ``clean``: how
            probable it is that an answer is language (``qa``). None: that is not measured.
        entailment: of one of pairs with the label ``entailment``: whether an answer entails the
            right one, or of sets to keep follows from it (``qa``). None: that is not measured.
        attacks: names of membership attacks (``qa``); None: all but ``gradnorm``.
        k: shares of tokens for ``min_k`` and ``min_k++`` (``qa``); None: 0.4.
        seed: of draws and of the bootstrap.

    Returns:
        Figures per set and metric; ``print`` shows them as a table. ``details`` has the paired
        differences to the reference (``differences``) and to the model before (``changes``), and
        with the latter ``verdict`` and ``reasons``; ``beside`` has what was found of both.

    Raises:
        WagleError: before the model is asked: nothing to ask about, data or settings that are
            missing or wrong, a model, reference or patch that is not there or does not fit, a
            result of other records or settings to set beside it. After it: answers that are not
            finite.
    """
    started = time.perf_counter()
    if patch is not None and isinstance(model, nn.Module):
        raise WagleError("a patch goes on a model folder; give the folder of its base")
    if tokenizer is None and not isinstance(model, nn.Module):
        tokenizer = load_tokenizer(model)
    encoder = as_encoder(tokenizer)
    sources = {
        "forget": forget,
        "retain": retain,
        "retain_heldout": retain_heldout,
        "general": general,
        HOLDOUT: holdout,
        FORGOTTEN: forgotten,
    }
    given = {name: source for name, source in sources.items() if source is not None}
    asked: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "generate": generate,
        "fluency": None if fluency is None else str(fluency),
        "entailment": None if entailment is None else str(entailment),
        "attacks": None if attacks is None else list(attacks),
        "k": None if k is None else list(k),
    }
    if benchmark == "qa":
        task = _of_sets(encoder, given, settings, asked, seed)
    else:
        task = _of_benchmark(benchmark, encoder, given, settings, asked, seed)
        asked = {k: str(v) if isinstance(v, Path) else v for k, v in (settings or {}).items()}
    way = Way(encoder, precision, batch_tokens, Path(cache) if cache is not None else None)
    others = {"before": before, "reference": reference}
    named = {role: other for role, other in others.items() if other is not None}
    known = {
        role: _known_result(role, other, task, benchmark, way) for role, other in named.items()
    }
    if isinstance(model, nn.Module):
        live = model
    else:
        live = load_model(model) if patch is None else load_patched(model, patch)
        if patch is not None:  # as messages name it
            live.name_or_path = f"{model} with {', '.join(_names(patch))}"
    mark = fingerprint(live)
    found = way.ask(live, task, mark)
    details = {
        "model": {
            "path": None if isinstance(model, nn.Module) else str(model),
            **({} if patch is None else {"patches": _names(patch)}),
            "fingerprint": mark,
            "dtype": str(live.dtype).removeprefix("torch."),
            "vocabulary": live.config.get_text_config(decoder=True).vocab_size,
        },
        "template": encoder.describe(),
        "benchmark": benchmark,
        "variant": f"version {VERSION}" if benchmark == "qa" else task.data.get("variant"),
        "options": {"precision": precision, "seed": seed, **asked},
        "reference": None,
        "probes": [list(pair) for pair in task.probes],
        "data": data_entry(task, way.cache),
        "timing": {
            "seconds": round(time.perf_counter() - started, 2),
            "requests": len(set(task.requests)),
        },
        "versions": {
            "wagle": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    if named and not isinstance(model, nn.Module):
        del live
        give_memory_back()
    beside = {role: known[role] or way.other(other, task) for role, other in named.items()}
    return _set_beside(found, beside, details, task, seed)


def _set_beside(
    own: Measured,
    beside: Mapping[str, tuple[Evaluation, dict[str, Any]]],
    details: dict[str, Any],
    task: Task,
    seed: int,
) -> Evaluation:
    """A model's result beside the model before and the reference, as far as there are these."""
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
        verdict = judge(made, before, reference)
        details |= {"verdict": verdict.word, "reasons": list(verdict.reasons)}
    return made


def _of_sets(
    encoder: Encoder,
    given: Mapping[str, Source],
    settings: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    seed: int,
) -> Task:
    """The benchmark ``qa`` of some sets of records."""
    if settings:
        raise WagleError(
            f"the benchmark qa takes no settings, but sets of records; got {', '.join(settings)}"
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
    """A benchmark that brings its own records, and has settings of its own."""
    if given:
        raise WagleError(
            f"the benchmark {benchmark} brings its own records; leave out {', '.join(given)}"
        )
    if asked != ASKED:
        raise WagleError(
            f"{', '.join(ASKED)} are of the benchmark qa; of {benchmark} they go into settings, "
            "where it has them"
        )
    return make_task(benchmark, encoder, settings or {}, seed=seed)


@dataclass(frozen=True)
class Way:
    """How models are asked.

    Attributes:
        encoder: makes tokens of records; its tokenizer says what ends an answer.
        precision: of the matrix products.
        batch_tokens: padded tokens per forward pass, or None.
        cache: a folder for answers, or None.
    """

    encoder: Encoder
    precision: str = "float32"
    batch_tokens: int | None = None
    cache: Path | None = None

    def ask(self, model: PreTrainedModel, task: Task, mark: str | None = None) -> Measured:
        """What a task measures of a model; ``mark`` is its fingerprint, if that is known."""
        ends = model.generation_config.eos_token_id if model.generation_config else None
        stop_ids = self.encoder.stop_ids(ends) if self.encoder.tokenizer is not None else [0]
        cache = None
        if self.cache is not None:
            mark = mark or fingerprint(model)
            cache = AnswerCache(self.cache, mark, str(model.dtype), self.precision, stop_ids)
        answers = answer_requests(
            model,
            task.requests,
            stop_ids=stop_ids,
            batch_tokens=self.batch_tokens,
            dtype=self.precision,
            cache=cache,
        )
        found = task.measure(answers)
        if task.ask is None:
            return found
        with precision(check_device(model), self.precision):
            return joined(found, task.ask(model))

    def other(self, named: Reference, task: Task) -> tuple[Evaluation, dict[str, Any]]:
        """What a task measures of a model beside it, and which one that is, for the result file."""
        assert not isinstance(named, Evaluation)
        if isinstance(named, nn.Module):
            live, kind = named, {"kind": "model"}
        else:
            path = find_model(named)
            live, kind = load_model(path), {"kind": "model", "path": path.name}
        kind["fingerprint"] = fingerprint(live)
        found = self.ask(live, task, kind["fingerprint"])
        return Evaluation(found.figures, found.texts, found.summary), kind


def find_model(named: str | Path) -> Path:
    """The model folder that is named: itself, the model that a run folder holds, or ``demo``."""
    path = Path(named)
    if (path / "recipe.yaml").is_file():
        return resolve_model(str(path / ("model" if (path / "model").is_dir() else "base")))
    return resolve_model(str(named))


def _known_result(
    role: str, named: Reference, task: Task, benchmark: str, way: Way
) -> tuple[Evaluation, dict[str, Any]] | None:
    """What is a result already, and which one; None of a model, which has to be there.

    Whether it may be compared is found out here, before any model is asked.
    """
    if isinstance(named, nn.Module):
        return None
    key = way.cache
    if isinstance(named, Evaluation):
        found, kind = named, {"kind": "result", **named.details.get("model", {})}
    elif Path(named).is_file():
        found = read_result(named, corpus=task.data.get("corpus"))
        said = found.details.get("model", {}).get("kind", "result")
        kind = {"kind": said, "path": Path(named).name}
        key = _answers_of(Path(named)) or key
    else:
        find_model(named)
        return None
    called, own = CALLED[role], data_entry(task, key)
    check_comparable(benchmark, own, found.details, called)
    told = found.details.get("data") or {}
    if not isinstance(named, Evaluation) and told.get("sets") and told.get("salt") != own["salt"]:
        logger.warning(
            "whether %s was asked about the same records cannot be told, only how many there are: "
            "its answers lie in another cache; evaluate both with one cache",
            called,
        )
    if task.fits is not None:
        task.fits(found.measured(), role)
    return found, kind


def _answers_of(file: Path) -> Path | None:
    """The private folder whose salt keys the digests of a run's result file; None of any other."""
    answers = file.absolute().parent.parent / "private" / "answers"
    return answers if (answers / "salt").is_file() else None


def _names(patch: str | Path | Sequence[str | Path]) -> list[str]:
    """The names of patch files, in their order."""
    several = [patch] if isinstance(patch, str | Path) else patch
    return [Path(one).name for one in several]


def with_reference(own: Measured, other: Measured, task: Task) -> Measured:
    """A model's figures and what only the reference makes possible, such as forget quality."""
    return own if task.against is None else joined(own, task.against(own, other))


def paired(own: Measured, other: Measured, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Paired differences to a reference, of every figure that both have of the same records."""
    found = {}
    for name, figures in own.figures.items():
        for metric, figure in figures.items():
            beside = other.figures.get(name, {}).get(metric)
            if beside is not None and _same_records(figure, beside):
                difference = paired_difference(figure.per_record, beside.per_record, seed=seed)
                found[f"{name}.{metric}"] = difference._asdict()
    return found


def _same_records(one: Figure, other: Figure) -> bool:
    return bool(one.per_record) and one.per_record.keys() == other.per_record.keys()
