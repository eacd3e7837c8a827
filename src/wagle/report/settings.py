"""Settings in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def described(name: str, settings: Mapping[str, Any], between: str = " ") -> str:
    """A name with its settings.

    Args:
        name: the name of an objective, score or benchmark.
        settings: the settings by name; without any, the name stands alone.
        between: what separates the members of a list.
    """
    return f"{name} ({listed(settings, between)})" if settings else name


def listed(settings: Mapping[str, Any], between: str = " ") -> str:
    """Settings in one line, with ``between`` separating the members of a list."""
    return ", ".join(f"{key} {_value(value, between)}" for key, value in settings.items())


def _value(value: Any, between: str) -> str:
    if isinstance(value, list):
        return between.join(_value(one, between) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
