"""Ratios: exact shares of weights, as the decimals that they print as."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from wagle.mask.writing import refuse_ladder
from wagle.system.errors import WagleError


def exact_ratio(ratio: float | str) -> Fraction:
    """The ratio as an exact fraction of the decimal that it prints as: 0.29 is 29/100."""
    try:
        share = Decimal(str(ratio))
    except InvalidOperation:
        raise WagleError(f"ratio {ratio!r} is not a number; give one with 0 < ratio <= 1") from None
    if not (share.is_finite() and 0 < share <= 1):
        raise WagleError(f"ratio {ratio} is outside (0, 1]; give the share of weights to select")
    return Fraction(share)


def exact_count(ratio: float | str, total: int) -> int:
    """floor(ratio * total), exact on the decimal that ``ratio`` prints as: 0.29 of 100 is 29."""
    return int(exact_ratio(ratio) * total)


def read_ladder(ratio: float | str | Iterable[float | str]) -> list[float | str]:
    """One ratio or several as a checked ladder: ascending, without repeats, 1 to 15 of them."""
    several = isinstance(ratio, Iterable) and not isinstance(ratio, str)
    ladder: list[Any] = list(ratio) if several else [ratio]  # type: ignore[arg-type]
    refuse_ladder(ladder, exact_ratio)
    return ladder
