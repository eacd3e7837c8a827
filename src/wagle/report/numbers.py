"""Numbers as pages and tables show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def number(value: float) -> str:
    """Three decimals; a value they would round away is not shown as zero."""
    if 0 < abs(value) < 0.0005:
        return "< 0.001" if value > 0 else "> -0.001"
    return f"{value:,.3f}"


def small(value: float) -> str:
    """Three decimals; a value they would round away, such as a p-value, as a power of ten."""
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:,.3f}"


def short(value: float, sign: str = "") -> str:
    """A few digits, for a narrow column; what three decimals round away as a power of ten."""
    if 0 < abs(value) < 0.0005 or abs(value) >= 1e5:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign}.1f}"


def or_dash(value: float | None, text: Callable[[float], str] = "{:.3f}".format) -> str:
    """A value as ``text`` writes it, or a dash if there is none."""
    return "-" if value is None else text(value)


def interval(ends: Sequence[float] | None, text: Callable[[float], str]) -> str:
    """Both ends in brackets, as ``text`` writes a number; "" if there is no interval."""
    return "" if ends is None else f"[{text(ends[0])}, {text(ends[1])}]"


def percent(share: float) -> str:
    """A share as a percentage with one decimal, or two digits if it is small."""
    if share == 1:
        return "100 %"
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def size(count: float) -> str:
    """A number of bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.2f} {unit}"
    return f"{count:,.0f} B"
