"""An entry of the table of scores: a function, and what goes with it."""

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
    """An entry of SCORES: its key there is the name of the score.

    Attributes:
        function: the scores. What it asks for is in its signature: ``quantities`` and ``settings``.
        scope: within what a ratio is selected where the scope is ``auto``.
        retain_term: of a score that sets the weight against a retain term, that term, from the same
            quantities and settings: the weight term dominates where ``|theta|`` is the larger.
    """

    function: Function
    scope: str = "global"
    retain_term: Function | None = None

    @property
    def quantities(self) -> list[str]:
        """What it reads of every weight."""
        return needs(self.function).quantities

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings with their defaults, those among them that are chosen from the data."""
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
    """What a score asks for, from its signature: quantities, and settings with their defaults."""

    quantities: list[str]
    settings: dict[str, Any]


def needs(function: Function) -> Needs:
    """The quantities and the settings that a score asks for, from its signature."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise WagleError(
            f"the parameters of the score {function_name(function)!r} cannot be read; wrap it in a "
            f"function of {', '.join(QUANTITIES)}"
        ) from None
    found = Needs([], {})
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found.settings[name] = parameter.default
        elif name in QUANTITIES:
            found.quantities.append(name)
        else:
            raise WagleError(f"a score cannot ask for {name!r} (known: {', '.join(QUANTITIES)})")
    if not found.quantities:
        raise WagleError(
            f"the score {function_name(function)!r} asks for nothing; its parameters are among "
            f"{', '.join(QUANTITIES)}"
        )
    return found


def function_name(function: Function) -> str:
    """What messages and masks call a score that is a user's function."""
    return getattr(function, "__name__", "custom")
