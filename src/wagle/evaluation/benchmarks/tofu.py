"""The benchmark ``tofu``: 200 invented authors, some to forget; real authors, world facts to keep.

Per record: how likely the answer is, what the model says itself, and how the right answer compares
with wrong ones of the same form (the truth ratio). Over all sets the model utility; beside a model
that never learned the forget set the forget quality, and with a holdout split privacy leakage.
``VERSION`` is raised with every new definition.

Source: Maini et al. 2024, arXiv 2401.06121.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from wagle.data.hub import HubSet, open_source
from wagle.data.records import READERS, Record, read_records
from wagle.data.tokens import Encoder
from wagle.errors import WagleError, choose
from wagle.evaluation.benchmarks.tofu_figures import against, check_fit, measure
from wagle.evaluation.benchmarks.tofu_requests import (
    TOTAL,
    VARIANTS,
    WORLD,
    Plan,
    Variant,
    ask_all,
    ask_answer,
)
from wagle.evaluation.comparable import asked_text, template_settings
from wagle.evaluation.embeddings import OFFLINE, encoder_name, has_offline
from wagle.evaluation.figures import OVERALL, Task
from wagle.evaluation.metrics.catalogue import PROBES
from wagle.evaluation.metrics.membership import bag_of_words

T = TypeVar("T")

VERSION = 1
HUB = "locuslab/TOFU"


def tofu(
    encoder: Encoder,
    *,
    data: str | Path,
    split: str = "forget10",
    revision: str | None = None,
    variant: Literal["official", "paper", "open_unlearning", "published"] = "official",
    strict: bool = False,
    rows: int | None = None,
    forget_rows: int | Literal["all"] | None = None,
    retain_rows: int | Literal["all"] | None = None,
    max_new_tokens: int | None = None,
    eos: bool | None = None,
    template: str | None = None,
    generate: bool = True,
    sentence_encoder: str | None = None,
    cluster: Literal["record", "author"] = "record",
    seed: int = 0,
) -> Task:
    """Ask what TOFU asks: the forget split, and the retain, real author and world fact records.

    Args:
        encoder: makes tokens of records.
        data: a folder with TOFU's files (``forget10_perturbed.json``, ...), or its hub name.
            A file ``holdout10`` for ``forget10`` adds membership attacks.
        split: the records to forget: ``forget01``, ``forget05``, ``forget10``.
        revision: of the hub's data set: a commit, a tag or a branch; None: main. The result says
            which commit was read.
        variant: ``official`` (TOFU's aggregate script: geometric mean over the wrong answers,
            300 of the retain records), ``paper`` (arithmetic mean), ``open_unlearning`` (as
            official; all records, 200 new tokens, its extraction strength) or ``published`` (the
            published WAGLE code).
        strict: of ``official`` and ``paper``: the first 300 forget records too, and 200 tokens for
            question and answer together.
        rows: the first so many records of every set, over what the variant takes.
        forget_rows: the same of the forget set alone; ``all`` or a number.
        retain_rows: of the retain set alone.
        max_new_tokens: the longest greedy answer, over what the variant takes.
        eos: whether an answer's EOS is scored; None: in all variants but ``published``.
        template: how a question becomes text; None: as the encoder does (``published``: ``plain``,
            or ``llama2_published`` where the encoder has a Llama 2 template).
        generate: also ask for greedy answers, without which there is no ROUGE and no utility.
        sentence_encoder: a folder or hub name, or ``all-MiniLM-L6-v2`` (offline, extra
            ``encoder``): measures ``embedding_accuracy`` of answers to paraphrased questions. None:
            only ``published`` measures it, with the offline one if that is installed.
        cluster: what intervals of the forget and the retain set draw: records, or whole authors
            (20 questions each), whose intervals are wider.
        seed: of the intervals.

    Raises:
        WagleError: files, records or fields that are missing; settings that do not fit.
    """
    if encoder.tokenizer is None:
        raise WagleError("tofu needs a tokenizer; its data is text")
    form = choose(VARIANTS, variant, "variant of tofu")
    if strict and variant not in ("official", "paper"):
        raise WagleError(f"strict goes with the variants official and paper, not {variant}")
    if sentence_encoder is not None and not generate:
        raise WagleError("sentence_encoder compares greedy answers; leave generate on")
    if form.published and generate and sentence_encoder is None and has_offline():
        sentence_encoder = OFFLINE
    own = _encoder(encoder, template, form, TOTAL if strict else encoder.max_length)
    plan = Plan(
        own,
        split,
        form,
        not form.published if eos is None else eos,
        _first(max_new_tokens, None if strict else form.max_new_tokens),
        generate,
        sentence_encoder,
        cluster == "author",
        seed,
    )
    limits: dict[str, int | Literal["all"] | None] = {
        "forget": _first(forget_rows, rows, 300 if strict else None),
        "retain": _first(retain_rows, rows, form.retain_rows),
        **dict.fromkeys((*WORLD, "holdout"), rows),
    }
    source = open_source(data, HUB, revision, what="the files of TOFU")
    records = {name: _cut(found, limits.get(name)) for name, found in _read(source, split).items()}
    holdout = records.pop("holdout", [])
    sets = {
        name: [ask_all(plan, name, record, moments=bool(holdout)) for record in found]
        for name, found in records.items()
    }
    unknown = [ask_answer(plan, record) for record in holdout]
    note = _words_note(records["forget"], holdout, seed) if holdout else None
    every = {**sets, **({"holdout": unknown} if unknown else {})}
    return Task(
        [request for items in every.values() for item in items for request in item.requests],
        partial(measure, plan, sets, unknown, note),
        partial(against, plan),
        data={
            "split": split,
            "revision": source.used if isinstance(source, HubSet) else None,
            "variant": f"{variant}{' strict' if strict else ''}, version {VERSION}",
        },
        records={
            name: {item.record.place: asked_text(item.record) for item in items}
            for name, items in every.items()
        },
        settings=_settings(plan, variant),
        published=True,
        fits=partial(check_fit, plan, sets["forget"], unknown),
        probes=[
            *(("forget", metric) for metric in PROBES),
            *([(OVERALL, "privleak")] if holdout else []),
        ],
    )


def _settings(plan: Plan, variant: str) -> dict[str, Any]:
    """What decides the figures beside the records."""
    most: int | str = plan.max_new_tokens or f"{TOTAL} with the question"
    return {
        "version": VERSION,
        "split": plan.split,
        "variant": variant,
        "eos": plan.eos,
        **template_settings(plan.encoder),
        "max_new_tokens": most if plan.generate else None,
        "sentence_encoder": plan.sentence_encoder and encoder_name(plan.sentence_encoder),
    }


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _cut(records: list[Record], limit: int | Literal["all"] | None) -> list[Record]:
    if limit is None or limit == "all":
        return records
    if limit < 1:
        raise WagleError(f"rows is {limit}; give a number of records above 0")
    return records[:limit]


def _encoder(encoder: Encoder, template: str | None, form: Variant, max_length: int) -> Encoder:
    if form.published:
        llama = encoder.template.startswith("llama2")
        template = template or ("llama2_published" if llama else "plain")
        if template not in ("plain", "llama2_published"):
            raise WagleError(
                f"the published variant has the templates plain and llama2_published, not {template}"
            )
    same = template in (None, encoder.template) and max_length == encoder.max_length
    if same:  # which remembers the cuts that it warned about
        return encoder
    return Encoder(
        encoder.tokenizer,
        template=template or encoder.template,
        system_prompt=encoder.system_prompt if template in (None, "chat") else None,
        max_length=max_length,
    )


# ---------------------------------------------------------------------------------------------
# Data


def _read(source: Path | HubSet, split: str) -> dict[str, list[Record]]:
    """The records by set; ``holdout`` only where there is such a split."""
    configs = {
        "forget": f"{split}_perturbed",
        "retain": "retain_perturbed",
        **{name: f"{name}_perturbed" for name in WORLD},
    }
    holdout = split.replace("forget", "holdout")
    if isinstance(source, HubSet):
        return {
            n: read_records(source.read(config, ["train"]), name=n) for n, config in configs.items()
        }
    there = {path.stem for path in source.iterdir() if path.suffix in READERS}
    missing = [config for config in configs.values() if config not in there]
    if missing:
        raise WagleError(
            f"{source} lacks {', '.join(missing)} ({', '.join(READERS)}); data: give a folder with "
            f"the files of TOFU (on the hub: {HUB})"
        )
    if holdout != split and holdout in there:
        configs["holdout"] = holdout
    return {n: read_records(source, name=n, split=config) for n, config in configs.items()}


def _words_note(forget: Sequence[Record], holdout: Sequence[Record], seed: int) -> str | None:
    """What to know of membership attacks on these sets: do words alone tell them apart?"""
    if min(len(forget), len(holdout)) < 2 or importlib.util.find_spec("sklearn") is None:
        return "not checked whether words alone tell the sets apart (needs scikit-learn, 2 records)"
    known, new = ([f"{r.prompt} {r.answer}" for r in records] for records in (forget, holdout))
    return bag_of_words(known, new, seed).warning
