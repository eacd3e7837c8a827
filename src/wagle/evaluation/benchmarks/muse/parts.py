"""The parts of ``muse``: what each asks, and the figures it makes of the answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from wagle.data.tokens import text_of
from wagle.evaluation.asking.requests import Answers, Greedy, Likelihood, Request
from wagle.evaluation.figures import HIGHER, OVERALL, Figure, Measured, Written, mean_figure
from wagle.evaluation.judges.classifiers import Judges
from wagle.evaluation.membership.leakage import (
    HEADLINE,
    asked_figures,
    assumed_leakage,
    check_leakage,
)
from wagle.evaluation.membership.requests import (
    attack_table,
    headline_share,
    probe_text,
)
from wagle.evaluation.membership.sets import compare_sets
from wagle.evaluation.tasks.raw import raw_ids
from wagle.evaluation.tasks.writing import writing_figures
from wagle.metrics.memorization import exact_memorization, extraction_strength, longest_run
from wagle.metrics.text import cut_at, has_rouge_words, rouge
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)
Rows = dict[str, dict[str, str]]
Read = Callable[[str, str], Rows]  # the rows of a part and a split, by place

_SHOTS = 10
_VERBATIM, _KNOWLEDGE = 128, 32  # the most new tokens
_ENDS = ("\n\n", "\nQuestion", "Question:")  # answers to questions are cut off here


class Part(NamedTuple):
    """One part of the benchmark.

    Attributes:
        requests: what it asks.
        measure: what it makes of the answers.
        records: the texts that the requests are made from, by set and place.
        settings: what else determines its figures.
        fits: refuses a reference that it cannot be compared with.
    """

    requests: list[Request]
    measure: Callable[[Answers], Measured]
    records: dict[str, dict[str, str]]
    settings: Mapping[str, Any] = MappingProxyType({})
    fits: Callable[..., None] | None = None


class How(NamedTuple):
    """What all parts share: the tokenizer, OpenUnlearning's way or MUSE's, the seed, the judges."""

    tokenizer: PreTrainedTokenizerBase
    ou: bool
    seed: int
    judges: Judges

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text, after a BOS where the tokenizer adds one."""
        raw = raw_ids(self.tokenizer, text)
        return (*raw.first, *raw.ids)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens, otherwise untouched."""
        return text_of(self.tokenizer, ids)

    def score(self, expected: str, said: str) -> float:
        """ROUGE-L F of an answer."""
        return rouge(expected, said, stemmer=self.ou).f1

    def figure(self, rows: Mapping[str, float], unit: str, **more: Any) -> Figure:
        """The mean of ``rows``; a retrained model is the target unless ``more`` says otherwise."""
        return mean_figure(rows, unit=unit, seed=self.seed, **{"target": "reference", **more})


class _Asked(NamedTuple):
    """What the model is asked to write, and what it should (or should not) write."""

    place: str
    prompt: str
    expected: str
    greedy: Greedy


def _written(
    how: How, metric: str, asked: Sequence[_Asked], answers: Answers, *, kept: bool = False
) -> tuple[dict[str, Figure], list[Written]]:
    """ROUGE of what was written, and the shares of answers that are empty or hit the limit."""
    texts = []
    for one in asked:
        found = answers.text(one.greedy)
        whole = how.text(found.ids)
        said = cut_at(whole, _ENDS) if metric == "knowmem" else whole
        texts.append(
            Written(
                one.place,
                one.prompt,
                one.expected,
                said.strip(),
                found.finished or len(said) < len(whole),
            )
        )
    aim = {"direction": HIGHER, "target": None} if kept else {}
    rows = {t.place: how.score(t.expected, t.said) for t in texts}
    judges = how.judges
    if metric == "verbmem":  # passages, none of which follows from another
        judges = replace(judges, entailment=None)
    target = None if kept else "reference"
    written = writing_figures(texts, how.seed, judges, gone=not kept, target=target)
    more = {f"{metric}_{name}": figure for name, figure in written.items()}
    figures = {metric: how.figure(rows, "ROUGE-L F", **aim), **more}
    return figures, texts


def verbatim(how: How, rows: Mapping[str, Mapping[str, str]]) -> Part:
    """C1: passages to continue; their own continuation is scored too."""
    asked: list[_Asked] = []
    likely: dict[str, Likelihood] = {}
    for place, row in rows.items():
        prompt, passage = row["prompt"], row["gt"]
        expected = passage if how.ou else how.text(how.ids(passage)[:_VERBATIM])
        asked.append(_Asked(place, prompt, expected, _greedy(how, place, prompt, _VERBATIM)))
        likely[place] = _continuation(how, place, prompt, passage)
    _warn_of_silence("verbmem", [one.expected for one in asked])

    def measure(answers: Answers) -> Measured:
        figures, texts = _written(how, "verbmem", asked, answers)
        exact, strength, runs = {}, {}, {}
        for one in asked:
            hits = answers.likelihood(likely[one.place]).hit.tolist()
            if how.ou:
                hits = hits[:-1] or hits  # its code takes the last token for an EOS
            exact[one.place] = exact_memorization(hits)
            strength[one.place] = extraction_strength(hits, floor=how.ou)
            said = answers.text(one.greedy).ids
            runs[one.place] = float(longest_run(said, likely[one.place].continuation))
        figures["verbmem_exact_memorization"] = how.figure(exact, "share of the passage's tokens")
        figures["verbmem_extraction_strength"] = how.figure(strength, "share of the passage")
        figures["verbmem_longest_run"] = how.figure(runs, "tokens")
        return Measured({"forget": figures}, {"forget": texts})

    requests: list[Request] = [*(one.greedy for one in asked), *likely.values()]
    texts = {place: json.dumps([row["prompt"], row["gt"]]) for place, row in rows.items()}
    return Part(requests, measure, {"verbmem.forget": texts})


def _greedy(how: How, place: str, prompt: str, most: int) -> Greedy:
    return Greedy(how.ids(prompt), most, place)


def _continuation(how: How, place: str, prompt: str, passage: str) -> Likelihood:
    """The passage after its prompt, tokenised as one text.

    A token across the border belongs to the prompt.
    """
    raw = raw_ids(how.tokenizer, prompt + (" " if how.ou else "") + passage)
    border = next((i for i, left in enumerate(raw.starts) if left >= len(prompt)), len(raw.ids))
    continuation = raw.ids[border:] if how.ou else raw.ids[border : border + _VERBATIM]
    if not continuation:
        raise WagleError(f"{place} has no token after its prompt; is gt more than a few letters?")
    return Likelihood((*raw.first, *raw.ids[:border]), continuation, place=place)


def knowledge(how: How, name: str, read: Read) -> Part:
    """C2 (``forget``) and C4 (``retain``): questions after ten examples."""
    shots, rows = read("knowmem", f"{name}_qa_icl"), read("knowmem", f"{name}_qa")
    if len(shots) < _SHOTS:
        raise WagleError(
            f"knowmem/{name}_qa_icl has {len(shots)} examples; the prompt needs {_SHOTS}"
        )
    before = "".join(
        f"Question: {row['question']}\nAnswer: {row['answer']}\n\n"
        for row in list(shots.values())[:_SHOTS]
    )
    asked = [
        _Asked(
            place,
            row["question"],
            row["answer"],
            _greedy(how, place, f"{before}Question: {row['question']}\nAnswer: ", _KNOWLEDGE),
        )
        for place, row in rows.items()
    ]
    _warn_of_silence(f"knowmem {name}", [one.expected for one in asked])

    def measure(answers: Answers) -> Measured:
        figures, texts = _written(how, "knowmem", asked, answers, kept=name == "retain")
        return Measured({name: figures}, {name: texts})

    texts = {one.place: json.dumps([before, one.prompt, one.expected]) for one in asked}
    return Part([one.greedy for one in asked], measure, {f"knowmem.{name}": texts})


def _warn_of_silence(what: str, expected: Sequence[str]) -> None:
    mute = sum(not has_rouge_words(text) for text in expected)
    if mute:
        logger.warning(
            "%d of %d answers of %s hold no ASCII letter or digit; ROUGE gives them 0, even for "
            "themselves",
            mute,
            len(expected),
            what,
        )


def membership(
    how: How,
    read: Read,
    attacks: Sequence[str] | None,
    k: Sequence[float] | None,
    window: int,
    retrained_auc: float | None,
    check_words: bool,
) -> Part:
    """C3: what membership attacks ask about the texts to forget and the holdout texts."""
    table = attack_table(attacks, k)
    if retrained_auc is not None and HEADLINE not in table:
        raise WagleError(f"retrained_auc is an AUC of the attack {HEADLINE}; add that to attacks")
    texts = {name: read("privleak", name) for name in ("forget", "holdout")}
    plain = {n: {p: row["text"] for p, row in rows.items()} for n, rows in texts.items()}
    note = compare_sets(plain, how.seed, words=check_words)
    probes = {
        name: [
            probe_text(place, row["text"], how.ids, table, window, how.text if how.ou else None)
            for place, row in rows.items()
        ]
        for name, rows in texts.items()
    }

    def measure(answers: Answers) -> Measured:
        figures = asked_figures(probes, answers, table, mean_norm=how.ou, note=note, seed=how.seed)
        if retrained_auc is not None:
            figures[OVERALL] |= assumed_leakage(figures, retrained_auc, seed=how.seed)
        return Measured(figures)

    requests = [r for made in probes.values() for probe in made for r in probe.requests]
    return Part(
        requests,
        measure,
        {f"privleak.{name}": rows for name, rows in plain.items()},
        {"window": window, "k": headline_share(table, k)},
        partial(_fits, texts, list(table)),
    )


def _fits(
    texts: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str],
    found: Measured,
    role: str = "reference",
) -> None:
    """Refuse a reference against which privacy leakage cannot be measured."""
    check_leakage(texts, labels, found.figures, role)
