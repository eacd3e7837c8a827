"""An entry in the table of scores: a function and its properties."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from wagle.attribution.quantities import COLLECTED
from wagle.system.errors import WagleError

Function: TypeAlias = Callable[..., Tensor]
Dominated: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]
QUANTITIES = ("weight", *COLLECTED, "uniform")


@dataclass(frozen=True)
class Score:
    """An entry in SCORES, whose key there is the name of the score.

    Attributes:
        function: computes the scores. Its signature says what it needs: ``quantities`` and
            ``settings``.
        scope: the scope in which a ratio is selected if the scope asked for is ``auto``.
        retain_term: for a score that weighs the weight against a retain term, that term, from the
            same quantities and settings: the weight term dominates where ``|theta|`` is larger.
    """

    function: Function
    scope: str = "global"
    retain_term: Function | None = None

    @property
    def quantities(self) -> list[str]:
        """What it reads for every weight."""
        return needs(self.function).quantities

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings with their defaults, including those that are chosen from the data."""
        return needs(self.function).settings

    def dominated(self, settings: Mapping[str, Any]) -> Dominated | None:
        """Where the weight term dominates, as a function of the values that the score reads."""
        if self.retain_term is None:
            return None
        term, asked = self.retain_term, needs(self.retain_term)
        own = {name: settings[name] for name in asked.settings}
        return lambda values: (
            values["weight"].abs() > term(**{q: values[q] for q in asked.quantities}, **own).abs_()
        )


class Needs(NamedTuple):
    """What a score needs, from its signature: quantities, and settings with their defaults."""

    quantities: list[str]
    settings: dict[str, Any]


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def needs(function: Function) -> Needs:
    """The quantities and settings that a score needs, from its signature."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise WagleError(
            f"the parameters of the score {function_name(function)!r} cannot be read; wrap it in a "
            f"function of {', '.join(QUANTITIES)}"
        ) from None
    found = Needs([], {})
    for name, parameter in parameters.items():
        if name in QUANTITIES and parameter.kind not in _BY_NAME:
            raise WagleError(
                f"the score {function_name(function)!r} does not take {name!r} by name, as scores are "
                "called; make it an ordinary parameter"
            )
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found.settings[name] = parameter.default
        elif name in QUANTITIES:
            found.quantities.append(name)
        else:
            raise WagleError(f"a score cannot ask for {name!r} (known: {', '.join(QUANTITIES)})")
    if not found.quantities:
        raise WagleError(
            f"the score {function_name(function)!r} asks for nothing; its parameters must be among "
            f"{', '.join(QUANTITIES)}"
        )
    return found


def function_name(function: Function) -> str:
    """The name, in messages and masks, of a score that is a user's function."""
    return getattr(function, "__name__", "custom")
