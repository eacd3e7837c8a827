"""Gamma and damping: the two settings of scores that are chosen from the data.

Gamma stands for the curvature of the retain loss in the wagle score; damping is added to curvatures
that are measured per weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from wagle.attribution.scoring.candidates import Candidates, Measure, Values
from wagle.attribution.scoring.scores import needs
from wagle.attribution.scoring.selection import kth_largest
from wagle.mask.mask import Gamma
from wagle.system.errors import WagleError, nearest

CURVATURES = ("square_retain", "fisher_retain")
_ACCUMULATION = 4  # of the published recipes
_FORMS = "a number above 0, auto, curvature, {theta_share: 0.5} or {mu: 1.0e-6, accumulation: 4}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_gamma(gamma: Gamma) -> dict[str, float]:
    """Check a gamma as it is asked for, and write every form as a mapping.

    ``{"gamma": number}``, ``{"theta_share": s}``, ``{"curvature": 1}`` or ``{"mu": m, "accumulation":
    a}``, the last also with ``records``.
    """
    if isinstance(gamma, str) and gamma in {"auto", "curvature"}:
        return {"theta_share": 0.5} if gamma == "auto" else {"curvature": 1}
    if _number(gamma) and gamma > 0:  # type: ignore[operator]
        return {"gamma": float(gamma)}  # type: ignore[arg-type]
    if not isinstance(gamma, Mapping) or not {"theta_share", "mu"} & set(gamma):
        raise WagleError(f"gamma is {gamma!r}; give {_FORMS}")
    kind = "mu" if "mu" in gamma else "theta_share"
    known = ("mu", "accumulation", "records") if kind == "mu" else ("theta_share",)
    for key, value in gamma.items():
        if key not in known:
            hint = nearest(str(key), known)
            raise WagleError(
                f"gamma.{key} is not a setting beside {kind}"
                + (f"; did you mean {hint}?" if hint and hint != kind else f"; give {_FORMS}")
            )
        if not (_number(value) and value > 0):
            raise WagleError(f"gamma.{key} is {value!r}; it must be a number above 0")
        if key in {"accumulation", "records"} and value != int(value):
            raise WagleError(f"gamma.{key} is {value!r}; it must be a whole number")
    if kind == "theta_share" and not gamma["theta_share"] < 1:
        raise WagleError(f"gamma.theta_share is {gamma['theta_share']!r}; it must lie below 1")
    return {"accumulation": _ACCUMULATION, **gamma} if kind == "mu" else dict(gamma)


def gamma_quantities(gamma: Gamma) -> tuple[str, ...]:
    """What the choice of gamma reads from the gradient store."""
    kind = read_gamma(gamma)
    return (
        ("weight", "grad_retain")
        if "theta_share" in kind
        else ("square_retain",)
        if "curvature" in kind
        else ()
    )


def resolve_gamma(candidates: Candidates, gamma: Gamma) -> float:
    """The number that a gamma stands for, over the candidate weights.

    - a number: itself, on mean gradients.
    - ``auto``: ``{"theta_share": 0.5}``.
    - ``{"theta_share": s}``: the gamma at which a share s of the weights is theta-dominated,
      ``|theta| > |g_r| / gamma``: a quantile of ``|g_r| / |theta|``, exactly. Weights without a
      retain gradient are theta-dominated at every gamma; where they alone exceed the share, the
      smallest positive value is taken.
    - ``curvature``: the mean squared gradient of a retain record, over records and weights.
    - ``{"mu": m, "accumulation": a, "records": n}``: m a / n, the mu of the published code, which
      sums the gradients of n forget records over a; a is 4 and n that of the store unless given.
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
    """The number that a damping stands for: itself, or the median of a curvature over the weights.

    Where more than half of the curvatures are zero, the smallest positive one is taken.
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
    if damping != "auto" and not (_number(damping) and damping > 0):  # type: ignore[operator]
        raise WagleError(f"damping is {damping!r}; give a number above 0, or auto")


def curvature_of(score: Any, what: str) -> str:
    """The curvature that a score asks for, whose median is the damping."""
    for quantity in CURVATURES:
        if quantity in needs(score).quantities:
            return quantity
    raise WagleError(
        f"{what} asks for damping but for no {' or '.join(CURVATURES)}; give damping as a number"
    )


def _dominance(weight: Tensor, grad_retain: Tensor) -> Tensor:
    """``|g_r| / |theta|``: below gamma, the weight term of the score is the larger one."""
    ratio = (grad_retain / weight).abs_().clamp_(max=torch.finfo(torch.float32).max)
    if torch.isnan(ratio.sum()):  # 0 / 0 among them; a gradient that is NaN stays and is refused
        ratio[grad_retain == 0] = 0.0
    return ratio


def _largest_above(measure: Measure, candidates: Candidates, count: int, none: str) -> float:
    """The ``count``-th largest value >= 0; where that is 0, the smallest positive one."""
    what = f"{' / '.join(reversed(measure.quantities))}"
    chunks = measure.chunks(candidates)
    found = kth_largest(chunks, max(1, count), what)
    if found > 0:
        return found
    positive = sum(int(n) for _, n in chunks(torch.count_nonzero))
    if positive == 0:
        raise WagleError(none)
    return kth_largest(chunks, positive, what)


def _mean(candidates: Candidates, quantity: str) -> float:
    def total(name: str, values: Values) -> float:
        found = float(values[quantity].sum(dtype=torch.float64))
        if not math.isfinite(found):
            raise WagleError(f"{quantity} of {name} is not finite; attribute the model again")
        return found

    mean = math.fsum(t for _, t in candidates.each((quantity,), total)) / candidates.total
    if mean <= 0:
        raise WagleError(f"every {quantity} is zero, so gamma cannot be chosen; give a number")
    return mean
