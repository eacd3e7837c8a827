"""The page docs/scores.md: every score, generated from the table and the docstrings."""

from __future__ import annotations

import inspect

from wagle.attribution.scoring.entry import Score
from wagle.attribution.scoring.scores import SCORES


def scores_page() -> str:
    """Every score with its needs, scope, settings and docstring, as Markdown."""
    lines = [
        "# Scores",
        "",
        "Generated from `wagle.attribution.scoring.scores` by `make pages`. How scores "
        "are used, and how to choose weights without one: [attribution.md](attribution.md).",
        "",
        "A score is a number per weight; the largest are selected first. θ is the weight, g_f and "
        "g_r are its mean gradients on the forget set and on the retain set. Settings without a "
        "value are chosen from the data: `attribution.gamma` and `attribution.damping`.",
        "",
        "| score | needs | scope | settings |",
        "| --- | --- | --- | --- |",
    ]
    entries = sorted(SCORES.items())
    lines += [_row(name, entry) for name, entry in entries]
    for name, entry in entries:
        told = inspect.getdoc(entry.function) or ""
        lines += ["", f"## {name}", "", _prose(told)]
    return "\n".join(lines) + "\n"


def _row(name: str, entry: Score) -> str:
    needed = [f"`{q}`" for q in entry.quantities if q not in ("weight", "uniform")]
    settings = [
        f"`{key}`" if value is inspect.Parameter.empty else f"`{key}: {value!r}`"
        for key, value in entry.settings.items()
    ]
    cells = [
        f"[`{name}`](#{name})",
        ", ".join(needed) or "nothing",
        f"`{entry.scope}`",
        ", ".join(settings) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def _prose(told: str) -> str:
    """A docstring as Markdown: its arguments become a list."""
    head, _, rest = told.partition("\nArgs:\n")
    arguments, _, tail = rest.partition("\n\n")
    listed: list[str] = []
    for line in arguments.splitlines():
        if line.startswith("        ") and listed:
            listed[-1] += f" {line.strip()}"
        else:
            key, _, meaning = line.strip().partition(": ")
            listed.append(f"- `{key}`: {meaning}")
    parts = [*head.strip().split("\n\n"), "\n".join(listed), *tail.strip().split("\n\n")]
    return "\n\n".join(part for part in parts if part).replace("``", "`")
