"""Nested mappings by dotted keys: ``a.b.c``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one; where both have a value, ``above`` has the last word."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        found[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return found


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, by its dotted key; an empty mapping is one."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def find(data: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value of a dotted key, or the default."""
    here: Any = data
    for part in key.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return default
        here = here[part]
    return here


def put(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The mapping with another value of a dotted key."""
    first, _, rest = key.partition(".")
    if not rest:
        return {**data, first: value}
    inner = data.get(first)
    return {**data, first: put(inner if isinstance(inner, Mapping) else {}, rest, value)}


def without(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping without a dotted key."""
    first, _, rest = key.partition(".")
    if not rest:
        return {name: value for name, value in data.items() if name != first}
    inner = data.get(first)
    return {**data, first: without(inner, rest)} if isinstance(inner, Mapping) else dict(data)
