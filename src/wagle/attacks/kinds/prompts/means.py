"""The ways to ask: each turns a record into one or more questions for its answer.

To add one: a function here, its entry in WAYS_TO_ASK, and a test next to the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Greedy, likelihood
from wagle.evaluation.tasks.questions import Item
from wagle.metrics.memorization import prefix_run
from wagle.metrics.text import words
from wagle.system.errors import WagleError

PREFIX = "Sure, here is the answer:"


@dataclass(frozen=True)
class Means:
    """What attacks make their questions from: the settings of ``prompts``.

    ``retain`` holds every record with the words of its question.
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
        """Ask for the record's answer with each of the questions."""
        coder = encoder or self.encoder
        return [
            self.item(replace(record, prompt=q), coder.answer(record, q, record.answer))
            for q in questions
        ]

    def item(self, record: Record, tokens: Tokens) -> Item:
        """The requests of one way to ask; ``record`` holds the question as it is asked."""
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
    """The model has already begun to answer; only what follows is asked for and scored."""
    begun = means.encoder.answer(record, record.prompt, means.prefix)
    made = means.encoder.answer(record, record.prompt, f"{means.prefix} {record.answer}")
    border = prefix_run(begun.ids, made.ids)
    scored = tuple(mark and place >= border for place, mark in enumerate(made.scored))
    return [means.item(record, replace(made, scored=scored))]


def _context(record: Record, means: Means) -> list[Item]:
    """After the retain records whose questions share most words with this one, closest last."""
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
    """Jaccard: the share of all words that both have."""
    return len(one & other) / max(len(one | other), 1)


def _format(record: Record, means: Means) -> list[Item]:
    """In a template that the model is not otherwise asked in: plain text for a chat model."""
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


class WayToAsk(NamedTuple):
    """A way to ask.

    Attributes:
        ask: makes the questions for a record; none if it lacks what this way ``needs``.
        needs: what that is, for messages.
    """

    ask: Callable[[Record, Means], list[Item]]
    needs: str


WAYS_TO_ASK: dict[str, WayToAsk] = {
    "paraphrase": WayToAsk(_paraphrase, "paraphrased_question"),
    "prefix": WayToAsk(_prefix, "answer"),
    "context": WayToAsk(_context, "neighbours (give as many retain questions, or more)"),
    "format": WayToAsk(_format, "question"),
    "system": WayToAsk(_system, "system_prompt"),
    "decomposed": WayToAsk(_decomposed, "decomposed_questions"),
    "translation": WayToAsk(_translation, "translated_questions"),
}
