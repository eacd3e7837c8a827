"""The benchmark ``muse``: six looks at a model that should forget news articles or books.

C1 verbatim memorisation: it continues passages to forget. C2 knowledge memorisation: it answers
questions about them after ten examples. C3 privacy leakage: membership attacks on texts to forget
and texts never seen, beside the same of a retrained model. C4 utility: C2 on questions to keep.
C5 scalability, C6 sustainability: C4 over growing forget sets and over requests in a row.
Everything is asked as plain text, of chat models too. ``VERSION`` is raised with every new
definition.

Source: Shi et al. 2024, arXiv 2407.06460.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from wagle.data.hub import HubSet
from wagle.data.tokens import Encoder, text_of
from wagle.evaluation.asking.requests import Answers, Greedy, Likelihood, Request
from wagle.evaluation.benchmarks.muse.corpus import Corpus, muse_rows, open_muse
from wagle.evaluation.figures import (
    HIGHER,
    OVERALL,
    Figure,
    Measured,
    Task,
    Written,
    mean_figure,
)
from wagle.evaluation.judges.classifiers import LONG, Judges, load_judges
from wagle.evaluation.membership.leakage import (
    HEADLINE,
    asked_figures,
    assumed_leakage,
    check_leakage,
    leakage_figures,
)
from wagle.evaluation.membership.requests import (
    Attack,
    attack_table,
    compare_sets,
    headline_share,
    probe_text,
)
from wagle.evaluation.tasks.raw import raw_ids, tokenizer_of
from wagle.evaluation.tasks.writing import writing_figures
from wagle.metrics.membership import check_reference
from wagle.metrics.memorization import exact_memorization, extraction_strength, longest_run
from wagle.metrics.statistics import same_records
from wagle.metrics.text import cut_at, has_rouge_words, rouge
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)

VERSION = 2
PARTS = ("verbmem", "knowmem", "privleak")
_PROBES = {  # of a verdict, by part
    "verbmem": [
        ("forget", "verbmem"),
        ("forget", "verbmem_extraction_strength"),
        ("forget", "verbmem_exact_memorization"),
    ],
    "knowmem": [("forget", "knowmem")],
    "privleak": [(OVERALL, "privleak")],
}
_SHOTS = 10
_VERBATIM, _KNOWLEDGE = 128, 32  # the most new tokens
_ENDS = ("\n\n", "\nQuestion", "Question:")  # what no answer to a question goes beyond
_SUMMARY: dict[str, dict[str, tuple[str, str, int]]] = {  # name: set, metric, factor
    "open_unlearning": {
        "forget_verbmem_ROUGE": ("forget", "verbmem", 1),
        "forget_knowmem_ROUGE": ("forget", "knowmem", 1),
        "retain_knowmem_ROUGE": ("retain", "knowmem", 1),
        "extraction_strength": ("forget", "verbmem_extraction_strength", 1),
        "exact_memorization": ("forget", "verbmem_exact_memorization", 1),
        "mia_loss": (OVERALL, "auc_loss", 1),
        "mia_zlib": (OVERALL, "auc_zlib", 1),
        "mia_min_k": (OVERALL, "auc_min_k", 1),
        "mia_min_k_plus_plus": (OVERALL, "auc_min_k++", 1),
        "mia_reference": (OVERALL, "auc_reference", 1),
        "mia_gradnorm": (OVERALL, "auc_gradnorm", 1),
        "privleak": (OVERALL, "privleak", 1),
    },
    "muse": {
        "verbmem_f": ("forget", "verbmem", 100),
        "knowmem_f": ("forget", "knowmem", 100),
        "knowmem_r": ("retain", "knowmem", 100),
        "privleak": (OVERALL, "privleak", 1),
    },
}


class Part(NamedTuple):
    """One part of the benchmark: what it asks, what it makes of the answers, its records.

    The records are texts, by set and place: all that what is asked is made of.
    """

    requests: list[Request]
    measure: Callable[[Answers], Measured]
    records: dict[str, dict[str, str]]


def muse(
    encoder: Encoder,
    *,
    data: str | Path,
    corpus: Corpus = "news",
    revision: str | None = None,
    variant: Literal["published", "open_unlearning"] = "published",
    parts: list[Literal["verbmem", "knowmem", "privleak"]] | None = None,
    attacks: list[str] | None = None,
    k: list[float] | None = None,
    window: int = 2048,
    retrained_auc: float | None = None,
    check_words: bool = True,
    summary: Literal["open_unlearning", "muse"] = "open_unlearning",
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    seed: int = 0,
) -> Task:
    """Ask what MUSE asks: passages to continue, questions after ten examples, texts to score.

    Args:
        encoder: whose tokenizer is used; its template is not.
        data: a folder in the layout of the hub's data set (``verbmem/forget.jsonl``,
            ``knowmem/forget_qa.json``, ``privleak/holdout-*.parquet``, ...), or one that holds
            ``news`` and ``books``; or the data set's name on the hub.
        corpus: ``news`` or ``books``.
        revision: of the hub's data set: a commit, a tag or a branch; None: main. The result says
            which commit was read.
        variant: ``published``: ROUGE-L F without stemmer, the first 128 ids of a passage are its
            reference, a BOS included. ``open_unlearning``: with stemmer, the whole passage, joined
            to its prompt by a blank; an extraction strength without the last token and never
            below 1/n; a gradient norm that is the mean over tensors.
        parts: of ``verbmem`` (C1), ``knowmem`` (C2, C4) and ``privleak`` (C3); None: all.
        attacks: names of membership attacks; None: all but ``gradnorm``, which costs a backward
            pass per text. ``reference`` comes with a reference model.
        k: shares of tokens for ``min_k`` and ``min_k++``, exact as decimals; the first, 0.4 where
            none is given, makes the headline.
        window: the most tokens of a text that are read at once; later windows start anew.
        retrained_auc: stands for a retrained model where there is none: its AUC of ``min_k``.
            MUSE's code has 0.4772 for its news, 0.5393 for its books; 0.5 has to be asked for too.
        check_words: see whether words alone tell the forget texts from the holdout texts (needs
            scikit-learn).
        summary: names of the summary: OpenUnlearning's, from 0 to 1, or MUSE's, times 100.
            Privacy leakage is times 100 in both.
        fluency: a folder or hub name of a classifier with the label ``clean``: how probable it is
            that what is written is language. None: that is not measured.
        entailment: of one of pairs with the label ``entailment``: whether an answer to a question
            entails the right one (of ``retain``: follows from it). None: that is not measured.
        seed: of the intervals.

    Raises:
        WagleError: data that is missing or malformed; a setting that does not fit; a classifier that is
            not there, is none or has not the label.
    """
    if window < 2:
        raise WagleError(f"window is {window}; a window holds a token and what it predicts: 2")
    chosen = list(dict.fromkeys(PARTS if parts is None else parts))
    if not chosen:
        raise WagleError("parts is empty; name some of verbmem, knowmem, privleak")
    if retrained_auc is not None and not 0 <= retrained_auc <= 1:
        raise WagleError(f"retrained_auc is {retrained_auc}; an AUC is from 0 to 1")
    check_reference(retrained_auc or 0, "a model with this retrained_auc")
    if entailment is not None and "knowmem" not in chosen:
        raise WagleError("entailment judges answers to questions; add knowmem to parts")
    writes = "verbmem" in chosen or "knowmem" in chosen
    judges = load_judges(fluency, entailment, length=LONG, writes=writes)
    how = _How(tokenizer_of(encoder, "muse"), variant == "open_unlearning", seed, judges)
    source = open_muse(data, corpus, revision)
    read = partial(muse_rows, source, corpus=corpus)
    made: list[Part] = []
    settings: dict[str, Any] = {"version": VERSION, "corpus": corpus, "variant": variant}
    settings |= judges.settings
    fits = None
    if "verbmem" in chosen:
        made.append(_verbatim(how, read("verbmem", "forget")))
    if "knowmem" in chosen:
        for name in ("forget", "retain"):
            shots = read("knowmem", f"{name}_qa_icl")
            made.append(_knowledge(how, name, read("knowmem", f"{name}_qa"), shots))
    if "privleak" in chosen:
        table = attack_table(attacks, k)
        if retrained_auc is not None and HEADLINE not in table:
            raise WagleError(f"retrained_auc is of the attack {HEADLINE}; add it to attacks")
        texts = {name: read("privleak", name) for name in ("forget", "holdout")}
        plain = {n: {p: row["text"] for p, row in rows.items()} for n, rows in texts.items()}
        note = compare_sets(plain, seed, words=check_words)
        settings |= {"window": window, "k": headline_share(table, k)}
        fits = partial(_fits, texts, list(table))
        made.append(_privacy(how, texts, table, window, retrained_auc, note))

    def measure(answers: Answers) -> Measured:
        figures: dict[str, dict[str, Figure]] = {}
        said: dict[str, list[Written]] = {}
        for one in (part.measure(answers) for part in made):
            for name, own in one.figures.items():
                figures.setdefault(name, {}).update(own)
            for name, written in one.texts.items():
                said.setdefault(name, []).extend(written)
        return Measured(figures, said, _summary(figures, summary))

    def against(own: Measured, reference: Measured) -> Measured:
        found = {OVERALL: leakage_figures(own.figures, reference.figures, seed=seed)}
        return Measured(found, summary=_summary(found, summary))

    return Task(
        [request for part in made for request in part.requests],
        measure,
        against if "privleak" in chosen else None,
        data={
            "corpus": corpus,
            "revision": source.used if isinstance(source, HubSet) else None,
            "variant": variant,
        },
        probes=[pair for part in chosen for pair in _PROBES[part]],
        records={name: texts for part in made for name, texts in part.records.items()},
        settings=settings,
        published=True,
        fits=fits,
    )


def _fits(
    texts: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str],
    found: Measured,
    role: str = "reference",
) -> None:
    """Refuse a reference that privacy leakage cannot be told against."""
    check_leakage(texts, labels, found.figures, role)


def _summary(figures: Mapping[str, Mapping[str, Figure]], names: str) -> dict[str, float | None]:
    """The figures there are under the names of another tool."""
    found = {}
    for key, (name, metric, factor) in _SUMMARY[names].items():
        figure = figures.get(name, {}).get(metric)
        if figure is not None:
            found[key] = None if figure.value is None else figure.value * factor
    return found


# ---------------------------------------------------------------------------------------------
# C1, C2 and C4: what the model writes


class _How(NamedTuple):
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
        """What ids say, without special tokens, otherwise untouched."""
        return text_of(self.tokenizer, ids)

    def score(self, expected: str, said: str) -> float:
        """ROUGE-L F of an answer."""
        return rouge(expected, said, stemmer=self.ou).f1

    def figure(self, rows: Mapping[str, float], unit: str, **more: Any) -> Figure:
        """The mean of ``rows``; a retrained model is the target unless ``more`` says otherwise."""
        return mean_figure(rows, unit=unit, seed=self.seed, **{"target": "reference", **more})


class _Asked(NamedTuple):
    """What the model is to write, and what it should (not) write."""

    place: str
    prompt: str
    expected: str
    greedy: Greedy


def _written(
    how: _How, metric: str, asked: Sequence[_Asked], answers: Answers, *, kept: bool = False
) -> tuple[dict[str, Figure], list[Written]]:
    """ROUGE of what was written, and how many answers are empty or hit the limit."""
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
    if metric == "verbmem":  # passages, of which none follows from another
        judges = replace(judges, entailment=None)
    target = None if kept else "reference"
    written = writing_figures(texts, how.seed, judges, gone=not kept, target=target)
    more = {f"{metric}_{name}": figure for name, figure in written.items()}
    figures = {metric: how.figure(rows, "ROUGE-L F", **aim), **more}
    return figures, texts


def _verbatim(how: _How, rows: Mapping[str, Mapping[str, str]]) -> Part:
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


def _greedy(how: _How, place: str, prompt: str, most: int) -> Greedy:
    return Greedy(how.ids(prompt), most, place)


def _continuation(how: _How, place: str, prompt: str, passage: str) -> Likelihood:
    """The passage after its prompt, tokenised as one text.

    A token across the border belongs to the prompt.
    """
    raw = raw_ids(how.tokenizer, prompt + (" " if how.ou else "") + passage)
    border = next((i for i, left in enumerate(raw.starts) if left >= len(prompt)), len(raw.ids))
    continuation = raw.ids[border:] if how.ou else raw.ids[border : border + _VERBATIM]
    if not continuation:
        raise WagleError(f"{place} has no token after its prompt; is gt more than a few letters?")
    return Likelihood((*raw.first, *raw.ids[:border]), continuation, place=place)


def _knowledge(
    how: _How,
    name: str,
    rows: Mapping[str, Mapping[str, str]],
    shots: Mapping[str, Mapping[str, str]],
) -> Part:
    """C2 (``forget``) and C4 (``retain``): questions after ten examples."""
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


# ---------------------------------------------------------------------------------------------
# C3: membership


def _privacy(
    how: _How,
    texts: Mapping[str, Mapping[str, Mapping[str, str]]],
    table: Mapping[str, Attack],
    window: int,
    retrained_auc: float | None,
    note: str | None,
) -> Part:
    """C3: what membership attacks ask of the texts to forget and of the holdout texts."""
    probes = {
        name: [
            probe_text(place, row["text"], how.ids, table, window) for place, row in rows.items()
        ]
        for name, rows in texts.items()
    }

    def measure(answers: Answers) -> Measured:
        figures = asked_figures(probes, answers, table, mean_norm=how.ou, note=note, seed=how.seed)
        if retrained_auc is not None:
            figures[OVERALL] |= assumed_leakage(figures, retrained_auc, seed=how.seed)
        return Measured(figures)

    requests = [r for made in probes.values() for probe in made for r in probe.requests]
    records = {
        f"privleak.{name}": {place: row["text"] for place, row in rows.items()}
        for name, rows in texts.items()
    }
    return Part(requests, measure, records)


# ---------------------------------------------------------------------------------------------
# C5 and C6: several evaluations


def scalability(evaluations: Mapping[int, Measured]) -> dict[int, Figure]:
    """C5: utility (C4) after unlearning 1, 2, 3, 4 folds of forget texts at once.

    Args:
        evaluations: ``muse``'s of the models, by the number of folds (``scal/forget_N``), each
            unlearned from the target model; 0 is the target model itself.

    Returns:
        The figures by number of folds, ascending; a flat curve is the goal.

    Raises:
        WagleError: no evaluation, one without C4, or over other questions.
    """
    return _curve(evaluations, "after {} folds of forget texts at once, from the target model")


def sustainability(evaluations: Mapping[int, Measured]) -> dict[int, Figure]:
    """C6: utility (C4) after 1, 2, 3, 4 requests in a row.

    Args:
        evaluations: ``muse``'s of the models, by the number of requests so far
            (``sust/forget_1`` to ``sust/forget_N``), each unlearned from the one before; 0 is the
            target model itself.

    Returns:
        The figures by number of requests, ascending; a flat curve is the goal.

    Raises:
        WagleError: no evaluation, one without C4, or over other questions.
    """
    return _curve(evaluations, "after {} requests in a row, each from the result before")


def _curve(evaluations: Mapping[int, Measured], note: str) -> dict[int, Figure]:
    if not evaluations:
        raise WagleError("a curve needs at least one evaluation")
    found: dict[int, Figure] = {}
    for fold in sorted(evaluations):
        figure = evaluations[fold].figures.get("retain", {}).get("knowmem")
        if figure is None:
            raise WagleError(f"evaluation {fold} has no retain.knowmem; evaluate the part knowmem")
        for other in list(found.values())[:1]:
            same_records(other.per_record, figure.per_record, f"a curve (evaluation {fold})")
        found[fold] = replace(figure, note=note.format(fold))
    return found
