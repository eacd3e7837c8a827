"""Stand-ins: what is compared with, and what is kept, where nobody gave it; and how it is marked.

Without a reference, the model from before it was taught serves if the recipe knows one. Else there
are *twins*: the forget records about invented subjects, asked of the model before unlearning. What
that model gives to answers that it cannot know is about what it will give to forgotten ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wagle.data.draws import uniform
from wagle.data.invented import invented_record
from wagle.data.records import Record

STAND_IN = "stand-in"
BASE, TWINS = "base", "twins"
_SAID = {
    BASE: "The reference is a stand-in: the model before it was taught or adapted, which may lack "
    "more than the forget set.",
    TWINS: "The reference is a stand-in: twins of the forget records, about invented subjects, asked "
    "of the model itself.",
}
BETTER = (
    "A better reference never learned the forget set and all the rest: set reference: retrained, "
    "teach the base without the forget set, or name the folder of such a model."
)
_ASSUMED = {
    "neighbours": "The retain set is assumed: made from the model's own answers to what the forget "
    "set asks, about invented subjects.",
    "neutral": "The retain set is assumed: made from the model's own answers to neutral questions, "
    "and neutral texts.",
}
_ENOUGH = 0.5  # of the records must have a twin, so that the others do not decide


def assumptions(details: Mapping[str, Any]) -> tuple[str, ...]:
    """What the reader of a verdict must know: whether reference and retain set are stand-ins.

    Args:
        details: those of the result of the model after unlearning.
    """
    reference = details.get("reference")
    said = [BETTER] if reference is None else []
    if reference is not None and reference.get("kind") == STAND_IN:
        said = [_SAID[reference.get("of", TWINS)], BETTER]
    kind = (details.get("assumed") or {}).get("retain")
    return (*said, *([] if kind is None else [_ASSUMED[kind]]))


def make_twins(forget: Sequence[Record], seed: int) -> list[Record] | None:
    """A twin for every forget record, in their order; None if these records have none.

    A twin's answer is its record's, about the invented subject and with other numbers, which leaves
    what is neither a name nor a number as it is; or one of the record's wrong answers, if these have
    the form of its answer: without a paraphrased answer, whose form they would have. A record whose
    question has no name is asked as it is, for such a wrong answer or that of another record.

    Args:
        forget: questions or chats; other records have no twins.
        seed: of the invented names and of the draws, together with the record's id.
    """
    if len(forget) < 2 or any(record.kind not in ("qa", "chat") for record in forget):
        return None
    twins = [invented_record(record, seed) for record in forget]
    sure = sum(bool(t or _alike(r)) for r, t in zip(forget, twins, strict=True))
    if sure < _ENOUGH * len(forget):
        return None
    return [_twin(record, twin, forget, seed) for record, twin in zip(forget, twins, strict=True)]


def _alike(record: Record) -> tuple[str, ...]:
    """The wrong answers that have the form of the answer itself."""
    return () if record.paraphrased_answer else record.perturbed_answers


def _twin(record: Record, twin: Record | None, forget: Sequence[Record], seed: int) -> Record:
    whole = record if twin is None else twin
    wrong = _alike(whole)
    if wrong:
        answer = wrong[int(uniform(seed, "twin answer", record.id) * len(wrong))]
    elif twin is None:
        others = [one.answer for one in forget if one.answer != record.answer] or [record.answer]
        answer = others[int(uniform(seed, "twin answer", record.id) * len(others))]
    else:
        answer = whole.answer
    turns = whole.messages
    turns = (*turns[:-1], turns[-1]._replace(content=answer)) if turns else turns
    return replace(
        whole,
        id="",
        answer=answer,
        messages=turns,
        paraphrased_answer=None,
        perturbed_answers=(),
        alternatives=(),
    )
