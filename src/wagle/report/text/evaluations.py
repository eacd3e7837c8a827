"""The figures of evaluations as text: values with their intervals, and paired differences."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.roles import role_text, roles_of
from wagle.evaluation.served.absent import is_absent, why_absent
from wagle.report.leading import headlines
from wagle.report.numbers import interval, short
from wagle.report.text.tables import GAP, TITLES, aligned, facts

WIDTH = 100  # columns of a screen
_DIFFERENCES = {"before": "changes", "reference": "differences"}  # in the result, by role


def evaluation_table(found: Evaluation, everything: bool = False) -> str:
    """What ``wagle evaluate MODEL`` prints: figures, paired differences, the verdict.

    Args:
        found: the model's evaluation, with what it was compared with.
        everything: show all figures, not only the leading ones.
    """
    roles = {"before": found.beside.get("before"), "model": found, **found.beside}
    lines = figure_lines({r: e for r, e in roles.items() if e is not None}, "model", everything)
    if "model" in found.details:
        lines += ["", *role_lines(roles_of(found.details))]
    lines += [line for why, names in _absent(roles) for line in entry("absent", f"{names}: {why}")]
    if found.details.get("verdict"):
        lines += ["", *verdict_lines(found.details["verdict"], found.details.get("reasons", []))]
    elif "reference" in found.beside and found.details.get("probes"):
        said = "none without the model before unlearning; give it with --before"
        lines += ["", *entry("verdict", said)]
    return "\n".join(lines)


def role_lines(roles: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """A line per role: path and short fingerprint of its model."""
    return [
        line
        for role, told in roles.items()
        if told is not None
        for line in entry(role, role_text(told))
    ]


def _absent(roles: Mapping[str, Evaluation | None]) -> list[tuple[str, str]]:
    """Why figures are absent, and their names."""
    found: dict[str, dict[str, None]] = {}
    for evaluation in roles.values():
        for name, figures in (evaluation.figures if evaluation else {}).items():
            for metric, figure in figures.items():
                if is_absent(figure):
                    found.setdefault(why_absent(figure), {})[f"{name}.{metric}"] = None
    return [(why, ", ".join(names)) for why, names in found.items()]


def verdict_lines(word: str, reasons: Iterable[str]) -> list[str]:
    """A verdict and, below it, a sentence per reason."""
    return [*entry("verdict", word), *(line for why in reasons for line in entry("", why))]


def entry(title: str, text: str) -> list[str]:
    """A title and its text, over as many lines as that takes."""
    room = WIDTH - TITLES - GAP
    first, *rest = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return facts([(title, first), *(("", line) for line in rest)])


def figure_lines(evaluations: Mapping[str, Evaluation], own: str, everything: bool) -> list[str]:
    """A table of values by role, and one of the paired differences to the other roles.

    Args:
        evaluations: the evaluations by role, in the order of the columns.
        own: the role whose differences are shown.
        everything: show all figures, not only the leading ones.
    """
    found = evaluations[own]
    known = dict.fromkeys(
        (name, metric)
        for evaluation in (found, *evaluations.values())
        for name, figures in evaluation.figures.items()
        for metric in figures
    )
    chosen = list(known)
    if not everything:
        chosen = headlines(known, own_records=found.details.get("benchmark") == "qa")
        if any(is_absent(found.figures.get(name, {}).get(metric)) for name, metric in chosen):
            written = [(n, m) for n, m in known if m == "rouge_l" and (n, m) not in chosen]
            chosen += written  # what a verdict then rests on
    values = {
        role: [_value_cell(e.figures.get(name, {}).get(metric)) for name, metric in chosen]
        for role, e in evaluations.items()
    }
    names = [f"{name}.{metric}" for name, metric in chosen]
    lines = _aligned("value [95 % interval]", names, values)
    gaps = {
        f"{own} - {role}": found.details[key]
        for role, key in _DIFFERENCES.items()
        if role in evaluations and key in found.details
    }
    paired = [name for name in names if any(name in gap for gap in gaps.values())]
    if paired:
        cells = {
            title: [_difference_cell(gap.get(name)) for name in paired]
            for title, gap in gaps.items()
        }
        lines += ["", *_aligned("paired difference", paired, cells)]
    left = len(known) - len(chosen)
    more = f"({left} more figures: --all)" if left > 1 else "(1 more figure: --all)"
    return [*lines, *([more] if left else [])]


_Cell = tuple[str, str]  # a number and its interval


def _value_cell(figure: Figure | None) -> _Cell:
    if figure is None or figure.value is None:
        return "-", ""
    return short(figure.value), interval(figure.interval, short)


def _difference_cell(gap: Mapping[str, object] | None) -> _Cell:
    if gap is None:
        return "-", ""
    mean, ends = gap["mean"], gap["interval"]
    assert isinstance(mean, float | int)
    assert isinstance(ends, list | tuple)
    return _signed(mean), interval(ends, _signed)


def _signed(value: float) -> str:
    return short(value, "+")


def _aligned(title: str, names: Sequence[str], columns: Mapping[str, Sequence[_Cell]]) -> list[str]:
    """Rows of cells below their heads; a name that leaves them no room gets its own line."""
    made = {head: aligned(cells, right={0}, gap=1) for head, cells in columns.items()}
    widths = [max(len(text) for text in [head, *cells]) for head, cells in made.items()]
    room = WIDTH - sum(width + GAP for width in widths)
    first = min(room, max(map(len, [title, *names])))
    heads = [title, *names]
    rows = zip(*([head, *cells] for head, cells in made.items()), strict=True)
    lines = aligned(
        [("" if len(n) > first else n, *row) for n, row in zip(heads, rows, strict=True)],
        least={0: first},
    )
    return [
        text
        for name, line in zip(heads, lines, strict=True)
        for text in ([name, line] if len(name) > first else [line])
    ]
