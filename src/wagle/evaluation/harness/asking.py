"""Suites of the lm-eval library as tasks: WMDP, MMLU, wikitext, few-shot tasks, any by name.

The library makes the prompts and queries the model; the figures and their intervals are made in
``figures.py`` from its value for every question. It needs the extra ``lm-eval``. Where data comes
from, for all five benchmarks:

- ``data=FILE.yaml``: one task file of the library (``harness`` alone);
- ``data=FOLDER``: its task files and copies of data sets. The copy of ``owner/name`` is looked for
  as ``FOLDER/owner/name``, ``FOLDER/name`` and, if it is called ``name``, ``FOLDER`` itself; in it,
  the files of a configuration are in a folder of that name, or a hub README names them;
- otherwise the cache of the hub libraries (``HF_HOME``), or the hub if that may be accessed.

A task file may name Python functions next to it: whoever gives a folder runs its code.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from wagle.compat.lm_eval import Parts, in_parts
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.streamed.room import JOBS, Room
from wagle.evaluation.figures import Measured, Task
from wagle.evaluation.harness.figures import measure_samples
from wagle.evaluation.harness.loading import load_tasks, quiet
from wagle.model.streaming.opening import each, is_streamed
from wagle.model.structure import device_of, without_dropout
from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

VERSION = 1
_ALL = 1 << 20  # requests at a time


class Asking(NamedTuple):
    """The settings that all suites share.

    Attributes:
        num_fewshot: questions with answers before each question; None: the task's own number.
        limit: how many questions to take from the start of each task; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, or of a window; at most the model's positions.
        seed: for the bootstrap.
    """

    num_fewshot: int | None
    limit: int | None
    batch_size: int
    max_length: int
    seed: int


@dataclass(frozen=True)
class _Plan:
    """What is asked, and how."""

    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]
    asking: Asking
    means: Mapping[str, Sequence[str]]
    forgotten: bool
    note: str | None


def suite(
    encoder: Encoder,
    names: Sequence[str],
    data: str | Path | None,
    asking: Asking,
    *,
    means: Mapping[str, Sequence[str]] = MappingProxyType({}),
    forgotten: bool = False,
    note: str | None = None,
    published: bool = False,
) -> Task:
    """Tasks of lm-eval, made ready.

    Args:
        encoder: the model's encoder.
        names: the names of tasks, groups or tags; empty: all that the files of ``data`` define.
        data: where the data is, or None: see above.
        asking: how to ask.
        means: composites by name: the unweighted mean of the named tasks' ``acc``.
        forgotten: ``acc`` should fall.
        note: for the reader of every figure.
        published: whether the records are public.

    Raises:
        WagleError: a setting does not fit, names or data are missing, or there is no tokenizer.
    """
    if encoder.tokenizer is None:
        raise WagleError("the tasks of lm-eval are text; they need a tokenizer")
    for name in ("limit", "batch_size", "max_length"):
        value = getattr(asking, name)
        if value is not None and value < 1:
            raise WagleError(f"{name} is {value}; it must be at least 1")
    tasks, groups = load_tasks(names, None if data is None else Path(data))
    plan = _Plan(tasks, groups, asking, means, forgotten, note)
    tokenizer = encoder.tokenizer
    _check_shots(plan)
    sizes = {name: len(task.eval_docs) for name, task in tasks.items()}
    found = {
        name: {"version": task.VERSION, "questions": min(sizes[name], asking.limit or sizes[name])}
        for name, task in tasks.items()
    }
    return Task(
        requests=(),
        measure=lambda _: Measured({}),
        ask=lambda model: _ask(model, tokenizer, plan),
        data={"lm_eval": metadata.version("lm_eval"), "tasks": found},
        probes=[(name, "acc") for name in tasks] if forgotten else [],
        records={name: _rows(name, task) for name, task in tasks.items()},
        settings={
            "version": VERSION,
            **{f"version of {name}": task.VERSION for name, task in tasks.items()},
            "num_fewshot": "the task's own" if asking.num_fewshot is None else asking.num_fewshot,
            "limit": asking.limit or "all",
            "max_length": asking.max_length,
        },
        published=published,
    )


def _rows(name: str, task: Any) -> dict[str, str]:
    """All rows of a task's data, by place: what the task makes from them may be drawn afresh."""
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    return {
        f"{name}[{i}]": json.dumps(row, sort_keys=True, default=str)
        for i, row in enumerate(task.dataset[split])
    }


def _check_shots(plan: _Plan) -> None:
    """Check ``num_fewshot``: the library silently ignores it for tasks that fix it at 0."""
    if not plan.asking.num_fewshot:
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
    max_length = min(plan.asking.max_length, most or plan.asking.max_length)
    kind, training = device_of(model).type, model.training
    mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    try:
        with _generators_kept(), without_dropout(model):
            with quiet():
                streamed, size = is_streamed(model), plan.asking.batch_size
                lm = (in_parts(HFLM, _parts_of(model, size)) if streamed else HFLM)(
                    pretrained=model,
                    tokenizer=copy.deepcopy(tokenizer),  # it may set a padding token
                    # simple_evaluate ignores its own of a live model; parts are batches themselves
                    batch_size=_ALL if streamed else size,
                    max_length=max_length,
                    softmax_dtype="float32",
                    mixed_precision_dtype=mixed,  # otherwise it turns the caller's autocast off
                )
            found = lm_eval.simple_evaluate(
                model=lm,
                tasks=list(plan.tasks.values()),
                num_fewshot=plan.asking.num_fewshot,
                limit=plan.asking.limit,
                task_manager=TaskManager(include_defaults=False),
                bootstrap_iters=0,
                log_samples=True,
            )
    finally:
        model.train(training)
    notes = {name: _notes(found, name, tokenizer, max_length, plan) for name in plan.tasks}
    return measure_samples(
        found, plan.groups, plan.means, notes, forgotten=plan.forgotten, seed=plan.asking.seed
    )


def _parts_of(model: PreTrainedModel, size: int) -> Parts:
    """Has batches of requests go through a streamed model in step, as many as memory allows."""
    room = Room.of(model)

    def answer(
        requests: Sequence[Any], lengths: Sequence[int], work: Callable[[list[Any]], list[Any]]
    ) -> list[Any]:
        order = sorted(range(len(requests)), key=lambda i: -lengths[i])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        most = max(1, min(JOBS, room.held // (size * max(lengths, default=1))))
        found: list[Any] = [None] * len(requests)
        for start in range(0, len(batches), most):
            wave = batches[start : start + most]
            said = each(model, work, [[requests[i] for i in batch] for batch in wave])
            for batch, answers in zip(wave, said, strict=True):
                for i, answer in zip(batch, answers, strict=True):
                    found[i] = answer
        return found

    return answer


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Undo the library's seeding of python, numpy and torch: later draws are unaffected."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def _notes(found: Any, name: str, tokenizer: Any, max_length: int, plan: _Plan) -> str | None:
    """What a reader of a task's figures needs to know: what was left out or cut."""
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
    """How many questions, with their longest answer, are longer than what the model was shown."""
    pairs = [[a for a in s["arguments"] if len(a) == 2 and isinstance(a[1], str)] for s in samples]
    texts = [max(("".join(a) for a in asked), key=len) for asked in pairs if asked]
    # the last token of an answer is only predicted, so one more than max_length fits
    return sum(len(ids) > max_length + 1 for ids in tokenizer(texts)["input_ids"]) if texts else 0
