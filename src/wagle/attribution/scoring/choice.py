"""A score chosen by name or given as a function, with its settings checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wagle.attribution.scoring.entry import Function, Score, function_name
from wagle.attribution.scoring.scores import SCORES, by_gamma
from wagle.attribution.scoring.unscored import read_mapping
from wagle.mask.mask import Mask
from wagle.recipe.rules import UNSCORED
from wagle.system.errors import WagleError, no_setting
from wagle.system.plugins import find

_FROM_DATA = ("gamma", "damping")


class Chosen(NamedTuple):
    """A score, and its name in messages and masks."""

    name: str
    entry: Score

    def __str__(self) -> str:
        return f"the score {self.name!r}"


def choose_score(score: str | Function) -> Chosen:
    """The entry for a name; a function is made into one.

    A function with ``gamma`` that takes the weight and the retain gradient gets the retain term of
    ``wagle``.
    """
    if isinstance(score, str):
        found = find(SCORES, score, "score")
        return Chosen(score, found if isinstance(found, Score) else _entry_of(found))
    if not callable(score):
        raise WagleError(
            f"score is {score!r}; give a name ({', '.join(SCORES)}), a function, or a mapping with "
            f"one key ({', '.join(UNSCORED)})"
        )
    return Chosen(function_name(score), _entry_of(score))


def _entry_of(function: Function) -> Score:
    """An entry made of a function."""
    entry = Score(function)
    if "gamma" in entry.settings and {"weight", "grad_retain"} <= set(entry.quantities):
        return Score(function, retain_term=by_gamma)
    return entry


def score_settings(score: Chosen, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a score that are not chosen from the data: its defaults, then ``given``."""
    known = {n: v for n, v in score.entry.settings.items() if n not in _FROM_DATA}
    for name, value in given.items():
        if name in _FROM_DATA:
            raise WagleError(f"{name} does not belong in a score's settings; give it as {name}=")
        if name not in known:
            raise no_setting(str(score), name, known)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise WagleError(f"the setting {name} of {score} is {value!r}; it must be a number")
    found = {**known, **given}
    missing = [n for n, value in found.items() if value is inspect.Parameter.empty]
    if missing:
        raise WagleError(f"{score} needs a setting {missing[0]!r}; add it to its settings")
    return found


def check_score(
    score: str | Function | Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> None:
    """Check before any work that a score and its settings exist, and the mask it names."""
    if not isinstance(score, Mapping):
        score_settings(choose_score(score), settings or {})
        return
    kind, value = read_mapping(score)
    if settings:
        raise WagleError(f"the score {kind!r} has no settings; remove {next(iter(settings))!r}")
    if isinstance(value, str | Path):
        Mask.load(value)
