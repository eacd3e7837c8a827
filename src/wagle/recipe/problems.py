"""What is wrong with a recipe, in one line that names the setting."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.base import Section, item_of, section_of
from wagle.recipe.values import shown
from wagle.system.errors import nearest
from wagle.system.files.reading import one_line

_LINE = 1000  # characters of a message
_LONGEST = 100  # characters of a name that is compared with settings


def explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first problem in document order, and how many more there are."""
    problems = error.errors(include_url=False)
    order = _Order()
    first = min(problems, key=lambda e: order.of(e["loc"], data))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    line = " ".join(_problem(first).split())
    return (line if len(line) <= _LINE else f"{line[: _LINE - 3]}...") + more


class _Order:
    """The order of the keys in a document; a section may have as many unknown ones as fit in it."""

    def __init__(self) -> None:
        self._places: dict[int, dict[str, int]] = {}  # by section

    def of(self, loc: Sequence[int | str], data: Any) -> list[int]:
        """Where a key stands in the document; missing keys come after those present."""
        place = []
        for part in loc:
            if isinstance(data, Mapping):
                known = self._known(data)
                place.append(known.get(str(part), len(data)))
                data = data.get(part)
            elif isinstance(part, int):
                place.append(part)
        return place

    def _known(self, section: Mapping[Any, Any]) -> dict[str, int]:
        if id(section) not in self._places:
            known: dict[str, int] = {}
            for number, key in enumerate(section):
                known.setdefault(str(key), number)
            self._places[id(section)] = known
        return self._places[id(section)]


def _dotted(loc: Sequence[int | str]) -> str:
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part != "[key]"
    ]
    return "".join(parts).removeprefix(".")


_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_MUST = {
    "bool_type": "it must be true or false",
    "dict_type": "it must be a mapping, such as {name: value}",
    "finite_number": "it must be a finite number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "int_type": "it must be a whole number",
    "list_type": "it must be a list, such as [a, b]",
    "string_too_short": "it must not be empty",
    "string_type": "it must be text",
    "too_short": "it must not be empty",
}


def _problem(error: ErrorDetails) -> str:
    """One pydantic error in our words: the key, its value, what is allowed."""
    kind, context, loc = error["type"], error.get("ctx", {}), error["loc"]
    key = _dotted(loc)
    if kind == "refused":
        own = context["key"]
        dot = "." if key and own else ""
        return f"{key}{dot}{own} {context['said']}"
    if kind in {"extra_forbidden", "invalid_key"}:
        return _unknown(tuple(loc))
    if kind == "missing":
        return f"{key} is missing; every {_owner(loc)} needs it"
    value = shown(error["input"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        guess = nearest(error["input"], allowed) if isinstance(error["input"], str) else None
        hint = f"nearest: {guess!r}" if guess else f"it must be {context['expected']}"
        return f"{key} is {value}; {hint}"
    if kind in _LIMITS:
        word, limit = _LIMITS[kind]
        return f"{key} is {value}; it must be {word} {context[limit]:g}"
    if kind in {"model_type", "model_attributes_type"}:
        return f"{key or 'the recipe'} is {value}; it must be a section: settings with their values"
    quotes = ", so put it in quotes" if kind == "string_type" and _is_scalar(error["input"]) else ""
    return f"{key} is {value}; {_MUST.get(kind, error['msg'].lower())}{quotes}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _owner(loc: Sequence[int | str]) -> str:
    return {"path": "model", "source": "set of records"}.get(str(loc[-1]), "recipe")


def _keys(section: type[Section] = Recipe, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = section_of(field.annotation) or item_of(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _unknown(loc: tuple[int | str, ...]) -> str:
    """Name the nearest key: in the same section first, then everywhere."""
    wrong = str(loc[-1])
    prefix = "".join(f"{part}." for part in loc[:-1] if not isinstance(part, int))
    keys = list(_keys())
    own = [k for k in keys if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    near = wrong[:_LONGEST]
    close = get_close_matches(near, [k.removeprefix(prefix) for k in own], n=1, cutoff=0.75)
    guess = close[0] if close else nearest(near, {_last(key) for key in keys})
    found = [k for k in own if _last(k) == guess] or [k for k in keys if _last(k) == guess][:2]
    hint = f"; nearest: {' or '.join(found)}" if found else ""
    return f"{one_line(_dotted((*loc[:-1], wrong)))} is not a setting{hint}"
