"""An objective chosen by name, with its settings checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wagle.system.errors import WagleError, nearest
from wagle.system.plugins import find
from wagle.unlearning.objectives.entry import (
    FORGET_SIDE,
    INPUTS,
    KINDS,
    RETAIN_SIDE,
    WEIGHTS,
    Function,
    Objective,
)
from wagle.unlearning.objectives.retaining import RETAIN_TERMS, none
from wagle.unlearning.objectives.settings import merge, problem
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.objectives.table import OBJECTIVES


@dataclass(frozen=True)
class Chosen:
    """An objective with its settings and its retain term: what a run trains with.

    Attributes:
        name: of the objective, for messages and results.
        entry: the table entry that it was made from.
        retain: ``nll``, ``kl``, ``none`` or ``own``.
        keeps: the retain term as a function; None if there is none, or if the objective's own
            function includes it.
        settings: all of them, defaults included.
        forget_weight: of the forget term.
        retain_weight: of the retain term.
        inputs: what it asks for, both terms together.
    """

    name: str
    entry: Objective
    retain: str
    keeps: Function | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    inputs: tuple[str, ...] = ()

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of records that it needs, in the table's order."""
        asked = {_set_of(name) for name in self.inputs}
        return tuple(name for name in (*FORGET_SIDE, *RETAIN_SIDE) if name in asked)

    def terms(self, inputs: Mapping[str, Any]) -> Terms:
        """The weighted loss per record of a batch, from the inputs that it asked for."""
        made = self._call(self.entry.function, inputs)
        forget, kept = made if isinstance(made, Terms) else (made, None)
        if self.keeps is not None:
            kept = self._call(self.keeps, inputs)
        for loss in (forget, kept):
            if loss is not None and loss.ndim != 1:
                raise WagleError(
                    f"objective {self.name} returns a loss of shape {tuple(loss.shape)}; return "
                    "one number per record, (B,)"
                )
        return Terms(
            None if forget is None else self.forget_weight * forget,
            None if kept is None else self.retain_weight * kept,
        )

    def _call(self, function: Function, inputs: Mapping[str, Any]) -> Any:
        """Call a function with the inputs that it asks for and the settings that are its own."""
        settings = {name: self.settings[name] for name in _defaults(function)}
        return function(**{name: inputs[name] for name in _asked(function)}, **settings)

    def parts(self) -> tuple[Chosen, ...]:
        """The forget term and the retain term separately; undivided if one function gives both."""
        if self.keeps is None:
            return (self,)
        asked = tuple(_asked(self.entry.function))
        forget = replace(self, retain="none", keeps=None, inputs=asked)
        entry = replace(self.entry, function=none)
        return forget, replace(self, entry=entry, inputs=tuple(_asked(self.keeps)))

    def describe(self) -> dict[str, Any]:
        """Its name, retain term, weights and settings, as results and reports record them."""
        weights = {"forget_weight": self.forget_weight, "retain_weight": self.retain_weight}
        return {"name": self.name, "retain_term": self.retain, **weights, **self.settings}


def choose_objective(
    objective: str | Function, settings: Mapping[str, Any] | None = None, retain_term: str = "auto"
) -> Chosen:
    """An objective by name, or a function of the same form, with its settings checked.

    Args:
        objective: a name in OBJECTIVES or of a plug-in, or a function: one that asks for records to
            keep has its own retain term; any other has none unless ``retain_term`` names one.
        settings: override its defaults; also ``forget_weight`` and ``retain_weight``, >= 0.
        retain_term: ``nll``, ``kl``, ``none``, or ``auto``: the objective's own choice.

    Raises:
        WagleError: an unknown name or setting, or a parameter that nobody supplies.
    """
    name, entry = _entry(objective)
    if retain_term != "auto":
        _keeps(retain_term)
    retain = entry.retain if retain_term == "auto" else retain_term
    if entry.retain == "own" and entry.own is None and retain != "own":
        raise WagleError(f"objective {name} has a built-in retain term; leave retain_term at auto")
    keeps = entry.own if retain == "own" else _keeps(retain)
    functions = [entry.function, *([] if keeps is None else [keeps])]
    chosen = _settings(name, entry, retain, functions, settings or {})
    inputs = [asked for function in functions for asked in _asked(function)]
    for asked in inputs:
        if asked not in INPUTS:
            guess = nearest(asked, INPUTS)
            hint = f"; did you mean {guess!r}" if guess else ""
            raise WagleError(f"objective {name} asks for {asked!r}, which nobody supplies{hint}")
    return Chosen(
        name,
        entry,
        retain,
        keeps,
        {k: v for k, v in chosen.items() if k not in WEIGHTS},
        float(chosen["forget_weight"]),
        float(chosen["retain_weight"]),
        tuple(dict.fromkeys(inputs)),
    )


def _keeps(retain: str) -> Function | None:
    """The retain term of a name, which may be a plug-in's; None for ``none``."""
    if retain == "none":
        return None
    return find({"auto": none, "none": none, **RETAIN_TERMS}, retain, "retain_term")


def _entry(objective: str | Function) -> tuple[str, Objective]:
    """The name and the entry of an objective: from the table, or made for a user's function."""
    name = objective if isinstance(objective, str) else getattr(objective, "__name__", "custom")
    if isinstance(objective, str):
        found = find(OBJECTIVES, objective, "objective")
        if isinstance(found, Objective):
            return name, found
        objective = found
    try:
        keeps = any(n.startswith("retain") for n in _asked(objective))
    except (TypeError, ValueError):
        raise WagleError(
            f"objective is {objective!r}, whose parameters cannot be read; give a name, or a "
            "function with named parameters"
        ) from None
    return name, Objective(objective, retain="own" if keeps else "none", bounded=False)


def _settings(
    name: str,
    entry: Objective,
    retain: str,
    functions: Sequence[Function],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """All settings and both weights, checked as far as we can for a user's own function."""
    replaced = entry.own is not None and retain != "own"
    kept = 1.0 if replaced else entry.retain_weight
    defaults: dict[str, Any] = {"forget_weight": entry.forget_weight, "retain_weight": kept}
    for function in functions:
        defaults |= _defaults(function)
    what = f"objective {name}" + f" with retain_term {retain}" * replaced
    found = merge(what, defaults, given)
    ours = OBJECTIVES.get(name) is entry
    for key in found if ours else WEIGHTS:
        wrong = problem(found[key], defaults[key])
        if wrong:
            raise WagleError(f"objective {name}: {key} is {found[key]!r}; {wrong}")
    wrong = entry.check(found) if entry.check else None
    if wrong:
        raise WagleError(f"objective {name}: {wrong}")
    return found


def _asked(function: Callable[..., Any]) -> list[str]:
    """The parameters without a default: the inputs to supply."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty]


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _set_of(name: str) -> str:
    """The set that an input is made from, such as ``forget`` for ``forget_logits_ref``."""
    if name in {"control", "dual"}:
        return "forget" if name == "control" else ""
    for kind in sorted(KINDS, key=len, reverse=True):
        if name.endswith(kind) and name.removesuffix(kind) in (*FORGET_SIDE, *RETAIN_SIDE):
            return name.removesuffix(kind)
    return name
