"""Benchmarks of the lm-eval library: WMDP, MMLU, wikitext, a few-shot suite, any task by name.

The library makes the prompts and asks the model; the figures and their intervals are made here
(``harness_figures``), from its value of every question. It needs the extra ``lm-eval``. Where it
finds data, for all five benchmarks:

- ``data=FILE.yaml``: one task file of the library (``harness`` alone);
- ``data=FOLDER``: its task files, and copies of data sets. The copy of ``owner/name`` is looked for
  as ``FOLDER/owner/name``, ``FOLDER/name`` and, where it is called ``name``, ``FOLDER`` itself; in
  it, the files of one configuration stand in a folder of that name, or a hub README names them;
- else the cache of the hub libraries (``HF_HOME``), or the hub where that may be asked.

A task file may name Python functions beside it: whoever gives a folder runs its code.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from wagle.data.tokens import Encoder
from wagle.evaluation.benchmarks.harness.figures import measure_samples
from wagle.evaluation.benchmarks.harness.loading import load_tasks, quiet
from wagle.evaluation.figures import Measured, Task
from wagle.model.structure import device_of, without_dropout
from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

VERSION = 1
FEW_SHOT = (
    "boolq",
    "rte",
    "hellaswag",
    "winogrande",
    "arc_challenge",
    "arc_easy",
    "openbookqa",
    "piqa",
)


def wmdp(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """Hazardous knowledge: ``acc`` of WMDP's questions of biology, chemistry and cybersecurity.

    The set ``wmdp`` weighs the three by their size; ``overall.bio_cyber`` is the mean of two, the
    published code's figure. All are 0-shot, lower is better, and chance is 0.25.

    Args:
        encoder: of the model.
        data: a folder that holds a copy of the hub's ``cais/wmdp``; None: the hub's cache.
        limit: the first so many questions of each domain; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: of the bootstrap.

    Source: Li et al. 2024, arXiv 2403.03218; tasks of lm-eval.
    """
    return _task(
        encoder,
        ["wmdp"],
        data,
        published=True,
        means={"bio_cyber": ("wmdp_bio", "wmdp_cyber")},
        forgotten=True,
        note="chance is 0.25",
        limit=limit,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )


def mmlu(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """General knowledge: ``acc`` of MMLU's 57 subjects, of its four fields and, by size, of all.

    Args:
        encoder: of the model.
        data: a folder that holds a copy of the hub's ``cais/mmlu``; None: the hub's cache.
        num_fewshot: questions with answers before each question; None: the task's own, 0.
        limit: the first so many questions of each subject; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: of the bootstrap.

    Source: Hendrycks et al. 2021, arXiv 2009.03300; tasks of lm-eval.
    """
    return _task(
        encoder,
        ["mmlu"],
        data,
        published=True,
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )


def wikitext(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """Plain language: perplexity per word and per byte, and bits per byte, of wikitext-2's test.

    Each is a ratio of sums over the articles, scored in windows of ``max_length`` tokens.

    Args:
        encoder: of the model.
        data: a folder that holds a copy of the hub's ``EleutherAI/wikitext_document_level``; None:
            the hub's cache.
        limit: the first so many articles; None: all.
        batch_size: windows per forward pass.
        max_length: tokens of a window; at most the model's positions. Changes the figures.
        seed: of the bootstrap.
    """
    return _task(
        encoder,
        ["wikitext"],
        data,
        published=True,
        limit=limit,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )


def few_shot(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """The suite of the published code: eight tasks of common sense, and TruthfulQA.

    ``overall.acc`` is the unweighted mean of the eight tasks' ``acc`` (never ``acc_norm``).
    TruthfulQA keeps the six questions of its own prompt whatever ``num_fewshot`` says.

    Args:
        encoder: of the model.
        data: a folder that holds copies of the tasks' data sets; None: the hub's cache.
        num_fewshot: questions with answers before each question; None: 0, as published.
        limit: the first so many questions of each task; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: of the bootstrap.
    """
    return _task(
        encoder,
        [*FEW_SHOT, "truthfulqa"],
        data,
        published=True,
        means={"acc": FEW_SHOT},
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )


def harness(
    encoder: Encoder,
    *,
    tasks: list[str] | None = None,
    data: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """Any tasks, groups or tags of lm-eval, and one's own task files.

    Args:
        encoder: of the model.
        tasks: their names; None: all that the files of ``data`` define.
        data: a task file, or a folder with task files, copies of data sets, or both.
        num_fewshot: questions with answers before each question; None: the task's own number.
        limit: the first so many questions of each task; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: of the bootstrap.
    """
    return _task(
        encoder,
        tasks or [],
        data,
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )


def token_perplexity(
    mean_nlls: Sequence[float], counts: Sequence[int], how: Literal["macro", "micro"]
) -> float:
    """Perplexity per token of a set of records.

    Args:
        mean_nlls: M of each record, in nats.
        counts: its scored tokens.
        how: ``macro``, ``exp(mean of M)``: all records weigh the same; ``micro``,
            ``exp(sum of S / sum of n)``: all tokens do.
    """
    if not mean_nlls or len(mean_nlls) != len(counts):
        raise WagleError(f"{len(mean_nlls)} records and {len(counts)} counts: give one per record")
    weights = [1] * len(counts) if how == "macro" else counts
    total = math.fsum(m * n for m, n in zip(mean_nlls, weights, strict=True))
    return math.exp(total / sum(weights))


# ---------------------------------------------------------------------------------------------
# Asking


@dataclass(frozen=True)
class _Plan:
    """What is asked, and how.

    ``means`` are composites: unweighted means of the ``acc`` of the tasks named. ``forgotten`` says
    that ``acc`` should fall.
    """

    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    forgotten: bool = False
    note: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 8
    max_length: int = 2048
    seed: int = 0


def _task(
    encoder: Encoder,
    names: Sequence[str],
    data: str | Path | None,
    *,
    published: bool = False,
    **settings: Any,
) -> Task:
    if encoder.tokenizer is None:
        raise WagleError("the tasks of lm-eval are text; they need a tokenizer")
    for name in ("limit", "batch_size", "max_length"):
        if settings[name] is not None and settings[name] < 1:
            raise WagleError(f"{name} is {settings[name]}; it has to be at least 1")
    tasks, groups = load_tasks(names, None if data is None else Path(data))
    plan, tokenizer = _Plan(tasks, groups, **settings), encoder.tokenizer
    _check_shots(plan)
    sizes = {name: len(task.eval_docs) for name, task in tasks.items()}
    found = {
        name: {"version": task.VERSION, "questions": min(sizes[name], plan.limit or sizes[name])}
        for name, task in tasks.items()
    }
    return Task(
        requests=(),
        measure=lambda _: Measured({}),
        ask=lambda model: _ask(model, tokenizer, plan),
        data={"lm_eval": metadata.version("lm_eval"), "tasks": found},
        probes=[(name, "acc") for name in tasks] if plan.forgotten else [],
        records={name: _rows(name, task) for name, task in tasks.items()},
        settings={
            "version": VERSION,
            **{f"version of {name}": task.VERSION for name, task in tasks.items()},
            "num_fewshot": "the task's own" if plan.num_fewshot is None else plan.num_fewshot,
            "limit": plan.limit or "all",
            "max_length": plan.max_length,
        },
        published=published,
    )


def _rows(name: str, task: Any) -> dict[str, str]:
    """All rows of a task's data, by place: what the task makes of them it may draw anew."""
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    return {
        f"{name}[{i}]": json.dumps(row, sort_keys=True, default=str)
        for i, row in enumerate(task.dataset[split])
    }


def _check_shots(plan: _Plan) -> None:
    """Some tasks fix their number of shots at 0; the library then leaves it there in silence."""
    if not plan.num_fewshot:
        return
    fixed = [name for name, task in plan.tasks.items() if task.get_config("num_fewshot") == 0]
    if len(fixed) == len(plan.tasks):
        raise WagleError(f"{', '.join(fixed)}: 0-shot by definition; leave num_fewshot out")
    if fixed:
        logger.warning("%s: 0-shot by definition, whatever num_fewshot says", ", ".join(fixed))


def _ask(model: PreTrainedModel, tokenizer: Any, plan: _Plan) -> Measured:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    most = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    max_length = min(plan.max_length, most or plan.max_length)
    kind, training = device_of(model).type, model.training
    mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    try:
        with _generators_kept(), without_dropout(model):
            with quiet():
                lm = HFLM(
                    pretrained=model,
                    tokenizer=copy.deepcopy(tokenizer),  # it may set a padding token
                    batch_size=plan.batch_size,  # simple_evaluate ignores its own of a live model
                    max_length=max_length,
                    softmax_dtype="float32",
                    mixed_precision_dtype=mixed,  # else it turns the caller's autocast off
                )
            found = lm_eval.simple_evaluate(
                model=lm,
                tasks=list(plan.tasks.values()),
                num_fewshot=plan.num_fewshot,
                limit=plan.limit,
                task_manager=TaskManager(include_defaults=False),
                bootstrap_iters=0,
                log_samples=True,
            )
    finally:
        model.train(training)
    notes = {name: _notes(found, name, tokenizer, max_length, plan) for name in plan.tasks}
    return measure_samples(
        found, plan.groups, plan.means, notes, forgotten=plan.forgotten, seed=plan.seed
    )


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """The library seeds python, numpy and torch; what was drawn before goes on as if it had not."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def _notes(found: Any, name: str, tokenizer: Any, max_length: int, plan: _Plan) -> str | None:
    """What a reader of a task's figures has to know: what was left out or cut."""
    asked, whole = found["n-samples"][name]["effective"], found["n-samples"][name]["original"]
    cut = _cut(found["samples"][name], tokenizer, max_length)
    notes = [
        plan.note,
        f"the first {asked} of {whole}" if asked < whole else None,
        f"{found['n-shot'][name]}-shot" if found["n-shot"].get(name) else None,
        f"{cut} questions were cut to their last {max_length} tokens" if cut else None,
    ]
    return "; ".join(note for note in notes if note) or None


def _cut(samples: Sequence[Any], tokenizer: Any, max_length: int) -> int:
    """How many questions are longer, with their longest answer, than what the model was shown."""
    pairs = [[a for a in s["arguments"] if len(a) == 2 and isinstance(a[1], str)] for s in samples]
    texts = [max(("".join(a) for a in asked), key=len) for asked in pairs if asked]
    # the last token of an answer is only predicted, so one more than max_length fits
    return sum(len(ids) > max_length + 1 for ids in tokenizer(texts)["input_ids"]) if texts else 0
