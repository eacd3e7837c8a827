"""Lines of text with aligned columns."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence

TITLES = 11  # width of the titles of facts, before the gap
GAP = 2  # blanks between columns
_ENDLESS = 1_000_000  # nothing is wrapped or cut here: the terminal wraps what is too long


def aligned(
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[int] = (),
    least: Mapping[int, int] | None = None,
    gap: int = GAP,
) -> list[str]:
    """One line for each row, as wide as its cells are: no cell is wrapped, cut or coloured.

    Args:
        rows: cells, as many in each; heads are a row like any other.
        right: columns that are aligned on the right instead of the left.
        least: the least width by column.
        gap: blanks between columns.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    if not rows:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, gap, 0, 0))
    for column in range(len(rows[0])):
        table.add_column(
            justify="right" if column in right else "left",
            min_width=(least or {}).get(column),
            no_wrap=True,
            overflow="crop",
        )
    for row in rows:
        table.add_row(*map(Text, row))  # as text: brackets are not markup
    written = io.StringIO()
    Console(
        file=written, width=_ENDLESS, color_system=None, force_terminal=False, force_jupyter=False
    ).print(table)
    return [line.rstrip() for line in written.getvalue().splitlines()]


def facts(found: Iterable[tuple[str, str]]) -> list[str]:
    """Titles with their texts; a line without a title belongs to the one above it."""
    return aligned(found, least={0: TITLES})
