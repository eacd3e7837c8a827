"""The benchmark ``knowundo``: is what should go gone, and is what lies close to it still there?

Its questions to unlearn and to retain come from the same domain (copyright or privacy), so a model
that forgets too much is found out. ``VERSION`` is raised with every new definition.

Source: Tian et al. 2024, arXiv 2407.01920.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Greedy, Request, likelihood
from wagle.evaluation.benchmarks.knowundo.figures import SETS, Asked, measure
from wagle.evaluation.comparable import asked_text, template_settings
from wagle.evaluation.figures import Task
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.tasks.raw import raw_ids, tokenizer_of
from wagle.evaluation.tasks.rows import read_rows, words_of
from wagle.system.errors import WagleError

VERSION = 3
HUB = "zjunlp/KnowUnDo"
_PROBES = [("unlearn", "accuracy"), ("unlearn", "rouge_l")]
_PUBLISHED_LENGTH = 256  # tokens


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
    those before), ``nll`` and ``perplexity`` (exp of its mean over records), and for the greedy
    answers ROUGE-L and the language score, whose perplexity is the mean perplexity of the right
    answers. ``overall`` has the unlearn success (100 minus the accuracy) and the retention success.

    Args:
        encoder: its tokenizer is used, and in the variant ``official`` its template.
        data: a local copy of the hub's ``zjunlp/KnowUnDo``: ``privacy/unlearn.json`` and
            ``privacy/retention.json`` (or .jsonl, .parquet), or the same without the folder of the
            domain. Each holds one row with the lists ``train`` and ``val``, or the rows themselves:
            {text, labels}, a question and its answer.
        domain: ``copyright`` or ``privacy``.
        part: which of the two lists.
        variant: ``official``: the model's template; the answer is scored, its end of turn only in
            the perplexity. ``published``: no template but question, blank line and answer; the
            blank line is scored, there is no EOS, and 256 tokens are read.
        direct_prompt: put before every question, such as a request to refuse anything sensitive.
        generate: also generate greedy answers.
        max_new_tokens: the longest of these.
        fluency: a folder or hub name of a classifier with the label ``clean``: the probability that
            an answer is language. None: not measured.
        entailment: a folder or hub name of a classifier of text pairs with the label
            ``entailment``: whether an answer entails the right one (for ``retention``: follows from
            it). None: not measured.
        seed: for the intervals.

    Raises:
        WagleError: a file or field that is missing; a question that leaves no room for an answer; a
            classifier that is missing, is no classifier or lacks the label.
    """
    tokenizer = tokenizer_of(encoder, "knowundo")
    judges = load_judges(fluency, entailment, writes=generate)
    most = max_new_tokens if generate else None
    asked = {
        name: [
            _ask(encoder, replace(record, prompt=direct_prompt + record.prompt), variant, most)
            for record in _records(data, domain, name, part)
        ]
        for name in SETS
    }
    requests: list[Request] = []
    for one in (one for own in asked.values() for one in own):
        requests += [one.likely, *([one.greedy] if one.greedy else [])]
    return Task(
        requests,
        partial(measure, tokenizer, asked, judges, seed),
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
            "max_new_tokens": most,
            **judges.settings,
        },
        published=True,
    )


def _ask(encoder: Encoder, record: Record, variant: str, most: int | None) -> Asked:
    """One question; ``most`` limits the greedy answer, None asks for none."""
    if variant == "published":
        tokenizer = tokenizer_of(encoder, "knowundo")
        tokens = _published(tokenizer, record.place, record.prompt, record.answer)
    else:
        tokens = encoder.answer(record, record.prompt, record.answer)
    greedy = None if most is None else Greedy(tokens.last_context, most, tokens.place)
    return Asked(record, likelihood(tokens), tokens.closed, greedy)


def _published(tokenizer: PreTrainedTokenizerBase, place: str, prompt: str, answer: str) -> Tokens:
    """Question, blank line, answer: everything after the question is scored, with no EOS."""
    first, ids, starts = raw_ids(tokenizer, f"{prompt}\n\n{answer}")
    marks = [False] * len(first) + [start >= len(prompt) for start in starts]
    marks[0] = False
    if not any(marks[:_PUBLISHED_LENGTH]):
        raise WagleError(
            f"the question of {place} leaves no room for an answer within {_PUBLISHED_LENGTH} "
            "tokens, all that the variant published reads; use official"
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
    """The list ``part`` of the single row that holds both lists, or the rows as they are."""
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
