"""Records: each is one item of data, a question with an answer, a chat, a text or tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from wagle.data.chat import Turn, parse_chat, to_last_answer
from wagle.system.errors import WagleError, nearest
from wagle.system.files.reading import one_line
from wagle.system.moved import moved

if TYPE_CHECKING:
    from datasets import Dataset


Read: TypeAlias = "Iterator[tuple[int | None, Mapping[str, Any]]]"  # with the line number, if known
Source: TypeAlias = "str | Path | Sequence[Mapping[str, Any]] | Sequence[Record] | Dataset"


@dataclass(frozen=True)
class Record:
    """One item of data: a question with an answer, a chat, a text, or a pre-tokenised record.

    Attributes:
        kind: ``qa``, ``chat``, ``text`` or ``tokens``.
        prompt: the question (``qa``; ``chat``: the last user turn before the last answer), or an
            unscored beginning (``text``).
        answer: the answer (``qa``; ``chat``: the last assistant turn) or the text (``text``).
        paraphrased_prompt: the same question in other words, never trained on.
        paraphrased_answer: the same answer in other words.
        perturbed_answers: wrong answers of the same form.
        alternatives: other answers that an objective may teach instead.
        decomposed: simpler questions whose answers together make the answer; never trained on.
        translations: the same question in other languages, never trained on.
        refusal: the answer that refusal objectives teach; drawn per (seed, id) if none is given.
        few_shot: (question, answer) pairs that come before the question.
        messages: the turns (``chat``).
        given: how many turns come before the first scored one (``chat``); of the rest, the
            assistant's are scored.
        input_ids: the tokens (``tokens``).
        labels: the tokens to score, -100 elsewhere, unshifted (``tokens``).
        id: 16 hex digits of SHA-256 over the content, with ``#n`` for exact repeats. Internal:
            for a short record it can be guessed, so it never leaves a private folder.
        place: where the record is, as messages show it: ``forget[17]``.
        domain: which of several joined sources it comes from.
        weight: how often its source is drawn relative to the others; None means by its size.
    """

    kind: str
    prompt: str = ""
    answer: str = ""
    paraphrased_prompt: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    decomposed: tuple[str, ...] = ()
    translations: tuple[str, ...] = ()
    refusal: str = ""
    few_shot: tuple[tuple[str, str], ...] = ()
    messages: tuple[Turn, ...] = ()
    given: int = 0
    input_ids: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    id: str = ""
    place: str = ""
    domain: int = 0
    weight: float | None = None

    @property
    def content_id(self) -> str:
        """The id without the number that distinguishes exact repeats."""
        return self.id.partition("#")[0]

    def content(self) -> dict[str, Any]:
        """The fields that define the record, without its id and its place."""
        names = {"id", "place", "refusal", "domain", "weight"}
        if self.kind == "chat":
            names |= {"prompt", "answer"}  # the messages contain these
        own = {k: v for k, v in vars(self).items() if k not in names}
        return {k: v for k, v in own.items() if v}


_ALIASES = {
    "prompt": ("question", "prompt", "instruction"),
    "answer": ("answer", "response", "completion", "gt"),
    "paraphrased_prompt": ("paraphrased_question", "paraphrased_prompt"),
    "paraphrased_answer": ("paraphrased_answer",),
    "perturbed_answers": ("perturbed_answer", "perturbed_answers"),
    "alternatives": ("alternatives", "alternative"),
    "decomposed": ("decomposed", "decomposed_questions"),
    "translations": ("translations", "translated_questions"),
    "refusal": ("refusal",),
    "few_shot": ("few_shot",),
    "messages": ("messages", "conversations"),
    "text": ("text",),
    "prefix": ("prefix",),
    "input_ids": ("input_ids",),
    "labels": ("labels",),
}
FIELD = {alias: field for field, aliases in _ALIASES.items() for alias in aliases}
LISTS = {
    "perturbed_answers",
    "alternatives",
    "decomposed",
    "translations",
    "few_shot",
    "messages",
    "input_ids",
    "labels",
}
_NOT_OF_CHATS = (
    "few_shot",
    "paraphrased_prompt",
    "paraphrased_answer",
    "perturbed_answers",
    "decomposed",
    "translations",
)
_SHOWN = 20  # names of fields in a message
_TOKENS = 2**31  # more than any tokenizer has
_NOT_FIELDS = re.compile(r"^(option\d+|id|metadata|attention_mask|source|title|url|doi|subject)$")


def parse_record(row: Mapping[str, Any], place: str) -> Record:
    """Make a record from a dict in any of the known shapes; errors name what is missing.

    Raises:
        WagleError: an empty text, question or answer; neither ``text`` nor a question with an
            answer nor ``messages`` nor ``input_ids`` with ``labels``; an invalid chat; labels that
            score nothing.
    """
    if not isinstance(row, Mapping):
        raise WagleError(
            f"{place} is {type(row).__name__}, not a dict; if this is a DatasetDict, give one split"
        )
    got = {FIELD[k]: v for k, v in row.items() if k in FIELD and v is not None}
    if "input_ids" in got:
        return _token_record(got, place)
    if "messages" in got or any(_are_messages(got.get(field)) for field in ("prompt", "answer")):
        return _chat_record(got, place)
    if "text" in got:
        text = _words(got, "text", place)
        return Record("text", prompt=str(got.get("prefix", "")), answer=text, place=place)
    if "prompt" not in got or "answer" not in got:
        names = sorted(map(str, row))
        keys = [k for k in names[:_SHOWN] if not _NOT_FIELDS.match(k)]
        hints = [
            f"{k!r} looks like {n!r}" for k in keys if k not in FIELD and (n := nearest(k, FIELD))
        ]
        listed = f"{[one_line(n) for n in names[:_SHOWN]]}" + ", ..." * (len(names) > _SHOWN)
        raise WagleError(
            f"{place} has the fields {listed}; a record needs question and answer, or "
            f"messages, or text, or input_ids and labels"
            + (f" ({'; '.join(hints)})" if hints else "")
        )
    return Record(
        "qa",
        prompt=_words(got, "prompt", place),
        answer=_words(got, "answer", place),
        paraphrased_prompt=_optional(got, "paraphrased_prompt", place),
        paraphrased_answer=_optional(got, "paraphrased_answer", place),
        perturbed_answers=_several(got, "perturbed_answers", place),
        alternatives=_several(got, "alternatives", place),
        decomposed=_several(got, "decomposed", place),
        translations=_several(got, "translations", place),
        refusal=str(got.get("refusal", "")),
        few_shot=_shots(got.get("few_shot", ()), place),
        place=place,
    )


def _words(got: Mapping[str, Any], field: str, place: str) -> str:
    value = got[field]
    if not isinstance(value, str):
        raise WagleError(f"{place}: {field} is {type(value).__name__}, not text")
    if not value.strip():
        raise WagleError(f"{place} has an empty {field}; remove the record or fill it in")
    return value


def _optional(got: Mapping[str, Any], field: str, place: str) -> str | None:
    return _words(got, field, place) if got.get(field) else None


def _several(got: Mapping[str, Any], field: str, place: str) -> tuple[str, ...]:
    value = got.get(field, ())
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise WagleError(f"{place}: {field} is {type(value).__name__}, not a list of texts")
    return tuple(str(v) for v in value)


def _shots(value: Any, place: str) -> tuple[tuple[str, str], ...]:
    pairs = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise WagleError(f"{place}: few_shot must be a list of [question, answer] pairs")
    return tuple((str(q), str(a)) for q, a in pairs)


def _are_messages(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _chat_record(got: Mapping[str, Any], place: str) -> Record:
    more = [field for field in _NOT_OF_CHATS if got.get(field)]
    if more:
        raise WagleError(
            f"{place}: {more[0]} cannot be used with messages; refusal and alternatives can"
        )
    turns, given = parse_chat(got.get("messages"), got.get("prompt"), got.get("answer"), place)
    *before, last = to_last_answer(turns)
    asked = [turn.content for turn in before if turn.role == "user"]
    return Record(
        "chat",
        prompt=asked[-1] if asked else "",
        answer=last.content,
        alternatives=_several(got, "alternatives", place),
        refusal=str(got.get("refusal", "")),
        messages=turns,
        given=given,
        place=place,
    )


def _token_record(got: Mapping[str, Any], place: str) -> Record:
    try:
        ids = tuple(int(i) for i in got["input_ids"])
        labels = tuple(int(i) for i in got.get("labels", ()))
    except (TypeError, ValueError, OverflowError):
        raise WagleError(f"{place}: input_ids and labels must be lists of whole numbers") from None
    odd = next((i for i in ids if not 0 <= i < _TOKENS), None)
    if odd is not None:
        raise WagleError(f"{place}: {one_line(str(odd))} is not the id of a token")
    if not ids or len(ids) != len(labels):
        raise WagleError(
            f"{place} has {len(ids)} input_ids and {len(labels)} labels; give as many labels, "
            "unshifted, -100 where nothing is scored"
        )
    wrong = [i for i, (a, b) in enumerate(zip(ids, labels, strict=True)) if b not in (-100, a)]
    if wrong:
        raise WagleError(f"{place}: label {wrong[0]} is neither -100 nor its own input id")
    if all(label == -100 for label in labels[1:]):
        raise WagleError(f"{place} has no scored token: every label (after the first) is -100")
    return Record("tokens", input_ids=ids, labels=labels, place=place)


__getattr__ = moved(__name__, {"read_records": "data.reading"})
