"""One section of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """What a section shows, and where.

    Attributes:
        anchor: its id on the page.
        title: its heading; "" for what stands above the links and has its own frame.
        place: sections stand in the order of these numbers.
        context: what its template shows, by name.
        link: what the links call it, if that is not the title.
        template: its template in ``templates/sections/``; "" is the one named like the anchor.
    """

    anchor: str
    title: str
    place: int
    context: Mapping[str, Any]
    link: str = ""
    template: str = ""


def table_section(
    anchor: str,
    title: str,
    place: int,
    *,
    lead: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str | int | float]],
) -> Section:
    """A section that is one table and needs no template of its own.

    Args:
        anchor: its id on the page.
        title: its heading.
        place: sections stand in the order of these numbers.
        lead: what a reader needs to know first.
        heads: the column heads.
        rows: the cells of each row; numbers are written with separators or three decimals.
    """
    context = {"lead": lead, "heads": heads, "rows": rows}
    return Section(anchor, title, place, context, template="table")
