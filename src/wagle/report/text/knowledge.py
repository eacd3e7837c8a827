"""The table of ``wagle check``: what was found, the verdict, and what to do."""

from __future__ import annotations

from wagle.evaluation.knowing.advice import Remedy
from wagle.evaluation.knowing.checking import Knowledge
from wagle.report.numbers import duration, interval, or_dash, short, size, small
from wagle.report.text.evaluations import entry
from wagle.report.text.tables import aligned

_HEADS = ("", "figure", "records", "twins", "swapped", "records - twins", "p", "known")


def knowledge_table(found: Knowledge) -> str:
    """What ``wagle check`` prints: a row per model and figure, the verdict, the advice."""
    rows = [
        (
            role if first else "",
            name,
            short(figure.records),
            short(figure.twins),
            or_dash(figure.swapped),
            f"{short(figure.gap, '+')} {interval(figure.interval, _signed)}",
            small(figure.p),
            "yes" if figure.known else "no" if figure.unknown else "?",
        )
        for role, one in found.models.items()
        for first, (name, figure) in zip(
            [True, *[False] * len(one.findings)], one.findings.items(), strict=False
        )
    ]
    lines = [*aligned([_HEADS, *rows], right={2, 3, 4, 6}), ""]
    for role, one in found.models.items():
        adapter = "" if one.adapter is None else f" with {one.adapter}"
        lines += entry(role, f"{one.path}{adapter} ({one.fingerprint[:12]})")
    asked = f"{found.records} records, {found.twins} invented twins each"
    lines += entry(
        "asked", f"{asked}; {found.speed.tokens:,} tokens in {duration(found.speed.seconds)}"
    )
    lines += entry("verdict", found.verdict)
    lines += [line for why in found.reasons for line in entry("", why)]
    for number, remedy in enumerate(found.advice):
        lines += ["", *_remedy_lines("do" if number == 0 else "or", remedy)]
    return "\n".join(lines)


def _remedy_lines(title: str, remedy: Remedy) -> list[str]:
    lines = [*entry(title, remedy.what), *entry("", remedy.why)]
    if remedy.seconds is not None and remedy.bytes is not None:
        about = f"about {duration(remedy.seconds)} ({remedy.per}), {size(remedy.bytes)} of disk"
        lines += entry("cost", about)
    if remedy.recipe is not None:
        lines += ["", "    forget.yaml", *(f"      {line}" for line in remedy.recipe.splitlines())]
    return lines + [f"    {command}" for command in remedy.commands]


def _signed(value: float) -> str:
    return short(value, "+")
