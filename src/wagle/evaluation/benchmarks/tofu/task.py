"""The benchmark ``tofu``: 200 invented authors, some to forget; real authors, world facts to keep.

Per record: how likely the answer is, what the model itself says, and how the right answer compares
with wrong ones of the same form (the truth ratio). Over all sets: model utility. Compared with a
model that never learned the forget set: forget quality, and with a holdout split privacy leakage.
``VERSION`` is raised with every new definition.

Source: Maini et al. 2024, arXiv 2401.06121.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from wagle.data.hub import HubSet, open_source
from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens, text_of
from wagle.evaluation.benchmarks.tofu.beside import against, check_fit, since
from wagle.evaluation.benchmarks.tofu.overall import ES, measure
from wagle.evaluation.benchmarks.tofu.requests import (
    TOTAL,
    VARIANTS,
    WORLD,
    Plan,
    Variant,
    answer_tokens,
    ask_all,
)
from wagle.evaluation.benchmarks.tofu.rows import HUB, Limit, check_holdout, read_sets
from wagle.evaluation.comparable import asked_text, template_settings
from wagle.evaluation.figures import OVERALL, Task
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.judges.embeddings import OFFLINE, check_encoder, encoder_name, has_offline
from wagle.evaluation.membership.leakage import HEADLINE
from wagle.evaluation.membership.requests import (
    FOUR,
    Attack,
    Probe,
    attack_table,
    headline_share,
    probe_answers,
)
from wagle.evaluation.membership.sets import WITH_EOS, WITHOUT_EOS, compare_records
from wagle.evaluation.peers.logs import FLOORED, WITH_END
from wagle.metrics.table import PROBES
from wagle.system.errors import WagleError, choose

T = TypeVar("T")

VERSION = 3


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
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    closer_look: bool = False,
    cluster: Literal["record", "author"] = "record",
    attacks: list[str] | None = None,
    k: list[float] | None = None,
    seed: int = 0,
) -> Task:
    """Ask what TOFU asks: the forget split, and the retain, real author and world fact records.

    Args:
        encoder: makes tokens of records.
        data: a folder with TOFU's files (``forget10_perturbed.json``, ...), or its hub name,
            ``locuslab/TOFU``. A file or configuration ``holdout10`` for ``forget10`` adds
            membership attacks; on a hub without one, ``privleak`` is undefined, with a note.
        split: the records to forget: ``forget01``, ``forget05``, ``forget10``.
        revision: revision of the hub's data set: a commit, a tag or a branch; None: ``main``. The
            result says which commit was read.
        variant: ``official`` (TOFU's aggregate script: geometric mean over the wrong answers, the
            first 300 retain records), ``paper`` (arithmetic mean), ``open_unlearning`` (as
            official; all records, 200 new tokens, its extraction strength) or ``published`` (the
            published WAGLE code).
        strict: for ``official`` and ``paper``: also limit the forget set to its first 300 records,
            and question and answer together to 200 tokens.
        rows: how many records to take from the start of every set, overriding the variant's own
            limit.
        forget_rows: the same for the forget set alone; ``all`` or a number.
        retain_rows: the same for the retain set alone.
        max_new_tokens: the longest greedy answer, overriding the variant's own limit.
        eos: whether an answer's EOS is scored; None: in all variants except ``published``.
        template: how a question becomes text; None: the model's own (``published``: ``plain``, or
            ``llama2_published`` if the model has a Llama 2 template).
        generate: also generate greedy answers, without which there is no ROUGE and no utility.
        sentence_encoder: a folder or hub name, or ``all-MiniLM-L6-v2`` (offline, extra
            ``encoder``): measures ``embedding_accuracy`` on answers to paraphrased questions. None:
            only ``published`` measures it, with the offline one if that is installed.
        fluency: a folder or hub name of a classifier with the label ``clean``: the probability that
            an answer is language. OpenUnlearning uses
            ``madhurjindal/autonlp-Gibberish-Detector-492513457``. None: not measured.
        entailment: a folder or hub name of a classifier of text pairs with the label
            ``entailment``, such as ``sileod/deberta-v3-base-tasksource-nli``: whether a forget
            answer entails the right one, or any other answer follows from it. None: not measured.
        closer_look: also ``cosine``, with ``sentence_encoder`` (None: the offline one), and the
            ``closer_look_*`` figures of Yuan et al. 2024, arXiv 2410.08109; needs ``entailment``.
        cluster: what the intervals of the forget and retain sets draw: records, or whole authors
            (``author``, 20 questions each), whose intervals are wider.
        attacks: names of membership attacks; None: OpenUnlearning's four, ``loss``, ``zlib``,
            ``min_k`` and ``min_k++``. ``zlib_sum``, ``lower`` (the answer in lower case, after the
            question as it is) and ``gradnorm`` (a backward pass per answer) are others;
            ``reference`` comes with a reference model. All score answers without their EOS; with
            the variant ``open_unlearning``, as in its code, ``loss``, ``zlib`` and ``reference``
            include it.
        k: shares of tokens for ``min_k`` and ``min_k++``, exact as decimals; the first, or 0.4 if
            none is given, is the one in the headline.
        seed: for the intervals.

    Raises:
        WagleError: files, records or fields that are missing; settings that do not fit; membership
            attacks that are unknown or lack holdout records.
    """
    form = _form(encoder, variant, strict, sentence_encoder, generate, closer_look, entailment)
    judges = load_judges(fluency, entailment, writes=generate)
    compared, looked = _encoders(form, sentence_encoder, generate=generate, closer_look=closer_look)
    table = attack_table(FOUR if attacks is None else attacks, k)
    plan = Plan(
        _encoder(encoder, template, form, TOTAL if strict else encoder.max_length),
        split,
        form,
        not form.published if eos is None else eos,
        _first(max_new_tokens, None if strict else form.max_new_tokens),
        generate,
        compared,
        cluster == "author",
        seed,
        judges,
        looked,
    )
    source = open_source(data, HUB, revision, what="the files of TOFU")
    records, note = read_sets(source, split, _limits(form, strict, rows, forget_rows, retain_rows))
    if attacks is not None or k is not None:
        check_holdout(records, data, split)
    about = _data(split, variant, strict, source)
    return _task(plan, records, table, note, variant, k, about)


def _form(
    encoder: Encoder,
    variant: str,
    strict: bool,
    sentence_encoder: str | None,
    generate: bool,
    closer_look: bool,
    entailment: str | Path | None,
) -> Variant:
    """The variant; settings that do not fit it or one another are an error."""
    if encoder.tokenizer is None:
        raise WagleError("tofu needs a tokenizer; its data is text")
    form = choose(VARIANTS, variant, "variant of tofu")
    if strict and variant not in ("official", "paper"):
        raise WagleError(f"strict goes with the variants official and paper, not {variant}")
    if sentence_encoder is not None and not generate:
        raise WagleError("sentence_encoder compares greedy answers; leave generate on")
    if closer_look and form.published:
        raise WagleError(
            "closer_look needs truth ratios of at most 1, which published lacks; leave it out"
        )
    if closer_look and entailment is None:
        raise WagleError("closer_look needs entailment: name a classifier of (premise, hypothesis)")
    return form


def _encoders(
    form: Variant, named: str | None, *, generate: bool, closer_look: bool
) -> tuple[str | None, str | None]:
    """The sentence encoders of the embedding accuracy and of the closer look, if these are made.

    Raises:
        WagleError: one of them is missing.
    """
    if form.published and generate and named is None and has_offline():
        named = OFFLINE
    looked = (named or OFFLINE) if closer_look else None
    used = looked or named
    if used is not None:
        check_encoder(used)
    return named, looked


def _limits(
    form: Variant, strict: bool, rows: int | None, forget: Limit, retain: Limit
) -> dict[str, Limit]:
    """How many records of each set to ask about; None: all."""
    return {
        "forget": _first(forget, rows, 300 if strict else None),
        "retain": _first(retain, rows, form.retain_rows),
        **dict.fromkeys((*WORLD, "holdout"), rows),
    }


def _task(
    plan: Plan,
    records: Mapping[str, Sequence[Record]],
    table: Mapping[str, Attack],
    note: str | None,
    variant: str,
    k: Sequence[float] | None,
    data: Mapping[str, Any],
) -> Task:
    """What is asked about the records, and how the answers are measured.

    Args:
        plan: the benchmark's plan.
        records: the records by set; ``holdout`` if there is one.
        table: the membership attacks.
        note: why there is no holdout set, or None.
        variant: the variant's name.
        k: the shares of tokens for these attacks, if given.
        data: the task's ``data``.
    """
    holdout = records.get("holdout", ())
    sets = {
        name: [ask_all(plan, name, record) for record in own]
        for name, own in records.items()
        if name != "holdout"
    }
    probes: dict[str, list[Probe]] = {}
    if holdout:
        said, peer = WITHOUT_EOS, None
        if plan.form.peer:
            assert plan.encoder.tokenizer is not None  # _form refuses that
            said, peer = WITH_EOS, partial(text_of, plan.encoder.tokenizer)
        note = compare_records(records["forget"], holdout, plan.seed, said)
        both = {"forget": records["forget"], "holdout": holdout}
        ask = partial(_answers, plan)
        probes = {n: probe_answers(own, ask, table, peer) for n, own in both.items()}
    return Task(
        [
            *(request for items in sets.values() for item in items for request in item.requests),
            *(request for own in probes.values() for probe in own for request in probe.requests),
        ],
        partial(measure, plan, sets, probes, table, note),
        partial(against, plan),
        since=partial(since, plan),
        data=data,
        records={n: {r.place: asked_text(r) for r in own} for n, own in records.items()},
        settings={
            **_settings(plan, variant),
            "k": headline_share(table, k) if holdout else None,
            WITH_END: plan.form.peer if holdout else None,
        },
        published=True,
        fits=partial(check_fit, plan, sets["forget"], probes, table),
        probes=[
            *(("forget", FLOORED if plan.form.peer and m == ES else m) for m in PROBES),
            *([(OVERALL, "privleak")] if holdout and HEADLINE in table else []),
        ],
    )


def _data(split: str, variant: str, strict: bool, source: Path | HubSet) -> dict[str, Any]:
    """What was asked, for the result file."""
    return {
        "split": split,
        "revision": source.used if isinstance(source, HubSet) else None,
        "variant": f"{variant}{' strict' if strict else ''}, version {VERSION}",
    }


def _settings(plan: Plan, variant: str) -> dict[str, Any]:
    """What determines the figures apart from the records."""
    most: int | str = plan.max_new_tokens or f"{TOTAL} with the question"
    return {
        "version": VERSION,
        "split": plan.split,
        "variant": variant,
        "eos": plan.eos,
        **template_settings(plan.encoder),
        "max_new_tokens": most if plan.generate else None,
        "sentence_encoder": plan.sentence_encoder and encoder_name(plan.sentence_encoder),
        **plan.judges.settings,
        "closer_look": plan.closer_look and encoder_name(plan.closer_look),
    }


def _answers(plan: Plan, records: Sequence[Record]) -> list[Tokens]:
    return [answer_tokens(plan, record, record.prompt, record.answer) for record in records]


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


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
