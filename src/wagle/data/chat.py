"""Chats: turns as they are read, and where a chat template puts the answers among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError

from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROLES = {name: name for name in ("system", "user", "assistant")}
_ROLES |= {"human": "user", "gpt": "assistant"}  # as ShareGPT calls them
_SHAPES: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)


class Turn(NamedTuple):
    """One message of a chat; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


def parse_chat(
    messages: Any, prompt: Any, completion: Any, place: str
) -> tuple[tuple[Turn, ...], int]:
    """Read a chat: its messages or, without these, a prompt and a completion of messages.

    A message is ``{"role", "content"}``, or ShareGPT's ``{"from", "value"}``.

    Returns:
        The turns, and how many of them are the prompt, in which nothing is scored.

    Raises:
        WagleError: what is no list of messages; an unknown role; content that is empty or no text;
            several system turns; no assistant turn that could be scored.
    """
    what = "completion" if messages is None else "messages"
    given = _turns(prompt, "prompt", place) if messages is None else ()
    rest = _turns(completion if messages is None else messages, what, place)
    turns = (*given, *rest)
    if sum(turn.role == "system" for turn in turns) > 1:
        raise WagleError(f"{place} has several system turns; join them into one")
    if not any(turn.role == "assistant" for turn in rest):
        raise WagleError(f"{place}: {what} has no assistant turn, so nothing would be scored")
    return turns, len(given)


def _turns(value: Any, field: str, place: str) -> tuple[Turn, ...]:
    if not isinstance(value, list | tuple):
        raise WagleError(f"{place}: {field} is {type(value).__name__}, not a list of messages")
    turns = []
    for number, message in enumerate(value):
        where = f"{place}: {field}[{number}]"
        if not isinstance(message, Mapping):
            raise WagleError(f"{where} is {type(message).__name__}, not a role with a content")
        role = message.get("role", message.get("from"))
        if not isinstance(role, str) or role not in _ROLES:
            raise WagleError(f"{place}: role {role!r} is unknown; use system, user or assistant")
        if message.get("tool_calls"):
            raise WagleError(f"{where} calls a tool; only turns of text can be read")
        content = message.get("content", message.get("value"))
        if not isinstance(content, str):
            raise WagleError(f"{where}: content is {type(content).__name__}, not text")
        if not content.strip():
            raise WagleError(f"{where} has an empty content; remove the record or fill it in")
        turns.append(Turn(_ROLES[role], content))
    return tuple(turns)


def to_last_answer(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns up to the last one of the assistant."""
    last = max(number for number, turn in enumerate(turns) if turn.role == "assistant")
    return tuple(turns[: last + 1])


def render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], place: str
) -> tuple[str, list[tuple[int, int]]]:
    """Write a chat with the tokenizer's template.

    The template is run twice, once with marks in place of the answers: so a template needs no
    generation markers, and what it does between the answers (a system turn moved into a question,
    a reasoning block) does not matter.

    Args:
        tokenizer: with a chat template.
        turns: at least one of the assistant.
        place: of the record, for messages.

    Returns:
        The text, and for every assistant turn where its content starts and ends there.

    Raises:
        WagleError: the template refuses the turns, or changes an answer by more than blanks at its
            ends.
    """
    text = _write(tokenizer, turns, place)
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    marks = iter([f"\ue000{number}\ue001" for number in range(len(answers))])
    marked = [t._replace(content=next(marks)) if t.role == "assistant" else t for t in turns]
    rest = _write(tokenizer, marked, place)
    pieces = []
    for number in range(len(answers)):
        piece, _, rest = rest.partition(f"\ue000{number}\ue001")
        pieces.append(piece)
    for shape in _SHAPES:
        written, spans = "", []
        for piece, answer in zip(pieces, answers, strict=True):
            start = len(written) + len(piece)
            written += piece + shape(answer)
            spans.append((start, len(written)))
        if written + rest == text:
            return text, spans
    raise WagleError(f"the chat template changes the answer of {place}; choose a named template")


def _write(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], place: str) -> str:
    try:
        return str(
            tokenizer.apply_chat_template([turn._asdict() for turn in turns], tokenize=False)
        )
    except TemplateError as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise WagleError(f"the chat template refuses the turns of {place}: {reason[0]}") from None
