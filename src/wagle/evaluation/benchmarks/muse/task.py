"""The benchmark ``muse``: six criteria for a model that should forget news articles or books.

C1 verbatim memorisation: it continues passages to forget. C2 knowledge memorisation: it answers
questions about them after ten examples. C3 privacy leakage: membership attacks on texts to forget
and texts never seen, compared with a retrained model. C4 utility: C2 on questions to keep. C5
scalability, C6 sustainability: C4 over growing forget sets and over requests in a row. Everything
is asked as plain text, even of chat models. ``VERSION`` is raised with every new definition.

Source: Shi et al. 2024, arXiv 2407.06460.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from wagle.data.hub import HubSet
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers
from wagle.evaluation.benchmarks.muse.corpus import Corpus, muse_rows, open_muse
from wagle.evaluation.benchmarks.muse.parts import How, Part, knowledge, membership, verbatim
from wagle.evaluation.figures import OVERALL, Figure, Measured, Task, Written
from wagle.evaluation.judges.classifiers import LONG, load_judges
from wagle.evaluation.membership.leakage import leakage_figures
from wagle.evaluation.tasks.raw import tokenizer_of
from wagle.metrics.membership import check_reference
from wagle.system.errors import WagleError

VERSION = 3
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
_NAMES = {"published": "muse", "open_unlearning": "open_unlearning"}  # whose, by variant
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
    summary: Literal["open_unlearning", "muse"] | None = None,
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    seed: int = 0,
) -> Task:
    """Ask what MUSE asks: passages to continue, questions after ten examples, texts to score.

    Args:
        encoder: its tokenizer is used, its template is not.
        data: a folder in the layout of the hub's data set (``verbmem/forget.jsonl``,
            ``knowmem/forget_qa.json``, ``privleak/holdout-*.parquet``, ...), or one that holds
            ``news`` and ``books``; or the data set's name on the hub.
        corpus: ``news`` or ``books``.
        revision: revision of the hub's data set: a commit, a tag or a branch; None: ``main``. The
            result says which commit was read.
        variant: ``published``: ROUGE-L F without a stemmer; the first 128 ids of a passage are its
            reference, including a BOS. ``open_unlearning``: with a stemmer; the whole passage,
            joined to its prompt by a blank; an extraction strength without the last token and never
            below 1/n; of a text, the first window, whose last token counts only for the attacks on
            the mean (``loss``, ``zlib``, ``reference``); a gradient norm that is the mean over
            tensors.
        parts: which of ``verbmem`` (C1), ``knowmem`` (C2, C4) and ``privleak`` (C3); None: all.
        attacks: names of membership attacks; None: all except ``gradnorm``, which takes a backward
            pass per text. ``reference`` comes with a reference model.
        k: shares of tokens for ``min_k`` and ``min_k++``, exact as decimals; the first, or 0.4 if
            none is given, is the one in the headline.
        window: the most tokens of a text that are read at once; later windows start afresh.
        retrained_auc: stands in for a retrained model if there is none: its AUC of ``min_k``.
            MUSE's code has 0.4772 for its news, 0.5393 for its books; 0.5 has to be asked for too.
        check_words: check whether words alone tell the forget texts from the holdout texts (extra
            ``eval``).
        summary: names used in the summary; None: those of the variant's tool. ``open_unlearning``,
            from 0 to 1, names only that variant's figures, ``muse``, times 100, only those of
            ``published``: a figure under a tool's name is that tool's. Privacy leakage is times 100
            in both.
        fluency: a folder or hub name of a classifier with the label ``clean``: the probability that
            what is written is language. None: not measured.
        entailment: a folder or hub name of a classifier of text pairs with the label
            ``entailment``: whether an answer to a question entails the right one (for ``retain``:
            follows from it). None: not measured.
        seed: for the intervals.

    Raises:
        WagleError: data that is missing or malformed; a setting that does not fit; a classifier
            that is missing, is no classifier or lacks the label.
    """
    chosen = list(dict.fromkeys(PARTS if parts is None else parts))
    _check(chosen, window, retrained_auc, entailment)
    names = _names(variant, summary)
    writes = "verbmem" in chosen or "knowmem" in chosen
    judges = load_judges(fluency, entailment, length=LONG, writes=writes)
    how = How(tokenizer_of(encoder, "muse"), variant == "open_unlearning", seed, judges)
    source = open_muse(data, corpus, revision)
    read = partial(muse_rows, source, corpus=corpus)
    made: list[Part] = []
    if "verbmem" in chosen:
        made.append(verbatim(how, read("verbmem", "forget")))
    if "knowmem" in chosen:
        made += [knowledge(how, name, read) for name in ("forget", "retain")]
    if "privleak" in chosen:
        made.append(membership(how, read, attacks, k, window, retrained_auc, check_words))
    used = source.used if isinstance(source, HubSet) else None
    settings: dict[str, Any] = {"version": VERSION, "corpus": corpus, "variant": variant}
    for more in (judges.settings, *(part.settings for part in made)):
        settings |= more
    return Task(
        [request for part in made for request in part.requests],
        partial(_measure, made, names),
        partial(_against, names, seed) if "privleak" in chosen else None,
        data={"corpus": corpus, "revision": used, "variant": variant},
        probes=[pair for part in chosen for pair in _PROBES[part]],
        records={name: texts for part in made for name, texts in part.records.items()},
        settings=settings,
        published=True,
        fits=next((part.fits for part in made if part.fits is not None), None),
    )


def _names(variant: str, summary: str | None) -> str:
    """Whose names the summary takes: a tool's are given only to figures of its definition."""
    names = _NAMES[variant]
    if summary not in (None, names):
        raise WagleError(
            f"summary {summary} names figures of another definition than those of the variant "
            f"{variant}; leave it out, or take the variant that it belongs to"
        )
    return names


def _check(
    chosen: Sequence[str],
    window: int,
    retrained_auc: float | None,
    entailment: str | Path | None,
) -> None:
    """Refuse settings that do not fit together."""
    if window < 2:
        raise WagleError(f"window is {window}; a window needs at least 2 tokens")
    if not chosen:
        raise WagleError("parts is empty; name some of verbmem, knowmem, privleak")
    if retrained_auc is not None and not 0 <= retrained_auc <= 1:
        raise WagleError(f"retrained_auc is {retrained_auc}; an AUC is from 0 to 1")
    check_reference(retrained_auc or 0, "a model with this retrained_auc")
    if entailment is not None and "knowmem" not in chosen:
        raise WagleError("entailment judges answers to questions; add knowmem to parts")


def _measure(made: Sequence[Part], names: str, answers: Answers) -> Measured:
    figures: dict[str, dict[str, Figure]] = {}
    said: dict[str, list[Written]] = {}
    for one in (part.measure(answers) for part in made):
        for name, own in one.figures.items():
            figures.setdefault(name, {}).update(own)
        for name, written in one.texts.items():
            said.setdefault(name, []).extend(written)
    return Measured(figures, said, _summary(figures, names))


def _against(names: str, seed: int, own: Measured, reference: Measured) -> Measured:
    found = {OVERALL: leakage_figures(own.figures, reference.figures, seed=seed)}
    return Measured(found, summary=_summary(found, names))


def _summary(figures: Mapping[str, Mapping[str, Figure]], names: str) -> dict[str, float | None]:
    """The available figures under the names of another tool."""
    found = {}
    for key, (name, metric, factor) in _SUMMARY[names].items():
        figure = figures.get(name, {}).get(metric)
        if figure is not None:
            found[key] = None if figure.value is None else figure.value * factor
    return found
