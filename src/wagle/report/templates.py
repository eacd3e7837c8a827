"""The templates of the pages: everything that comes from outside is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates() -> Environment:
    """The environment of the page templates; a name that is missing is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("wagle", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
