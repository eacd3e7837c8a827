"""Building blocks of attacks: which records to ask, how many, and what the answers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from wagle.attacks.shapes import ASIS, Scene, Series, Trial
from wagle.data.draws import subset
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Figure, Measured, Task
from wagle.system.errors import WagleError


def those_that_ask(
    records: Sequence[Record], attack: str, kinds: Sequence[str] = ("qa", "chat")
) -> list[Record]:
    """The records that ask something.

    Args:
        records: the records; at least one.
        attack: the attack's name, for messages.
        kinds: the kinds of records that it can ask.

    Raises:
        WagleError: none of them asks anything.
    """
    found = [record for record in records if record.kind in kinds]
    if not found:
        raise WagleError(
            f"the attack {attack} needs questions with answers; {records[0].place} is of the kind "
            f"{records[0].kind!r}, and so are the others: leave it out"
        )
    return found


def at_most(limit: int, records: Sequence[Record], seed: int) -> list[Record]:
    """At most ``limit`` of the records, drawn by (seed, record), under their own places.

    Args:
        limit: how many, at least 1; all if there are no more.
        records: to draw from.
        seed: for the draw.
    """
    if limit < 1:
        raise WagleError(f"limit is {limit}; use at least one record")
    if limit >= len(records):
        return list(records)
    return [records[i] for i in subset(seed, "take", [r.id for r in records], limit)]


def question_contexts(
    encoder: Encoder, records: Sequence[Record], attack: str
) -> list[tuple[int, ...]]:
    """The ids that precede each record's answer.

    Args:
        encoder: makes tokens of records.
        records: questions or chats.
        attack: the attack's name, for messages.

    Raises:
        WagleError: there is no record, or one is not a question.
    """
    if not records:
        raise WagleError(f"the attack {attack} needs at least one record")
    for record in records:
        if record.kind not in ("qa", "chat"):
            raise WagleError(
                f"the attack {attack} needs questions with answers; {record.place} is of the kind "
                f"{record.kind!r}"
            )
    return [tokens.last_context for tokens in encoder.encode(records)]


def ask_once(scene: Scene, task: Task, start: str | None = None) -> Trial:
    """A trial that only asks: its states are the sets of the task.

    Args:
        scene: says how models are asked.
        task: says what they are asked.
        start: the set that is the model as it is; None if an attack only observes.
    """

    def trial(model: PreTrainedModel) -> Series:
        found = scene.way.ask(model, task)
        return Series(found.figures, start, found.texts, {"asked": {**task.data}})

    return trial


def as_series(found: Mapping[str, Measured]) -> Series:
    """What an attack found that asks the same in every state; the first is ``as it is``."""
    texts = {
        f"{state}, {name}": said for state, m in found.items() for name, said in m.texts.items()
    }
    return Series({state: flat(m) for state, m in found.items()}, ASIS, texts)


def flat(found: Measured) -> dict[str, Figure]:
    """The figures of all sets, each under ``SET.FIGURE``."""
    return {f"{name}.{m}": f for name, figures in found.figures.items() for m, f in figures.items()}
