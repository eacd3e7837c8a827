"""What accompanies figures: how many records they cover, and their notes, each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wagle.evaluation.figures import Figure

_NAMED = 3  # figures that a note names before it counts the others


def other_count(found: Mapping[str, Figure], records: int | None) -> str:
    """How many values a figure averages, if that is not the set's number of records.

    Some records lack what a metric needs, and a long text counts once per window.
    """
    counts = sorted({figure.n for figure in found.values()})
    return "" if counts in ([], [records]) else " or ".join(f"{count:,}" for count in counts)


def notes(rows: Iterable[tuple[str, Mapping[str, Figure]]]) -> dict[str, str]:
    """The notes of figures, each once, with the names of the figures that have it.

    Args:
        rows: names, and their figures by role; if only some roles have a note, these are named.
    """
    found: dict[str, list[str]] = {}
    for name, figures in rows:
        noted: dict[str, list[str]] = {}
        for role, figure in figures.items():
            if figure.note:
                noted.setdefault(figure.note, []).append(role)
        for note, roles in noted.items():
            whole = len(roles) == len(figures)
            found.setdefault(note, []).append(name if whole else f"{name} ({', '.join(roles)})")
    return {note: _several(list(dict.fromkeys(names))) for note, names in found.items()}


def _several(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
