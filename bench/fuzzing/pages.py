"""The page of a run without its charts: drawing them takes seconds, and reads no file."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any


@cache
def without_charts() -> None:
    """Let every section of a report leave its charts empty, in this process."""
    from markupsafe import Markup

    from wagle.report.html import sections

    for found in pkgutil.iter_modules(sections.__path__):
        module = import_module(f"{sections.__name__}.{found.name}")
        for name in vars(module):
            if name.endswith("_chart"):
                setattr(module, name, lambda *_, **__: Markup(""))


def page_of(run: Any) -> str:
    """The HTML of a run's report."""
    from wagle.report.html.rendering import render
    from wagle.run.stages.measuring.report import report_page

    without_charts()
    return render(report_page(run))
