"""The benchmark ``knowundo``: is what should go gone, and what stands close to it still there?

Its questions to unlearn and to retain come from the same domain (copyright or privacy), so that a
model which forgets too much shows. ``VERSION`` is raised with every new definition.

Source: Tian et al. 2024, arXiv 2407.01920.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Answers, Greedy, Likelihood, Request, likelihood
from wagle.evaluation.comparable import asked_text, template_settings
from wagle.evaluation.figures import (
    HIGHER,
    LOWER,
    OVERALL,
    TARGET,
    Figure,
    Measured,
    Task,
    Written,
    mean_figure,
)
from wagle.evaluation.judges.classifiers import Judges, load_judges
from wagle.evaluation.tasks.raw import raw_ids, tokenizer_of
from wagle.evaluation.tasks.rows import read_rows, words_of
from wagle.evaluation.tasks.writing import rouge_figure, writing_figures, written
from wagle.metrics.memorization import exact_memorization
from wagle.metrics.statistics import REPLICATES, composite_interval
from wagle.metrics.text import brunet, has_rouge_words, honore, language_score, rouge, words
from wagle.system.errors import WagleError

VERSION = 3
HUB = "zjunlp/KnowUnDo"
_SETS = ("unlearn", "retention")
_PROBES = [("unlearn", "accuracy"), ("unlearn", "rouge_l")]
_PUBLISHED_LENGTH = 256  # tokens
_LARGEST = 600.0  # nats: exp of more comes near the end of float64
_METHOD = f"bootstrap 95 %, {REPLICATES} replicates"


@dataclass(frozen=True)
class _Asked:
    """One question: how likely is its answer, and what does the model answer itself?

    ``closed``: the last scored token is an end of turn.
    """

    record: Record
    likely: Likelihood
    closed: bool
    greedy: Greedy | None


def knowundo(
    encoder: Encoder,
    *,
    data: str | Path,
    domain: Literal["copyright", "privacy"] = "privacy",
    part: Literal["val", "train"] = "val",
    variant: Literal["official", "published"] = "official",
    direct_prompt: str = "",
    generate: bool = True,
    max_new_tokens: int = 128,
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    seed: int = 0,
) -> Task:
    """Ask the questions to unlearn and those to retain.

    Per set: ``accuracy`` (per cent of an answer's tokens that the model would have chosen, given
    those before), ``nll`` and ``perplexity`` (exp of its mean over records), and of the greedy
    answers ROUGE-L and the language score, whose perplexity is the mean one of the right answers.
    ``overall`` has the unlearn success, 100 less the accuracy, and the retention success.

    Args:
        encoder: whose tokenizer is used; its template in the variant ``official``.
        data: a local copy of the hub's zjunlp/KnowUnDo: ``privacy/unlearn.json`` and
            ``privacy/retention.json`` (or .jsonl, .parquet), or the same without the folder of
            the domain. Each holds one row with the lists ``train`` and ``val``, or the rows
            themselves: {text, labels}, a question and its answer.
        domain: ``copyright`` or ``privacy``.
        part: which of the two lists.
        variant: ``official``: the encoder's template; the answer counts, its end of turn in the
            perplexity alone. ``published``: no template, question, blank line and answer; the
            blank line counts, there is no EOS, and 256 tokens are read.
        direct_prompt: comes before every question, such as a request to refuse what is sensitive.
        generate: also ask for greedy answers.
        max_new_tokens: the longest of these.
        fluency: a folder or hub name of a classifier with the label ``clean``: how probable it is
            that an answer is language. None: that is not measured.
        entailment: of one of pairs with the label ``entailment``: whether an answer entails the
            right one (of ``retention``: follows from it). None: that is not measured.
        seed: of the intervals.

    Raises:
        WagleError: a file or field that is missing; a question that leaves no room for an answer; a
            classifier that is not there, is none or has not the label.
    """
    tokenizer = tokenizer_of(encoder, "knowundo")
    judges = load_judges(fluency, entailment, writes=generate)
    asked: dict[str, list[_Asked]] = {}
    for name in _SETS:
        asked[name] = []
        for record in _records(data, domain, name, part):
            prompt = direct_prompt + record.prompt
            if variant == "published":
                tokens = _published(tokenizer, record.place, prompt, record.answer)
            else:
                tokens = encoder.answer(record, prompt, record.answer)
            place = tokens.place
            greedy = Greedy(tokens.last_context, max_new_tokens, place) if generate else None
            record = replace(record, prompt=prompt)
            asked[name].append(_Asked(record, likelihood(tokens), tokens.closed, greedy))

    def measure(answers: Answers) -> Measured:
        figures: dict[str, dict[str, Figure]] = {}
        texts: dict[str, list[Written]] = {}
        for name, own in asked.items():
            texts[name] = [
                written(
                    tokenizer,
                    answers,
                    one.greedy,
                    one.record.place,
                    one.record.prompt,
                    one.record.answer,
                )
                for one in own
                if one.greedy is not None
            ]
            figures[name] = _figures(name, own, texts[name], answers, judges, seed)
        figures[OVERALL] = _success(figures)
        summary = {
            name: {"eval_acc": figures[name]["accuracy"].value, "eval_ppl": own["perplexity"].value}
            for name, own in figures.items()
            if name != OVERALL
        }
        return Measured(figures, texts, summary)

    requests: list[Request] = []
    for one in (one for own in asked.values() for one in own):
        requests += [one.likely, *([one.greedy] if one.greedy else [])]
    return Task(
        requests,
        measure,
        data={"domain": domain, "part": part, "variant": variant},
        probes=_PROBES,
        records={
            name: {one.record.place: asked_text(one.record) for one in own}
            for name, own in asked.items()
        },
        settings={
            "version": VERSION,
            "variant": variant,
            **(template_settings(encoder) if variant == "official" else {}),
            "max_new_tokens": max_new_tokens if generate else None,
            **judges.settings,
        },
        published=True,
    )


def _published(tokenizer: PreTrainedTokenizerBase, place: str, prompt: str, answer: str) -> Tokens:
    """Question, blank line, answer: all after the question is scored, and nothing closes it."""
    first, ids, starts = raw_ids(tokenizer, f"{prompt}\n\n{answer}")
    marks = [False] * len(first) + [start >= len(prompt) for start in starts]
    marks[0] = False
    if not any(marks[:_PUBLISHED_LENGTH]):
        raise WagleError(
            f"the question of {place} leaves no room for an answer within {_PUBLISHED_LENGTH} "
            "tokens, which is all that the variant published reads; use official"
        )
    return Tokens((*first, *ids)[:_PUBLISHED_LENGTH], tuple(marks[:_PUBLISHED_LENGTH]), place=place)


# ---------------------------------------------------------------------------------------------
# Data


def _records(data: str | Path, domain: str, name: str, part: str) -> list[Record]:
    rows = _part(_file_rows(data, domain, name), part)
    if not rows:
        raise WagleError(f"{name} of {data} has no rows in {part}; it needs at least one")
    records = []
    for number, row in enumerate(rows):
        place = f"{name}[{number}]"
        if not isinstance(row, Mapping):
            raise WagleError(f"{place} is {type(row).__name__}, not an object with text and labels")
        question, answer = words_of(row, "text", place), words_of(row, "labels", place)
        records.append(Record("qa", prompt=question, answer=answer, place=place))
    return records


def _part(rows: Sequence[Mapping[str, Any]], part: str) -> Sequence[Any]:
    """The list ``part`` of the one row that holds both; rows that stand for themselves."""
    if len(rows) == 1 and isinstance(rows[0].get(part), Sequence):
        found: Sequence[Any] = rows[0][part]
        return found
    return rows


def _file_rows(data: str | Path, domain: str, name: str) -> list[Mapping[str, Any]]:
    for folder in (Path(data) / domain, Path(data)):
        for ending in (".json", ".jsonl"):
            path = folder / f"{name}{ending}"
            if path.is_file():
                return list(read_rows(path, name).values())
        shards = sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*.parquet")])
        if shards:
            from pyarrow.parquet import read_table

            return [row for path in shards for row in read_table(path).to_pylist()]
    raise WagleError(
        f"knowundo looks for {domain}/{name} or {name} (.json, .jsonl or .parquet) in {data}, which "
        f"is not there; give a local copy of the hub's {HUB} as data"
    )


# ---------------------------------------------------------------------------------------------
# Figures


def _figures(
    name: str,
    own: Sequence[_Asked],
    said: Sequence[Written],
    answers: Answers,
    judges: Judges,
    seed: int,
) -> dict[str, Figure]:
    gone = name == "unlearn"
    right: dict[str, float] = {}
    nll: dict[str, float] = {}
    for one in own:
        told = answers.likelihood(one.likely)
        hits = told.hit.tolist()[: len(told.hit) - one.closed]
        right[one.record.place] = 100 * exact_memorization(hits)
        nll[one.record.place] = told.mean

    target = "reference" if gone else None
    about: dict[str, Any] = {"direction": TARGET if gone else HIGHER, "target": target}
    mean = mean_figure(
        nll,
        unit="nats per token",
        direction=TARGET if gone else LOWER,
        target=target,
        seed=seed,
    )
    figures = {
        "accuracy": mean_figure(right, unit="per cent of the answer's tokens", **about, seed=seed),
        "nll": mean,
        "perplexity": _perplexity(mean),
    }
    if said:
        overlap = {
            text.place: rouge(text.expected, text.said)
            for text in said
            if has_rouge_words(text.expected)
        }
        mute = len(said) - len(overlap)
        for metric, unit, rows in (
            ("rouge_l", "recall", {p: found.recall for p, found in overlap.items()}),
            ("rouge_l_f1", "ROUGE-L F", {p: found.f1 for p, found in overlap.items()}),
        ):
            figures[metric] = rouge_figure(rows, mute, unit=unit, **about, seed=seed)
        figures["language_score"] = _language(nll, said, seed)
        figures |= writing_figures(said, seed, judges, gone=gone, target=target)
    return figures


def _perplexity(nll: Figure) -> Figure:
    """The exponential of a mean NLL over records: the macro perplexity, exp(mean_i M_i)."""
    assert nll.interval is not None
    made = replace(nll, unit="perplexity", per_record={}, count=nll.n)
    low, high = nll.interval
    if high > _LARGEST:
        note = f"the mean NLL, {nll.number:.0f} nats per token, is too large for an exponential"
        return replace(made, value=None, interval=None, interval_method="none", note=note)
    return replace(
        made,
        value=math.exp(nll.number),
        interval=(math.exp(low), math.exp(high)),
        interval_method=f"exp of the mean NLL's: {nll.interval_method}",
        note="exp of the mean over records of the mean NLL (macro)",
    )


def _language(nll: Mapping[str, float], said: Iterable[Written], seed: int) -> Figure:
    """The language score of mean perplexity, Brunet's index and Honoré's statistic."""
    perplexity = {place: math.exp(min(value, _LARGEST)) for place, value in nll.items()}
    spoken = {text.place: text.said for text in said if words(text.said)}
    silent = len(perplexity) - len(spoken)
    if not spoken:
        note = "no answer has a word"
        return Figure(None, None, "none", direction=HIGHER, unit="0 to 1", note=note)
    rows = [
        perplexity,
        {place: brunet(text) for place, text in spoken.items()},
        {place: honore(text) for place, text in spoken.items()},
    ]

    def score(means: Sequence[float]) -> float:
        return language_score(*means)

    return Figure(
        score([math.fsum(row.values()) / len(row) for row in rows]),
        composite_interval(rows, score, seed),
        _METHOD,
        direction=HIGHER,
        unit="0 to 1",
        note=f"{silent} answers without a word are left out of its word counts" if silent else None,
        count=len(perplexity),
    )


def _success(figures: Mapping[str, Mapping[str, Figure]]) -> dict[str, Figure]:
    known, kept = (figures[name]["accuracy"] for name in _SETS)
    assert known.interval is not None
    low, high = known.interval
    gone = {place: 100 - value for place, value in known.per_record.items()}
    return {
        "unlearn_success": Figure(
            100 - known.number,
            (100 - high, 100 - low),
            known.interval_method,
            gone,
            HIGHER,
            "per cent",
        ),
        "retention_success": replace(kept, unit="per cent"),
    }
