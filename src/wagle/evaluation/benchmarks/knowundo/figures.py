"""The figures that ``knowundo`` makes of the answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from wagle.data.records import Record
from wagle.evaluation.asking.requests import Answers, Greedy, Likelihood
from wagle.evaluation.figures import (
    HIGHER,
    LOWER,
    OVERALL,
    TARGET,
    Figure,
    Measured,
    Written,
    mean_figure,
)
from wagle.evaluation.judges.classifiers import Judges
from wagle.evaluation.tasks.writing import rouge_figure, writing_figures, written
from wagle.metrics.memorization import exact_memorization
from wagle.metrics.statistics import REPLICATES, composite_interval
from wagle.metrics.text import brunet, has_rouge_words, honore, language_score, rouge, words

SETS = ("unlearn", "retention")  # what should go, what should stay
_LARGEST = 600.0  # nats: exp of more comes near the end of float64
_METHOD = f"bootstrap 95 %, {REPLICATES} replicates"


@dataclass(frozen=True)
class Asked:
    """One question: how likely is its answer, and what does the model itself answer?

    ``closed``: the last scored token is an end of turn.
    """

    record: Record
    likely: Likelihood
    closed: bool
    greedy: Greedy | None


def measure(
    tokenizer: PreTrainedTokenizerBase,
    asked: Mapping[str, Sequence[Asked]],
    judges: Judges,
    seed: int,
    answers: Answers,
) -> Measured:
    """The figures of both sets, and how far unlearning and retention succeeded."""
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


def _figures(
    name: str,
    own: Sequence[Asked],
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
    known, kept = (figures[name]["accuracy"] for name in SETS)
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
