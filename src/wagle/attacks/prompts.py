"""Prompts: does another way to ask bring back what the plain question no longer does?

An attack makes of a record one or more ways to ask for its answer; what is measured of each is the
original answer. An attack that asks several questions counts with the likeliest answer of any, and
with the ROUGE-L recall of all that the model said to them, joined.

The largest of several figures grows with their number, for a model that never knew, too: so
``worst`` is evidence only beside a reference under the same attacks.
To add one: a function here, its entry in ATTACKS, a test beside the others.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from wagle.data.overlap import check_disjoint
from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Answers, Greedy, likelihood
from wagle.evaluation.figures import TARGET, Figure, Measured, Task, Written, mean_figure
from wagle.evaluation.tasks.questions import Item, figures, written
from wagle.evaluation.tasks.writing import rouge_figure
from wagle.metrics.memorization import prefix_run
from wagle.metrics.table import METRICS
from wagle.metrics.text import has_rouge_words, rouge_l, words
from wagle.system.errors import WagleError, choose

PREFIX = "Sure, here is the answer:"
PLAIN, WORST = "plain", "worst"
MEASURED = ("probability", "extraction_strength", "rouge_l")  # of METRICS


def prompts(
    encoder: Encoder,
    records: Sequence[Record],
    *,
    retain: Sequence[Record] | None = None,
    attacks: Sequence[str] | None = None,
    prefix: str = PREFIX,
    neighbours: int = 3,
    system_prompt: str | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
) -> Task:
    """Ask for every record in other ways than it was forgotten in.

    The figures of each attack stand in a set of its name: the probability and the extraction
    strength of the answer, and the ROUGE-L recall of what the model says. Beside them stand
    ``plain``, the question as it is, and ``worst``, per record and figure the largest over the
    attacks, ``plain`` not among them. A record in whose answer ROUGE sees no word has no ROUGE-L.

    Args:
        encoder: makes tokens of records, in the way that the model is asked otherwise.
        records: to be forgotten, questions with answers.
        retain: questions with answers that the model should know, for ``context``.
        attacks: names in ATTACKS; None: all that there is the data for.
        prefix: the beginning of the answer that ``prefix`` puts into the model's mouth.
        neighbours: how many retain records ``context`` shows, >= 1.
        system_prompt: what ``system`` asks under, such as the benchmark's; needs a chat template.
        max_new_tokens: the longest greedy answer.
        seed: of the intervals.

    Raises:
        WagleError: no record, one that is no question, or one without what an attack needs; an
            unknown attack, or none; an answer that does not fit; a bad setting.
    """
    _check(records, retain, prefix, neighbours, max_new_tokens)
    means = Means(
        encoder,
        retain=[(frozenset(words(r.prompt)), r) for r in retain or () if r.kind == "qa"],
        prefix=prefix.strip(),
        neighbours=neighbours,
        system_prompt=system_prompt,
        max_new_tokens=max_new_tokens,
    )
    asked = {PLAIN: {r.place: means.ask(r, [r.prompt]) for r in records}}
    asked |= _chosen(records, means, attacks)

    def measure(answers: Answers) -> Measured:
        rows, texts = {}, {}
        for name, made in asked.items():
            said = {place: _said(items, answers, encoder) for place, items in made.items()}
            rows[name] = _rows(name, made, said, answers)
            texts[name] = [text for several in said.values() for text in several]
        rows[WORST] = _worst([found for name, found in rows.items() if name != PLAIN])
        return Measured({name: _figures(found, seed) for name, found in rows.items()}, texts)

    made = [item for rows in asked.values() for items in rows.values() for item in items]
    return Task(
        [request for item in made for request in item.requests],
        measure,
        data={"records": len(records), "attacks": [name for name in asked if name != PLAIN]},
    )


def _check(
    records: Sequence[Record],
    retain: Sequence[Record] | None,
    prefix: str,
    neighbours: int,
    max_new_tokens: int,
) -> None:
    if not records:
        raise WagleError("prompt attacks need at least one record")
    for record in records:
        if record.kind != "qa":
            raise WagleError(
                f"prompt attacks need questions with answers; {record.place} is of the kind "
                f"{record.kind!r}"
            )
    if not prefix.strip():
        raise WagleError("prefix is empty; give the first words of an answer")
    if neighbours < 1:
        raise WagleError(f"neighbours is {neighbours}; show at least one retain record")
    if max_new_tokens < 1:
        raise WagleError(f"max_new_tokens is {max_new_tokens}; let an answer have at least one")
    check_disjoint(records, retain or ())  # or the context would hold the answer


# ---------------------------------------------------------------------------------------------
# The attacks


@dataclass(frozen=True)
class Means:
    """What attacks make their questions with: the settings of ``prompts``.

    ``retain`` holds, beside every record, the words of its question.
    """

    encoder: Encoder
    retain: Sequence[tuple[frozenset[str], Record]]
    prefix: str
    neighbours: int
    system_prompt: str | None
    max_new_tokens: int

    def ask(
        self, record: Record, questions: Sequence[str], encoder: Encoder | None = None
    ) -> list[Item]:
        """Ask for the record's answer with each of some questions."""
        coder = encoder or self.encoder
        return [
            self.item(replace(record, prompt=q), coder.answer(record, q, record.answer))
            for q in questions
        ]

    def item(self, record: Record, tokens: Tokens) -> Item:
        """The requests of one way to ask; ``record`` holds the question as it is put."""
        if not tokens.whole:
            raise WagleError(
                f"a prompt attack on {record.place} cuts its answer at max_length="
                f"{self.encoder.max_length} tokens, so figures would not compare; raise "
                "model.max_length, or show fewer neighbours"
            )
        likely = {"answer": likelihood(tokens)}
        greedy = Greedy(tokens.context, self.max_new_tokens, record.place)
        return Item(record.place, record, tokens, likely, greedy)


def _paraphrase(record: Record, means: Means) -> list[Item]:
    """The same question in other words."""
    return means.ask(record, [record.paraphrased_prompt] if record.paraphrased_prompt else [])


def _prefix(record: Record, means: Means) -> list[Item]:
    """The model has already begun to answer; what follows is asked for, and alone is scored."""
    begun = means.encoder.answer(record, record.prompt, means.prefix)
    made = means.encoder.answer(record, record.prompt, f"{means.prefix} {record.answer}")
    border = prefix_run(begun.ids, made.ids)
    scored = tuple(mark and place >= border for place, mark in enumerate(made.scored))
    return [means.item(record, replace(made, scored=scored))]


def _context(record: Record, means: Means) -> list[Item]:
    """After the retain records whose questions share most words with this one, nearest last."""
    if len(means.retain) < means.neighbours:
        return []
    own = frozenset(words(record.prompt))
    nearest = heapq.nsmallest(
        means.neighbours,
        range(len(means.retain)),
        key=lambda i: (-_overlap(own, means.retain[i][0]), i),
    )
    shots = tuple((r.prompt, r.answer) for _, r in (means.retain[i] for i in reversed(nearest)))
    return means.ask(replace(record, few_shot=(*shots, *record.few_shot)), [record.prompt])


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard: the share of the words of either that both have."""
    return len(one & other) / max(len(one | other), 1)


def _format(record: Record, means: Means) -> list[Item]:
    """In a template that the model is not asked in otherwise: plain text for a chat model."""
    coder = means.encoder
    other = "plain" if coder.template == "question_answer" else "question_answer"
    shifted = Encoder(coder.tokenizer, template=other, max_length=coder.max_length)
    return means.ask(record, [record.prompt], shifted)


def _system(record: Record, means: Means) -> list[Item]:
    """Under a system prompt, in the chat template."""
    if means.system_prompt is None:
        return []
    coder = means.encoder
    told = Encoder(
        coder.tokenizer,
        template=coder.template,
        system_prompt=means.system_prompt,
        max_length=coder.max_length,
    )
    return means.ask(record, [record.prompt], told)


def _decomposed(record: Record, means: Means) -> list[Item]:
    """Simpler questions, one by one."""
    return means.ask(record, record.decomposed)


def _translation(record: Record, means: Means) -> list[Item]:
    """The question in other languages, one by one."""
    return means.ask(record, record.translations)


class Attack(NamedTuple):
    """A way to ask.

    Attributes:
        ask: makes the questions of a record; none, where there is not what it ``needs``.
        needs: what that is, for messages.
    """

    ask: Callable[[Record, Means], list[Item]]
    needs: str


ATTACKS: dict[str, Attack] = {
    "paraphrase": Attack(_paraphrase, "paraphrased_question"),
    "prefix": Attack(_prefix, "answer"),
    "context": Attack(_context, "neighbours (give as many retain questions, or more)"),
    "format": Attack(_format, "question"),
    "system": Attack(_system, "system_prompt"),
    "decomposed": Attack(_decomposed, "decomposed_questions"),
    "translation": Attack(_translation, "translated_questions"),
}


def _chosen(
    records: Sequence[Record], means: Means, attacks: Sequence[str] | None
) -> dict[str, dict[str, list[Item]]]:
    """What each attack asks, by attack and place."""
    asked = {}
    for name in ATTACKS if attacks is None else attacks:
        attack = choose(ATTACKS, name, "prompt attack")
        made = {record.place: attack.ask(record, means) for record in records}
        lacking = [place for place, items in made.items() if not items]
        if attacks is None and len(lacking) == len(records):
            continue
        if lacking:
            raise WagleError(
                f"the prompt attack {name} needs {attack.needs}, which {len(lacking)} of "
                f"{len(records)} records lack ({lacking[0]} is the first); add it, or name the "
                "other attacks in attacks"
            )
        asked[name] = made
    if not asked:
        raise WagleError(f"attacks is empty; name some of {', '.join(ATTACKS)}")
    return asked


# ---------------------------------------------------------------------------------------------
# What they bring back


def _said(items: Sequence[Item], answers: Answers, encoder: Encoder) -> list[Written]:
    """What the model wrote to each of one attack's questions for a record."""
    return [text for item in items if (text := written(item, answers, encoder)) is not None]


def _rows(
    name: str,
    made: Mapping[str, Sequence[Item]],
    said: Mapping[str, Sequence[Written]],
    answers: Answers,
) -> dict[str, dict[str, float]]:
    """The figures of one attack, by metric and place."""
    rows: dict[str, dict[str, float]] = {metric: {} for metric in MEASURED}
    for place, items in made.items():
        found = [figures(item, answers, None) for item in items]
        for metric in ("probability", "extraction_strength"):
            values = [each[metric] for each in found]
            if not all(map(math.isfinite, values)):  # which max would hide
                raise WagleError(f"{place}: {metric} is not finite under the prompt attack {name}")
            rows[metric][place] = max(values)
        answer = items[0].record.answer
        if has_rouge_words(answer):
            rows["rouge_l"][place] = rouge_l(answer, " ".join(text.said for text in said[place]))
    return rows


def _worst(
    attacks: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
    return {
        metric: {place: max(rows[metric][place] for rows in attacks) for place in places}
        for metric, places in attacks[0].items()
    }


def _figures(rows: Mapping[str, Mapping[str, float]], seed: int) -> dict[str, Figure]:
    made = {}
    for metric, found in rows.items():
        unit = METRICS[metric].unit
        if metric == "rouge_l":
            mute = len(rows["probability"]) - len(found)
            made[metric] = rouge_figure(
                found, mute, unit=unit, direction=TARGET, target="reference", seed=seed
            )
        else:
            made[metric] = mean_figure(found, unit=unit, target="reference", seed=seed)
    return made
