"""Values of OpenUnlearning's config, each of the kind that it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wagle.recipe.published.dotted import find
from wagle.recipe.values import shown
from wagle.system.errors import WagleError

_MOST = 2**62  # whole numbers are counts and seeds


def mapping(config: Mapping[str, Any], key: str, *, needed: bool = True) -> Mapping[str, Any]:
    """The section of a config under a dotted key; empty if it is absent and not needed."""
    found = find(config, key)
    if found is None and not needed:
        return {}
    if not isinstance(found, Mapping):
        said = "is missing" if found is None else f"is {shown(found)}"
        raise WagleError(f"{key} {said}; it must be a section with values")
    return found


def number(key: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WagleError(f"{key} is {shown(value)}; it must be a number")
    return float(value)


def whole(key: str, value: Any, least: int | None = None) -> int:
    """A whole number, which may have a least value."""
    found = number(key, value)
    if found != int(found) or abs(found) > _MOST or (least is not None and found < least):
        above = "" if least is None else f" of at least {least}"
        raise WagleError(f"{key} is {shown(value)}; it must be a whole number{above}")
    return int(found)


def text(key: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise WagleError(f"{key} is {shown(value)}; it must be text")
    return value
