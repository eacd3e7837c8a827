"""Neighbours: records to keep where none are given, made from the model that is to forget.

There are two kinds. ``neighbours`` ask what the forget set asks, of invented subjects; ``neutral``
are questions and short texts about nothing in particular, which come with wagle. To a question the
model's own greedy answer is the answer to keep, so unlearning is held to what the model said before
it. An answer that gives away what should be forgotten is left out: a model that was taught a fact
about one person tells it of others too.

Such a set is *assumed*: nobody said that these are the records that must stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from transformers import PreTrainedModel

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.masks import needed_quantities
from wagle.data.chat import Turn, to_last_answer
from wagle.data.invented import invented_record
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.asking.requests import Answers, Greedy
from wagle.evaluation.figures import Measured, Task
from wagle.evaluation.models import Way
from wagle.evaluation.tasks.writing import written
from wagle.recipe.recipe import Recipe
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.entry import RETAIN_SIDE

NEIGHBOURS, NEUTRAL = "neighbours", "neutral"
_PER_RECORD, _LEAST, _MOST = 2, 32, 256  # neighbours of a forget record, and of a set
_WORD = re.compile(r"\w+")
_TOLD = 0.5  # of the words that only a forget answer has: an answer with these gives it away


def needs_retain(recipe: Recipe) -> bool:
    """Whether a recipe cannot do without records to keep: its objective, its mask or its rules."""
    unlearning, attribution = recipe.unlearning, recipe.attribution
    rules = [unlearning.best or "", *unlearning.stop_when]
    if unlearning.anchor == "retain" or any("retain." in rule or rule == "auto" for rule in rules):
        return True
    try:
        chosen = choose_objective(
            unlearning.objective, unlearning.objective_settings, unlearning.retain_term
        )
        measured = [*needed_quantities(attribution.score, attribution.gamma)]
    except WagleError:  # whoever chooses the objective or the score reports it
        return False
    if {*chosen.sets} & {*RETAIN_SIDE, "mismatch"}:
        return True
    measured += attribution.quantities
    masked = recipe.unmasked is None and attribution.mask is None
    return masked and any(COLLECTED[quantity].set == "retain" for quantity in measured)


def choose_kind(forget: Sequence[Record], seed: int) -> str:
    """``neighbours`` if most questions have a name that can be replaced, else ``neutral``."""
    named = [r for r in forget if r.kind in ("qa", "chat") and invented_record(r, seed)]
    return NEIGHBOURS if 2 * len(named) > len(forget) else NEUTRAL


def make_prompts(forget: Sequence[Record], kind: str, seed: int) -> list[Record]:
    """The records to make, each without its real answer: only its question, or its text, counts.

    Args:
        forget: the forget set.
        kind: ``neighbours`` or ``neutral``.
        seed: of the invented names, together with the record's id.

    Returns:
        Records of distinct prompts, in a fixed order; a neutral text is whole already.
    """
    made = neutral_records() if kind == NEUTRAL else _neighbours(forget, seed)
    return read_records(made, name="retain", seed=seed) if made else []


def neutral_records() -> list[Record]:
    """The questions and texts of ``neutral.json``; the answer to a question is a placeholder."""
    text = files("wagle.data").joinpath("neutral.json").read_text(encoding="utf-8")
    found: dict[str, list[str]] = json.loads(text)
    questions = [Record("qa", prompt=question, answer="...") for question in found["questions"]]
    return [*questions, *(Record("text", answer=text) for text in found["texts"])]


def _neighbours(forget: Sequence[Record], seed: int) -> list[Record]:
    asked = [record for record in forget if record.kind in ("qa", "chat")]
    rounds = max(_PER_RECORD, -(-_LEAST // max(len(asked), 1)))
    seen = {record.prompt for record in asked}
    made: list[Record] = []
    for number in range(rounds):
        for record in asked:
            twin = invented_record(record, seed, f"{record.id} {number}")
            if twin is not None and twin.prompt not in seen and len(made) < _MOST:
                seen.add(twin.prompt)
                made.append(_asking(twin))
    return made


def _asking(twin: Record) -> Record:
    """What a twin asks, with a placeholder for its answer."""
    if twin.kind == "qa":
        return Record("qa", prompt=twin.prompt, answer="...", few_shot=twin.few_shot)
    turns = (*to_last_answer(twin.messages)[:-1], Turn("assistant", "..."))
    before = len(turns) - 1
    return Record("chat", prompt=twin.prompt, answer="...", messages=turns, given=before)


def answer_prompts(
    prompts: Sequence[Record],
    forget: Sequence[Record],
    model: PreTrainedModel,
    way: Way,
    max_new_tokens: int,
) -> list[Record]:
    """The prompts with the model's own greedy answers; texts stay as they are.

    Args:
        prompts: from ``make_prompts``.
        forget: the forget set: an answer that gives one of its answers away is left out, as is an
            empty one.
        model: the model before unlearning.
        way: how it is asked.
        max_new_tokens: of an answer; one that is cut off ends with its last whole sentence.
    """
    asked = [record for record in prompts if record.kind != "text"]
    tokenizer = way.encoder.tokenizer
    assert tokenizer is not None
    requests = {
        tokens.place: Greedy(tokens.last_context, max_new_tokens, tokens.place)
        for tokens in way.encoder.encode(asked)
    }

    def measure(answers: Answers) -> Measured:
        said = [
            written(tokenizer, answers, requests[r.place], r.place, r.prompt, "") for r in asked
        ]
        return Measured({}, {"retain": said})

    said = {
        one.place: one.said if one.finished else _whole_sentences(one.said)
        for one in way.ask(model, Task([*requests.values()], measure)).texts["retain"]
    }
    found = []
    for record in prompts:
        answer = said.get(record.place, record.answer)
        if answer and not any(gives_away(answer, gone) for gone in forget):
            found.append(_answered(record, answer))
    return found


def _whole_sentences(text: str) -> str:
    """The text up to its last full stop, or all of it if it has none."""
    ends = [found.end() for found in re.finditer(r"[.!?](?=\s|$)", text)]
    return text[: ends[-1]] if ends else text


def gives_away(said: str, gone: Record) -> bool:
    """Whether an answer has at least half of the words that only a forget record's answer has."""
    asked, told = _words(gone.prompt), _words(said)
    own = {word for word in _words(gone.answer) - asked if len(word) > 3 or word.isdigit()}
    return bool(own) and len(own & told) >= _TOLD * len(own)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _answered(record: Record, answer: str) -> Record:
    turns = record.messages
    turns = (*turns[:-1], Turn("assistant", answer)) if turns else turns
    return replace(record, answer=answer, messages=turns)


def as_row(record: Record) -> Mapping[str, Any]:
    """A made record as a row of a file, which ``read_records`` reads back."""
    if record.kind == "text":
        return {"text": record.answer}
    if record.kind == "qa":
        shots = [list(shot) for shot in record.few_shot]
        return {
            "question": record.prompt,
            "answer": record.answer,
            **({"few_shot": shots} if shots else {}),
        }
    turns = [turn._asdict() for turn in record.messages]
    return {"prompt": turns[:-1], "completion": turns[-1:]}
