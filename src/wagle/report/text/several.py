"""The table of several runs: for the terminal, as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from wagle.report.numbers import duration, interval, short, size
from wagle.report.several import Row, Several
from wagle.report.text.tables import aligned

_TITLES = ("run", "verdict", "weights", "patch", "time")
_WIDE = 40  # characters of a setting in the terminal
_TEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}"})


def several_table(found: Several) -> str:
    """Runs as columns: verdict, figures with their intervals, and the settings that differ."""
    rows = [list(row) for row in zip(*_cells(found), strict=True)]
    if found.differs:
        rows.append([""] * len(rows[0]))
        rows += [[key, *(_said(row, key) for row in found.rows)] for key in found.differs]
    return "\n".join([*aligned(rows), *(["", *found.notes] if found.notes else [])])


def _said(row: Row, key: str) -> str:
    value = row.settings.get(key)
    text = "-" if value is None else str(value)
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"


def several_markdown(found: Several) -> str:
    """The same as a Markdown table."""
    heads, *rows = _cells(found)
    lines = [heads, ["---"] * len(heads), *rows]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([*text, *(["", *found.notes] if found.notes else [])])


def several_latex(found: Several) -> str:
    """The same as a LaTeX ``tabular`` with the rules of booktabs."""
    heads, *rows = _cells(found)
    body = [" & ".join(cell.translate(_TEX) for cell in line) + r" \\" for line in rows]
    notes = [f"% {note}" for note in found.notes]
    return "\n".join(
        [
            *notes,
            rf"\begin{{tabular}}{{{'l' * len(heads)}}}",
            r"\toprule",
            " & ".join(cell.translate(_TEX) for cell in heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def several_csv(found: Several) -> str:
    """A row per run with every number in full: value, both ends, count, and the settings that differ."""
    heads = ["run", "verdict", "selected", "patch_bytes", "seconds"]
    for name in found.figures:
        heads += [name, f"{name} low", f"{name} high", f"{name} n", f"{name} before"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*heads, *found.differs])
    for row in found.rows:
        cells: list[Any] = [row.name, row.verdict, row.selected, row.patch_bytes, row.seconds]
        for name in found.figures:
            cells += _numbers(row, name)
        writer.writerow([*cells, *(row.settings.get(key) for key in found.differs)])
    return text.getvalue().rstrip("\n")


def several_json(found: Several) -> str:
    """The same as JSON."""
    keys = ("value", "low", "high", "n", "before")
    told = {
        "schema": "wagle-table/1",
        "figures": list(found.figures),
        "differs": list(found.differs),
        "notes": list(found.notes),
        "runs": [
            {
                "run": row.name,
                "verdict": row.verdict,
                "selected": row.selected,
                "patch_bytes": row.patch_bytes,
                "seconds": row.seconds,
                "figures": {
                    name: dict(zip(keys, _numbers(row, name), strict=True))
                    for name in found.figures
                    if name in row.figures
                },
                "settings": {key: row.settings.get(key) for key in found.differs},
            }
            for row in found.rows
        ],
    }
    return json.dumps(told, indent=2)


def _numbers(row: Row, name: str) -> list[float | int | None]:
    figure, before = row.figures.get(name), row.before.get(name)
    past = None if before is None else before.value
    if figure is None or figure.value is None:
        return [None, None, None, None, past]
    low, high = figure.interval or (None, None)
    return [figure.value, low, high, figure.n, past]


def _cells(found: Several) -> list[list[str]]:
    """The heads and a row per run."""
    titles = [*_TITLES[:2], *found.figures, *_TITLES[2:]]
    rows = [
        [
            row.name,
            row.verdict or "nothing unlearned",
            *(_cell(row, name) for name in found.figures),
            "-" if row.selected is None else f"{row.selected:,}",
            "-" if row.patch_bytes is None else size(row.patch_bytes),
            duration(row.seconds),
        ]
        for row in found.rows
    ]
    return [titles, *rows]


def _cell(row: Row, name: str) -> str:
    """Before and after, with the interval of after."""
    figure, before = row.figures.get(name), row.before.get(name)
    if figure is None or figure.value is None:
        return "-"
    ends: Sequence[float] | None = figure.interval
    past = "" if before is None or before.value is None else f"{short(before.value)} → "
    return f"{past}{short(figure.value)} {interval(ends, short)}".rstrip()
