"""Scores: pure functions from a weight and its gradients to a number, larger is selected first.

A score has the shape of its weight and is float32. It asks for what it needs by parameter name:
``weight``, ``grad_forget``, ``grad_retain`` (from the gradient store) or ``uniform`` (a draw from
[0, 1) per weight); keyword parameters are the recipe's settings.
To add one: a function here, its entry in SCORES, a test beside the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from wagle.errors import WagleError, choose

Score: TypeAlias = Callable[..., Tensor]
QUANTITIES = ("weight", "grad_forget", "grad_retain", "uniform")


def wagle(weight: Tensor, grad_forget: Tensor, grad_retain: Tensor, *, gamma: float) -> Tensor:
    """Weight attribution: what a weight does for forgetting, given that the retain loss is kept.

    ``|(theta - g_r / gamma) g_f|`` on mean gradients. Towards a large gamma it is SNIP on the
    forget loss, towards 0 it ranks by ``|g_f g_r|``.

    Args:
        weight: any shape, float32.
        grad_forget: mean forget gradient, same shape.
        grad_retain: mean retain gradient, same shape.
        gamma: > 0, the diagonal of the retain Hessian, in units of gradient per weight.

    Source: Jia et al. 2024, arXiv 2410.17509 (the weight attribution score).
    """
    return ((weight - grad_retain / gamma) * grad_forget).abs()


def magnitude(weight: Tensor) -> Tensor:
    """``|theta|``: large weights first. A control that sees no data."""
    return weight.abs()


def random(uniform: Tensor) -> Tensor:
    """A draw from [0, 1) per weight, a pure function of (seed, parameter, index): the control."""
    return uniform


SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random, "wagle": wagle}


def check_score(score: str | Score) -> Score:
    """The score that a name or a function stands for, checked."""
    function = choose(SCORES, score, "score") if isinstance(score, str) else score
    needs(function)
    return function


def needs(score: Score) -> tuple[list[str], list[str]]:
    """The quantities and the settings that a score asks for, from its signature."""
    quantities, settings = [], []
    for name, parameter in inspect.signature(score).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            settings.append(name)
        elif name in QUANTITIES:
            quantities.append(name)
        else:
            raise WagleError(f"a score cannot ask for {name!r} (known: {', '.join(QUANTITIES)})")
    return quantities, settings
