"""Gamma and damping: the two score settings that are chosen from the data.

Gamma stands for the curvature of the retain loss in the wagle score; damping is added to curvatures
measured per weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from wagle.attribution.scoring.candidates import Candidates, Measure, Values
from wagle.attribution.scoring.selection import kth_largest
from wagle.recipe.rules import (
    Gamma,
    Unfit,
    gamma_keys,
    gamma_kind,
    parse_damping,
    parse_gamma,
)
from wagle.system.errors import WagleError, nearest
from wagle.system.processes import group

CURVATURES = ("square_retain", "fisher_retain")
_ACCUMULATION = 4  # as in the published recipes
_FORMS = "a number above 0, auto, curvature, {theta_share: 0.5} or {mu: 1.0e-6, accumulation: 4}"


_SAID = {  # about a part of a gamma, by the rule that it breaks
    "number": "it must be a number above 0",
    "positive": "it must be a number above 0",
    "share": "it must lie below 1",
    "whole": "it must be a whole number",
}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def read_gamma(gamma: Gamma) -> dict[str, float]:
    """Check a gamma as given, and express every form as a mapping.

    ``{"gamma": number}``, ``{"theta_share": s}``, ``{"curvature": 1}`` or ``{"mu": m, "accumulation":
    a}``, the last also with ``records``.
    """
    try:
        found = parse_gamma(gamma, _number)
    except Unfit as unfit:
        raise WagleError(_refusal(gamma, unfit)) from None
    if isinstance(found, str):
        return {"theta_share": 0.5} if found == "auto" else {"curvature": 1}
    if isinstance(found, float):
        return {"gamma": found}
    return {"accumulation": _ACCUMULATION, **found} if "mu" in found else found


def _refusal(gamma: Any, unfit: Unfit) -> str:
    if unfit.rule == "form":
        return f"gamma is {gamma!r}; give {_FORMS}"
    if unfit.rule == "key":
        kind = str(gamma_kind(gamma))
        hint = nearest(str(unfit.key), gamma_keys(kind))
        advice = f"did you mean {hint}?" if hint and hint != kind else f"give {_FORMS}"
        return f"gamma.{unfit.key} is not a setting that goes with {kind}; {advice}"
    return f"gamma.{unfit.key} is {unfit.value!r}; {_SAID[unfit.rule]}"


def gamma_quantities(gamma: Gamma) -> tuple[str, ...]:
    """What choosing gamma reads from the gradient store."""
    kind = read_gamma(gamma)
    return (
        ("weight", "grad_retain")
        if "theta_share" in kind
        else ("square_retain",)
        if "curvature" in kind
        else ()
    )


def resolve_gamma(candidates: Candidates, gamma: Gamma) -> float:
    """The number that a gamma stands for, computed over the candidate weights.

    - a number: itself, on mean gradients.
    - ``auto``: ``{"theta_share": 0.5}``.
    - ``{"theta_share": s}``: the gamma at which a share s of the weights is theta-dominated,
      ``|theta| > |g_r| / gamma``: an exact quantile of ``|g_r| / |theta|``. Weights without a
      retain gradient are theta-dominated at every gamma; if they alone exceed the share, the
      smallest positive value is taken.
    - ``curvature``: the mean squared gradient of a retain record, over records and weights.
    - ``{"mu": m, "accumulation": a, "records": n}``: m a / n, where m is mu in the published
      code, which sums the gradients of n forget records over a; a defaults to 4, n to the store's.
    """
    asked = read_gamma(gamma)
    if "gamma" in asked:
        return asked["gamma"]
    if "mu" in asked:
        records = asked.get("records") or len(candidates.store.metadata["records"]["forget"])
        return asked["mu"] * asked["accumulation"] / records
    if "curvature" in asked:
        return _mean(candidates, "square_retain")
    share = Fraction(Decimal(str(asked["theta_share"])))
    return _largest_above(
        Measure(_dominance, ("weight", "grad_retain"), {}),
        candidates,
        int((1 - share) * candidates.total),
        "every retain gradient is zero, so gamma cannot be chosen; give a number",
    )


def resolve_damping(candidates: Candidates, damping: float | str, quantity: str) -> float:
    """The number that a damping stands for: itself, or a curvature's median over the weights.

    If more than half of the curvatures are zero, the smallest positive one is taken.
    """
    if damping != "auto":
        return float(damping)
    return _largest_above(
        Measure(lambda **values: values[quantity], (quantity,), {}),
        candidates,
        -(-candidates.total // 2),
        f"every {quantity} is zero, so damping cannot be chosen; give a number",
    )


def check_damping(damping: float | str) -> None:
    """Refuse a damping that is neither ``auto`` nor a number above 0."""
    try:
        parse_damping(damping, _number)
    except Unfit:
        raise WagleError(f"damping is {damping!r}; give a number above 0, or auto") from None


def curvature_of(quantities: Sequence[str], what: object) -> str:
    """The curvature among a score's quantities, whose median is the damping."""
    for quantity in CURVATURES:
        if quantity in quantities:
            return quantity
    raise WagleError(
        f"{what} asks for damping but not for {' or '.join(CURVATURES)}; give damping as a number"
    )


def _dominance(weight: Tensor, grad_retain: Tensor) -> Tensor:
    """``|g_r| / |theta|``: where it is below gamma, the weight term of the score is larger."""
    ratio = (grad_retain / weight).abs_().clamp_(max=torch.finfo(torch.float32).max)
    if torch.isnan(ratio.sum()):  # there is a 0 / 0; a NaN gradient stays NaN and is refused
        ratio[grad_retain == 0] = 0.0
    return ratio


def _largest_above(measure: Measure, candidates: Candidates, count: int, none: str) -> float:
    """The ``count``-th largest value >= 0; if that is 0, the smallest positive one."""
    what = f"{' / '.join(reversed(measure.quantities))}"
    chunks = measure.chunks(candidates)
    found = kth_largest(chunks, max(1, count), what)
    if found > 0:
        return found
    own = sum(int(n) for _, n in chunks(torch.count_nonzero))
    positive = sum(group.gather(own))
    if positive == 0:
        raise WagleError(none)
    return kth_largest(chunks, positive, what)


def _mean(candidates: Candidates, quantity: str) -> float:
    def total(name: str, values: Values) -> float:
        found = float(values[quantity].sum(dtype=torch.float64))
        if not math.isfinite(found):
            raise WagleError(f"{quantity} of {name} is not finite; attribute the model again")
        return found

    own = group.agreed(lambda: [t for _, t in candidates.each((quantity,), total)])
    mean = math.fsum(t for totals in group.gather(own) for t in totals) / candidates.total
    if mean <= 0:
        raise WagleError(f"every {quantity} is zero, so gamma cannot be chosen; give a number")
    return mean
