"""An entry in the table of objectives: a function, what goes with it and what it can ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from wagle.unlearning.objectives.settings import Check
from wagle.unlearning.objectives.shapes import Terms

Function: TypeAlias = Callable[..., "Tensor | Terms"]
FORGET_SIDE = ("forget", "refusal", "alternative", "mismatch", "uniform")
RETAIN_SIDE = ("retain", "retain_refusal")
WEIGHTS = ("forget_weight", "retain_weight")
KINDS = ("", "_ref", "_tokens", "_logits", "_logits_ref", "_hidden", "_hidden_ref")
INPUTS = {f"{s}{kind}" for s in (*FORGET_SIDE, *RETAIN_SIDE) for kind in KINDS} | {
    "control",
    "dual",
}


@dataclass(frozen=True)
class Dual:
    """How the ``dual`` of a primal-dual objective starts and moves, as pure functions.

    Attributes:
        start: from the settings to its first value.
        update: from (value, retain NLL of the step in nats, epoch, settings) to its next value,
            once per optimiser step.
        rests: from the epochs of a run and the settings to why it would never move, or None.
    """

    start: Callable[[Mapping[str, Any]], float]
    update: Callable[[float, float, float, Mapping[str, Any]], float]
    rests: Callable[[float, Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Objective:
    """An entry of the table: a function and what goes with it.

    Attributes:
        function: gives the forget term, or ``Terms``, which then include the retain term.
        retain: the retain term unless another is asked for: a name in RETAIN_TERMS, ``none``, or
            ``own``.
        own: the retain term ``own``; None if ``function`` includes it, so that no other can replace
            it.
        forget_weight: its default.
        retain_weight: its default; 1 if another retain term replaces ``own``.
        bounded: False if the loss has no lower bound, so that training needs a stop rule.
        dual: how its ``dual`` moves, if it asks for one.
        proximal: the setting that is the threshold of a soft-thresholding step, if any.
        trains: from the settings to patterns of the only parameters that it trains without a mask;
            None trains all.
        check: from the settings to what is wrong with them beyond their types, or None.
    """

    function: Function
    retain: str = "nll"
    own: Function | None = None
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    bounded: bool = True
    dual: Dual | None = None
    proximal: str | None = None
    trains: Callable[[Mapping[str, Any]], list[str]] | None = None
    check: Check | None = None
