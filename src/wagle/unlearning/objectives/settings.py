"""Settings of an objective: its defaults with the given values over them, checked before any work.

A default determines what its setting may be: a number is finite and >= 0, a whole number stays
whole, and a text, true or false, and a list of texts keep their type. An objective's check covers
the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from wagle.system.errors import no_setting

Check: TypeAlias = Callable[[Mapping[str, Any]], "str | None"]
"""From all settings to what is wrong with them, or None."""


def positive(name: str) -> Check:
    """A check that a setting, if there is one of this name, is not 0, because it is a divisor."""

    def check(settings: Mapping[str, Any]) -> str | None:
        value = settings.get(name, 1)
        return None if value > 0 else f"{name} is {value!r}; give a number > 0"

    return check


def merge(what: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with the given values over them.

    Args:
        what: whose settings they are, for messages ("objective npo").
        defaults: all settings with their defaults.
        given: the settings that override them.

    Raises:
        WagleError: a given setting does not exist.
    """
    for key in given:
        if key not in defaults:
            raise no_setting(what, key, defaults, near="; nearest: {}")
    return {**defaults, **given}


def problem(value: Any, default: object) -> str | None:
    """What a setting must be according to its default, if it is not that; else None."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "give true or false"
    if isinstance(default, int | float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            return "give a number >= 0"
        return "give a whole number" if isinstance(default, int) and value % 1 else None
    if isinstance(default, str):
        return None if isinstance(value, str) else "give a text"
    texts = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    return None if texts else "give a list of texts"
