"""The parts of a function's docstring, for pages that are generated from the code."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple


class Told(NamedTuple):
    """The parts of a docstring, as Markdown.

    Attributes:
        summary: the text before the first section.
        settings: the description of each argument.
        source: where the idea comes from, or "" if the docstring does not say.
    """

    summary: str
    settings: dict[str, str]
    source: str


def told(function: Callable[..., Any]) -> Told:
    """Read a docstring in Google's style.

    Args:
        function: the function whose docstring to read.
    """
    text = inspect.getdoc(function) or ""
    head = re.split(r"\n(?:Args|Returns|Raises|Source):", text)[0]
    summary = "\n\n".join(" ".join(part.split()) for part in head.strip().split("\n\n"))
    found = re.search(r"\nSource: (.*)", text, re.S)
    arguments = re.search(r"\nArgs:\n(.*?)(?:\n\n|\Z)", text, re.S)
    settings = {}
    for one in re.split(r"\n    (?=\w+: )", "\n" + (arguments[1] if arguments else "")):
        key, _, meaning = one.strip().partition(": ")
        if key:
            settings[key] = _markdown(" ".join(meaning.split()))
    source = " ".join(found[1].split()) if found else ""
    return Told(_markdown(summary), settings, source)


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def settings_table(function: Callable[..., Any], hidden: Collection[str] = ()) -> list[str]:
    """The settings of a function, one per row, with their defaults and meanings.

    Args:
        function: the function whose keywords are the settings.
        hidden: parameters that are not settings.
    """
    meanings = told(function).settings
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in hidden:
            meaning = meanings.get(name, "")
            meaning = meaning[:1].upper() + meaning[1:]
            lines.append(f"| `{name}` | {_default(parameter)} | {meaning} |")
    return lines


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return "required"
    if value == "":
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"
