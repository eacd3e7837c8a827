"""What is asked about records, their twins, and their answers after other records' questions.

Every answer is scored three times: after its own question, after the question of another record,
and after the paraphrased question, if its record has one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Answers, Likelihood, likelihood
from wagle.evaluation.figures import Measured, Task
from wagle.evaluation.knowing.twins import Twins, make_twins, other_questions
from wagle.evaluation.models import Way
from wagle.metrics.likelihood import probability
from wagle.metrics.memorization import exact_memorization
from wagle.system.errors import WagleError

Values = NDArray[np.float64]
FIGURES = {
    "probability": "probability per token",
    "exact_memorization": "share of tokens",
    "paraphrased": "probability per token",
}
"""What is measured of every record and twin, with its unit."""


class Readings(NamedTuple):
    """One figure of one model; NaN where a record lacks what it needs.

    Attributes:
        records: (n,) float64, a value per record.
        twins: (K, n), those of its twins.
        swapped: (n,), those of the same answers after other records' questions.
        twins_swapped: (K, n), the same of the twins.
    """

    records: Values
    twins: Values
    swapped: Values
    twins_swapped: Values


class Speed(NamedTuple):
    """How fast a model answered: padded or shared tokens are counted once per request."""

    tokens: int
    seconds: float


@dataclass(frozen=True)
class _Item:
    """The requests about one record or twin; the windows of a long text are several."""

    own: Sequence[Likelihood]
    closed: bool
    swapped: Likelihood | None = None
    paraphrased: Likelihood | None = None

    @property
    def requests(self) -> list[Likelihood]:
        more = [one for one in (self.swapped, self.paraphrased) if one is not None]
        return [*self.own, *more]


@dataclass(frozen=True)
class Questions:
    """Everything that is asked: the same of every model.

    Attributes:
        twins: the records that have twins, and these.
        items: the requests: those of the records, then those of each set of twins.
        tokens: how many tokens the records have, for estimates.
    """

    twins: Twins
    items: Sequence[Sequence[_Item]]
    tokens: int

    def ask(self, model: PreTrainedModel, way: Way) -> tuple[dict[str, Readings], Speed]:
        """The readings of a model by figure, and how fast it gave them."""
        requests = [r for items in self.items for item in items for r in item.requests]
        found: dict[str, Readings] = {}

        def measure(answers: Answers) -> Measured:
            found.update(_readings(self.items, answers))
            return Measured({})

        started = time.perf_counter()
        way.ask(model, Task(requests, measure))
        seconds = time.perf_counter() - started
        return found, Speed(sum(len(r.context) + len(r.continuation) for r in requests), seconds)


def make_questions(
    records: Sequence[Record], encoder: Encoder, *, twins: int, seed: int = 0
) -> Questions:
    """Prepare what is asked about records.

    Args:
        records: of any kind but ``tokens``.
        encoder: of the model.
        twins: how many twins each record gets, at least 2.
        seed: of the draws.

    Raises:
        WagleError: no record has a twin: none names anything that could be replaced.
    """
    if twins < 2:
        raise WagleError(f"{twins} twins per record show no spread; ask for at least 2")
    made = make_twins(records, twins, seed, length=lambda record: len(_tokens(encoder, record)))
    if not made.records:
        raise WagleError(
            f"none of the {len(records)} records names anything (a person, a place, a title), so "
            "none has an invented twin to be compared with; give records that name their subject"
        )
    others = other_questions(made.records, seed)
    items = [_items(group, others, encoder) for group in (made.records, *made.sets)]
    return Questions(made, items, sum(len(_tokens(encoder, record)) for record in made.records))


def _tokens(encoder: Encoder, record: Record) -> list[int]:
    return [i for made in encoder.encode([record]) for i in made.ids]


def _items(
    records: Sequence[Record], others: Sequence[int | None], encoder: Encoder
) -> list[_Item]:
    made = []
    for record, other in zip(records, others, strict=True):
        encoded = [encoder.replaced(record, record.answer)] if record.kind == "chat" else None
        encoded = encoded or encoder.encode([record])
        swapped = None if other is None else _put_to(records[other], record, encoder)
        paraphrased = None
        if record.kind == "qa" and record.paraphrased_prompt:
            asked = encoder.answer(record, record.paraphrased_prompt, record.answer)
            paraphrased = likelihood(asked)
        made.append(
            _Item(
                [likelihood(tokens) for tokens in encoded],
                encoded[-1].closed,
                None if swapped is None else likelihood(swapped),
                paraphrased,
            )
        )
    return made


def _put_to(other: Record, record: Record, encoder: Encoder) -> Tokens:
    """A record's answer after another record's question."""
    asked = replace(other, id=f"{other.id}<{record.id}", place=record.place)
    return encoder.replaced(asked, record.answer)


def _readings(items: Sequence[Sequence[_Item]], answers: Answers) -> dict[str, Readings]:
    """(figure, record) values of the records, then of each set of twins."""
    rows = [[_values(item, answers) for item in group] for group in items]
    found = {}
    for name in FIGURES:
        own, swapped = (
            np.array([[values.get(key, np.nan) for values in group] for group in rows])
            for key in (name, f"{name} swapped")
        )
        found[name] = Readings(own[0], own[1:], swapped[0], swapped[1:])
    return found


def _values(item: _Item, answers: Answers) -> Mapping[str, float]:
    """The figures of one record or twin that it has what it takes for."""
    found = {}
    own = [answers.likelihood(request) for request in item.own]
    count = sum(len(one.token_nll) for one in own)
    found["probability"] = probability(sum(one.total for one in own) / count)
    hits = [hit for one in own for hit in one.hit.tolist()]
    hits = hits[: len(hits) - item.closed]
    if hits:
        found["exact_memorization"] = exact_memorization(hits)
    if item.swapped is not None:
        found["probability swapped"] = probability(answers.likelihood(item.swapped).mean)
    if item.paraphrased is not None:
        found["paraphrased"] = probability(answers.likelihood(item.paraphrased).mean)
    return found
