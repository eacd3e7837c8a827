"""The table of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wagle.report.compared import CONTROL, comparison_notes, comparison_rows, shown_ratios
from wagle.report.text.tables import aligned


def arms_table(found: Mapping[str, Any]) -> str:
    """The figures of a comparison as lines of text."""
    titles = ["arm", "learning rate", "figure", f"difference to {CONTROL}", "p (Holm)"]
    lines = []
    for ratio in shown_ratios(found):
        rows = [
            [
                row["name"],
                row["learning_rate"],
                row["figure"],
                f"{row['difference']} {row['interval']}".strip(),
                row["holm"],
            ]
            for row in comparison_rows(found, ratio)
        ]
        lines += [f"ratio {ratio:g}", *(f"  {line}" for line in aligned([titles, *rows]))]
    return "\n".join([*lines, found["sentence"], *comparison_notes(found)])
