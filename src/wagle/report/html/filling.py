"""The templates of the pages, and how they are filled: outside text is escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from wagle.report.numbers import duration, number, percent, size, small

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(template: str, **context: Any) -> str:
    """Render a template of ``templates/``; a name it uses that is missing is an error.

    Args:
        template: its file name, without ``.html.j2``.
        context: what it shows, by name.
    """
    return _environment().get_template(f"{template}.html.j2").render(context)


@cache
def _environment() -> Environment:
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
