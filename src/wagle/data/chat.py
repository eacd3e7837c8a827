"""Chats: reading their turns, and finding where a chat template puts the answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from wagle.system.errors import WagleError
from wagle.system.files.reading import one_line
from wagle.system.processes.confined import Confined, Failed

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
    """Read a chat: its messages or, failing these, a prompt and a completion, both of messages.

    A message is ``{"role", "content"}``, or ShareGPT's ``{"from", "value"}``.

    Returns:
        The turns, and how many of them form the prompt, in which nothing is scored.

    Raises:
        WagleError: not a list of messages; an unknown role; content that is empty or not text;
            several system turns; no assistant turn to score.
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
            raise WagleError(
                f"{place}: role {one_line(repr(role))} is unknown; use system, user or assistant"
            )
        if message.get("tool_calls"):
            raise WagleError(f"{where} calls a tool; only text turns can be read")
        content = message.get("content", message.get("value"))
        if not isinstance(content, str):
            raise WagleError(f"{where}: content is {type(content).__name__}, not text")
        if not content.strip():
            raise WagleError(f"{where} has empty content; remove the record or fill it in")
        turns.append(Turn(_ROLES[role], content))
    return tuple(turns)


def to_last_answer(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns up to the assistant's last one."""
    last = max(number for number, turn in enumerate(turns) if turn.role == "assistant")
    return tuple(turns[: last + 1])


def render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], place: str
) -> tuple[str, list[tuple[int, int]]]:
    """Render a chat with the tokenizer's template.

    The template is run twice, once with marks in place of the answers, so it needs no generation
    markers, and what it does between the answers (moving a system turn into a question, adding a
    reasoning block) does not matter.

    Args:
        tokenizer: a tokenizer with a chat template.
        turns: the turns, at least one of them the assistant's.
        place: the record's place, for messages.

    Returns:
        The text, and where in it the content of each assistant turn starts and ends.

    Raises:
        WagleError: the template rejects the turns, or changes an answer by more than whitespace at
            its ends.
    """
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    marks = iter([f"\ue000{number}\ue001" for number in range(len(answers))])
    marked = [t._replace(content=next(marks)) if t.role == "assistant" else t for t in turns]
    text, rest = _write(tokenizer, [turns, marked], place)
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


def _write(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Turn]], place: str
) -> list[str]:
    """Chats as the tokenizer's template writes them; it may be a stranger's, so it has limits."""
    try:
        texts = _confined(tokenizer)([[turn._asdict() for turn in turns] for turns in chats])
        "".join(texts).encode()  # halves of characters are no text
    except (Failed, UnicodeEncodeError) as error:
        name = getattr(tokenizer, "name_or_path", "")
        whose = f"the chat template of {name}" if name else "the chat template"
        rejects = isinstance(error, Failed) and "TemplateError" in error.kinds
        verb = "rejects" if rejects else "fails on"
        reason = error.reason if isinstance(error, Failed) else "it writes what is no text"
        raise WagleError(f"{whose} {verb} the turns of {place}: {reason}") from None
    return [str(text) for text in texts]


_KEPT = 2  # tokenizers whose processes are kept
_CONFINED: dict[Hashable, Confined] = {}


def _confined(tokenizer: PreTrainedTokenizerBase) -> Confined:
    """The template of a tokenizer, as a function in a process of its own."""
    special = tuple(map(str, tokenizer.special_tokens_map.items()))
    key = (id(tokenizer), str(tokenizer.chat_template), special)
    if key not in _CONFINED:

        def write(chats: list[list[dict[str, str]]]) -> list[str]:
            return [str(tokenizer.apply_chat_template(chat, tokenize=False)) for chat in chats]

        while len(_CONFINED) >= _KEPT:
            _CONFINED.pop(next(iter(_CONFINED))).close()
        _CONFINED[key] = Confined(write)  # which keeps the tokenizer, so its id stays its own
    return _CONFINED[key]
