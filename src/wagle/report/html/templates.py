"""The templates of the pages: everything that comes from outside is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates() -> Environment:
    """The environment of the page templates; a name that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wagle", "report/html/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "small": small,
        "count": "{:,}".format,
        "percent": percent,
        "duration": duration,
        "bytes": size,
    }
    return environment


def number(value: float) -> str:
    """Three decimals; what they would round away is not called zero."""
    if 0 < abs(value) < 0.0005:
        return "< 0.001" if value > 0 else "> -0.001"
    return f"{value:,.3f}"


def small(value: float) -> str:
    """Three decimals; what they would round away by its power of ten, such as a p-value."""
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:,.3f}"


def percent(share: float) -> str:
    """A share with one decimal, or two digits where it is small."""
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
