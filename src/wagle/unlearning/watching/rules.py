"""Rules on figures, parsed from text: when training stops, and which checkpoint is best.

    CONDITION   FIGURE OP TERM
    FIGURE      a name of FIGURES
    OP          <=  <  >=  >
    TERM        NUMBER, NAME or NUMBER * NAME
    NAME        reference   the figure of a model that never learned the forget set
                before      the figure before unlearning
                uniform     the figure of a uniform guess over the vocabulary
    BEST        min FIGURE or max FIGURE, optionally followed by: where CONDITION and CONDITION ...;
                or auto, which is LEAST_EXTRACTED

To add a figure: its entry in FIGURES; the trainer supplies its value.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from wagle.system.errors import WagleError, choose

Figures: TypeAlias = Mapping[str, float]
Known: TypeAlias = Mapping[str, Figures]

FIGURES: dict[str, Callable[[int], float]] = {
    "forget.probability": lambda vocabulary: 1 / vocabulary,
    "forget.nll": math.log,
    "forget.extraction_strength": lambda vocabulary: 1 / vocabulary,
    "forget.exact_memorization": lambda vocabulary: 1 / vocabulary,
    "retain.probability": lambda vocabulary: 1 / vocabulary,
    "retain.nll": math.log,
    "retain.extraction_strength": lambda vocabulary: 1 / vocabulary,
    "retain.exact_memorization": lambda vocabulary: 1 / vocabulary,
    "retain.true_better": lambda _: 0.0,
    "retain.utility_proxy": lambda _: 0.0,
}
"""Figures by ``SET.NAME``, each with its value for a uniform guess over a vocabulary of a given
size."""

OF_OPTIONS = frozenset({"retain.true_better", "retain.utility_proxy"})
"""Figures that need wrong answers as well as the right one; a reference's evaluation lacks them."""

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
REACHED = "forget.probability <= reference"
"""The rule that ends training by default if there is a reference."""

CEILING = "forget.nll >= uniform"
"""The rule that ends training by default if the objective has no lower bound: its work is done."""

LEAST_EXTRACTED = "min forget.extraction_strength where retain.probability >= 0.95 * before"
"""The choice of the best checkpoint that ``auto`` stands for."""

_NAMES = dict.fromkeys(("reference", "before", "uniform"))
_GOALS = {"min": -1.0, "max": 1.0}
_CONDITION = re.compile(r"\s*([^<>=\s]+)\s*([<>=]+)\s*([^<>=]+?)\s*")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_BEST = re.compile(r"\s*(\S+)\s+(\S+)(?:\s+where\s+(\S.*?))?\s*")


def uniform_guess(vocabulary: int) -> dict[str, float]:
    """Every figure of a model that finds all of ``vocabulary`` tokens equally likely."""
    return {name: value(vocabulary) for name, value in FIGURES.items()}


class Reads(NamedTuple):
    """What a rule refers to: sets of records ("forget", "retain"), and names ("reference", ...)."""

    sets: frozenset[str]
    names: frozenset[str]


@dataclass(frozen=True)
class Rule:
    """A condition: ``figure comparison factor * name``, or just ``factor`` if there is no name."""

    figure: str
    comparison: str
    factor: float
    name: str | None = None

    def __str__(self) -> str:
        """The text that it is read from."""
        if self.name is None:
            term = f"{self.factor}"
        else:
            term = self.name if self.factor == 1 else f"{self.factor} * {self.name}"
        return f"{self.figure} {self.comparison} {term}"

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that it reads."""
        return (self.figure,)

    @property
    def needs(self) -> Reads:
        """The set of its figure, and the name it compares with."""
        names = () if self.name is None else (self.name,)
        return Reads(frozenset({self.figure.split(".")[0]}), frozenset(names))

    def holds(self, figures: Figures, known: Known) -> bool:
        """Whether it is met; a figure that is NaN never meets it.

        Args:
            figures: the current value of its figure, by name.
            known: the same figures for each name that it needs ("reference", "before", "uniform").
        """
        return OPERATORS[self.comparison](figures[self.figure], self.limit(known))

    def limit(self, known: Known) -> float:
        """What its figure is compared with."""
        return self.factor if self.name is None else self.factor * known[self.name][self.figure]


@dataclass(frozen=True)
class Best:
    """What makes one checkpoint better than another: a figure, under conditions."""

    goal: str
    figure: str
    conditions: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        """The text that it is read from."""
        where = f" where {' and '.join(map(str, self.conditions))}" if self.conditions else ""
        return f"{self.goal} {self.figure}{where}"

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that it reads: its own, and those of its conditions."""
        return (self.figure, *(rule.figure for rule in self.conditions))

    @property
    def needs(self) -> Reads:
        """The sets of its figures, and the names that its conditions compare with."""
        own = frozenset({self.figure.split(".")[0]})
        reads = [rule.needs for rule in self.conditions]
        return Reads(
            own.union(*(r.sets for r in reads)), frozenset().union(*(r.names for r in reads))
        )

    def meets(self, figures: Figures, known: Known) -> bool:
        """Whether all conditions hold."""
        return all(rule.holds(figures, known) for rule in self.conditions)

    def better(self, candidate: Figures, incumbent: Figures | None, known: Known) -> bool:
        """Whether a later checkpoint replaces the best one so far.

        One that meets the conditions beats one that does not; otherwise the figure decides, and NaN
        loses; ties go to the earlier one. Anything beats having none.
        """
        return incumbent is None or self._rank(candidate, known) > self._rank(incumbent, known)

    def _rank(self, figures: Figures, known: Known) -> tuple[bool, bool, float]:
        value = figures[self.figure]
        if math.isnan(value):
            return self.meets(figures, known), False, 0.0
        return self.meets(figures, known), True, _GOALS[self.goal] * value


def parse_rule(text: str) -> Rule:
    """Parse a condition, such as ``forget.probability <= 1.5 * reference``.

    Raises:
        WagleError: it is not one; the message names the wrong part and the nearest known word.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise WagleError(
            f"{text!r} is not a condition; write FIGURE <= TERM, such as "
            "'forget.probability <= reference'"
        )
    figure, comparison, term = found.groups()
    choose(FIGURES, figure, "figure")
    choose(OPERATORS, comparison, "comparison")
    return Rule(figure, comparison, *_term(term))


def _term(text: str) -> tuple[float, str | None]:
    head, star, name = (part.strip() for part in text.partition("*"))
    number = _number(head)
    if star and number is None:
        raise WagleError(f"{text!r} is not a term; write a number, a name or NUMBER * NAME")
    if number is not None and not star:
        return number, None
    name = name if star else head
    choose(_NAMES, name, "number or name")
    return (1.0 if number is None else number), name


def _number(text: str) -> float | None:
    """A finite, unsigned number, or None."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def parse_best(text: str) -> Best:
    """Parse a choice, such as ``min forget.nll where retain.nll <= 1.1 * before``; or ``auto``.

    Raises:
        WagleError: it is not one; the message names the wrong part and the nearest known word.
    """
    found = _BEST.fullmatch(LEAST_EXTRACTED if text == "auto" else text)
    if found is None:
        raise WagleError(
            f"{text!r} is not a choice; write min FIGURE or max FIGURE, optionally with "
            "where CONDITION and CONDITION, or write auto"
        )
    goal, figure, where = found.groups()
    choose(_GOALS, goal, "goal")
    choose(FIGURES, figure, "figure")
    conditions = re.split(r"\s+and\s+", where) if where else []
    return Best(goal, figure, tuple(parse_rule(condition) for condition in conditions))
