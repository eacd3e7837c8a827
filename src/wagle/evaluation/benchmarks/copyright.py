"""The benchmark ``copyright``: does the model continue passages word for word?

Passages that the model was trained on and held-out passages of the same kind are cut after k
tokens; the model continues the first part, and the second is scored. Memorisation is the
difference: what it reproduces of the trained passages beyond what it does of the held-out ones.
Everything is asked as raw text, even of chat models. ``VERSION`` is raised with every new
definition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from wagle.data.overlap import check_disjoint
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers, Greedy, Likelihood
from wagle.evaluation.figures import OVERALL, Figure, Measured, Task, Written, mean_figure
from wagle.evaluation.judges.classifiers import LONG, Judges, load_judges
from wagle.evaluation.tasks.raw import decoded, raw_ids, tokenizer_of
from wagle.evaluation.tasks.rows import find_file
from wagle.evaluation.tasks.writing import writing_figures, written
from wagle.metrics.memorization import (
    exact_memorization,
    extraction_strength,
    longest_run,
    prefix_run,
)
from wagle.metrics.statistics import REPLICATES, composite_interval
from wagle.metrics.text import bleu as bleu_of
from wagle.metrics.text import corpus_bleu, has_rouge_words, longest_word_run, rouge
from wagle.system.errors import WagleError

VERSION = 2
PREFIXES = (50, 100, 200, 300)  # tokens
_VERBATIM = 50  # tokens from the start that count as a copy
_SHAPE = 'a passage: {"text": ...} or {"prompt": ..., "response": ...}'
UNITS = {
    "rouge_recall": "ROUGE-L recall",
    "rouge_f1": "ROUGE-L F",
    "bleu": "BLEU, 0 to 100",
    "exact_memorization": "share of the continuation's tokens",
    "extraction_strength": "share of the continuation",
    "longest_run": "tokens",
    "longest_word_run": "words",
    "prefix_run": "tokens",
    f"verbatim@{_VERBATIM}": "share of passages",
    "nll": "nats per token",
}
_APART = (*UNITS, "empty")  # figures compared between trained and held-out passages
_PROBES = ("rouge_recall", "exact_memorization", "extraction_strength", f"verbatim@{_VERBATIM}")
_Bleu = Literal["sentence", "corpus", "published"]


@dataclass(frozen=True)
class _Asked:
    """A passage, cut: ``expected`` is its second part as text."""

    place: str
    start: str
    expected: str
    likely: Likelihood
    greedy: Greedy


@dataclass(frozen=True)
class _Set:
    """The passages of one set that are longer than a prefix, and how many are not."""

    asked: Sequence[_Asked]
    short: int


def copyright(
    encoder: Encoder,
    *,
    data: str | Path,
    train: str = "train",
    heldout: str | None = "heldout",
    prefixes: list[int] | None = None,
    max_new_tokens: int = 256,
    bleu: _Bleu = "sentence",
    take: int | str = "all",
    fluency: str | Path | None = None,
    seed: int = 0,
) -> Task:
    """Ask a model to continue passages from your own files.

    Figures stand under ``train_300``, ``heldout_300`` and so on for every prefix; the difference
    between ``train`` and ``heldout`` stands under ``overall``, as ``rouge_recall_difference_300``.

    Args:
        encoder: its tokenizer is used, its template is not.
        data: a folder with a file for each set (JSON lines, JSON or CSV): one passage per row, as
            ``text``, or as ``prompt`` and ``response``, which are joined again.
        train: the file of the passages that the model was trained on, without its extension.
        heldout: the file of passages that it was not trained on; None: there is none.
        prefixes: how many tokens of a passage are given; None: 50, 100, 200 and 300. A passage that
            is no longer than a prefix is left out for that prefix, whose figures say how many were.
        max_new_tokens: the longest continuation; the passage's own may be shorter.
        bleu: ``sentence`` (mean over passages, with effective order), ``corpus`` (all passages
            pooled) or ``published`` (mean over passages, each a corpus of one). Extra ``eval``.
        take: ``all``, or how many passages of each file, drawn by the seed.
        fluency: a folder or hub name of a classifier with the label ``clean``: the probability that
            a continuation is language. None: not measured.
        seed: for the draw and the intervals.

    Raises:
        WagleError: a file that is not there; a passage in both sets; a prefix that is longer than
            every passage of a set; a setting that does not fit; a classifier that is missing, is no
            classifier or lacks the label.
    """
    judges = load_judges(fluency, length=LONG)
    tokenizer = tokenizer_of(encoder, "copyright")
    lengths = list(dict.fromkeys(PREFIXES if prefixes is None else prefixes))
    if not lengths or min(lengths) < 1 or max_new_tokens < 1:
        raise WagleError("copyright: prefixes and max_new_tokens must be at least 1 token")
    files = {"train": train} | ({} if heldout is None else {"heldout": heldout})
    records = {
        name: read_records(
            find_file(data, file, "copyright", _SHAPE), name=name, take=take, seed=seed
        )
        for name, file in files.items()
    }
    if "heldout" in records:
        check_disjoint(records["train"], records["heldout"])
    asked = {
        (name, length): _cut(tokenizer, name, found, length, max_new_tokens)
        for name, found in records.items()
        for length in lengths
    }

    requests = [r for own in asked.values() for one in own.asked for r in (one.likely, one.greedy)]
    passages = {
        f"{name}_{length}": {one.place: json.dumps([one.start, one.expected]) for one in own.asked}
        for (name, length), own in asked.items()
    }
    return Task(
        requests,
        partial(_measure, tokenizer, asked, bleu, judges, seed),
        records=passages,
        settings={"version": VERSION, "bleu": bleu, "fluency": judges.settings["fluency"]},
        probes=[(f"train_{length}", metric) for length in lengths for metric in _PROBES],
    )


def passage(record: Record) -> str:
    """The text of a passage; one given in two parts is joined again.

    Raises:
        WagleError: the record is a chat or tokens.
    """
    if record.kind not in ("qa", "text"):
        raise WagleError(f"{record.place} is {record.kind}; copyright needs {_SHAPE}")
    start, rest = record.prompt, record.answer
    apart = start and record.kind == "qa" and not (start[-1].isspace() or rest[0].isspace())
    return f"{start} {rest}" if apart else start + rest


def _cut(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    records: Sequence[Record],
    length: int,
    most: int,
) -> _Set:
    """The passages of a set, cut after ``length`` tokens."""
    asked = []
    for record in records:
        first, ids, _ = raw_ids(tokenizer, passage(record))
        start, rest = ids[:length], ids[length : length + most]
        if rest:
            context = (*first, *start)
            asked.append(
                _Asked(
                    record.place,
                    decoded(tokenizer, start),
                    decoded(tokenizer, rest),
                    Likelihood(context, rest, place=record.place),
                    Greedy(context, len(rest), record.place),
                )
            )
    if not asked:
        raise WagleError(
            f"no passage of {name} has more than {length} tokens; give longer ones, or set "
            "prefixes to smaller numbers"
        )
    return _Set(asked, len(records) - len(asked))


def _measure(
    tokenizer: PreTrainedTokenizerBase,
    asked: Mapping[tuple[str, int], _Set],
    bleu: _Bleu,
    judges: Judges,
    seed: int,
    answers: Answers,
) -> Measured:
    figures: dict[str, dict[str, Figure]] = {}
    texts: dict[str, list[Written]] = {}
    for (name, length), own in asked.items():
        said = [
            written(tokenizer, answers, one.greedy, one.place, one.start, one.expected)
            for one in own.asked
        ]
        texts[f"{name}_{length}"] = said
        figures[f"{name}_{length}"] = _figures(own, said, answers, bleu, judges, seed)
    lengths = [length for name, length in asked if name == "heldout"]
    if lengths:
        figures[OVERALL] = {
            f"{metric}_difference_{length}": _difference(
                found, figures[f"heldout_{length}"][metric], seed
            )
            for length in lengths
            for metric, found in figures[f"train_{length}"].items()
            if metric in _APART
        }
    return Measured(figures, texts)


def _figures(
    own: _Set,
    said: Sequence[Written],
    answers: Answers,
    bleu: _Bleu,
    judges: Judges,
    seed: int,
) -> dict[str, Figure]:
    rows: dict[str, dict[str, float]] = {metric: {} for metric in UNITS}
    for one, text in zip(own.asked, said, strict=True):
        for metric, value in _values(one, text, answers, bleu).items():
            rows[metric][one.place] = value
    notes = _notes(own)
    found = {
        metric: mean_figure(
            values,
            unit=UNITS[metric],
            target="reference",
            share=metric == f"verbatim@{_VERBATIM}",
            note=notes[metric],
            seed=seed,
        )
        for metric, values in rows.items()
        if values
    }
    if bleu == "corpus":
        pooled = corpus_bleu([one.expected for one in own.asked], [text.said for text in said])
        found["bleu"] = Figure(
            pooled,
            None,
            "none: all passages are pooled",
            unit=UNITS["bleu"],
            target="reference",
            note=notes["bleu"],
            count=len(said),
        )
    reads = writing_figures(said, seed, judges)
    del reads["at_limit"]  # the limit is the passage's own length
    return found | reads


def _notes(own: _Set) -> dict[str, str | None]:
    """What the reader of a set's figures needs to know, by metric."""
    mute = sum(not has_rouge_words(one.expected) for one in own.asked)
    brief = sum(len(one.likely.continuation) < _VERBATIM for one in own.asked)
    short = f"{own.short} of {own.short + len(own.asked)} passages are too short"
    unseen = f"{mute} passages have no ASCII letter or digit, so that ROUGE is 0"
    few = f"{brief} passages have fewer than {_VERBATIM} tokens left and count as not copied"
    notes = {metric: [short] if own.short else [] for metric in UNITS}
    for metric in ("rouge_recall", "rouge_f1"):
        notes[metric] += [unseen] if mute else []
    notes[f"verbatim@{_VERBATIM}"] += [few] if brief else []
    return {metric: "; ".join(found) or None for metric, found in notes.items()}


def _values(one: _Asked, text: Written, answers: Answers, bleu: _Bleu) -> Mapping[str, float]:
    """The figures of one passage."""
    told, ids = answers.likelihood(one.likely), answers.text(one.greedy).ids
    hits = told.hit.tolist()
    overlap = rouge(one.expected, text.said)
    copied = prefix_run(ids, one.likely.continuation)
    made = {
        "rouge_recall": overlap.recall,
        "rouge_f1": overlap.f1,
        "exact_memorization": exact_memorization(hits),
        "extraction_strength": extraction_strength(hits),
        "longest_run": float(longest_run(ids, one.likely.continuation)),
        "longest_word_run": float(longest_word_run(one.expected, text.said)),
        "prefix_run": float(copied),
        f"verbatim@{_VERBATIM}": float(copied >= _VERBATIM),
        "nll": told.mean,
    }
    if bleu != "corpus":
        made["bleu"] = bleu_of(one.expected, text.said, bleu)
    return made


def _difference(train: Figure, heldout: Figure, seed: int) -> Figure:
    """The difference between trained and held-out passages, with a two-sample interval."""
    interval, method = None, "none: all passages are pooled"
    if train.per_record and heldout.per_record:
        interval = composite_interval(
            [train.per_record, heldout.per_record], lambda means: means[0] - means[1], seed
        )
        method = f"bootstrap 95 %, {REPLICATES} replicates"
    return Figure(
        train.number - heldout.number,
        interval,
        method,
        unit=train.unit,
        target=0.0,
        count=train.n + heldout.n,
    )
