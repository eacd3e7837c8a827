"""A plan as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plan_table(plan: dict[str, Any]) -> str:
    """The plan of a run: its stages, every way of unlearning, and what fits here."""
    model, machine, run = plan["model"], plan["machine"], plan["run"]
    lines = [
        f"model      {model['path']}: {model['total']:,} weights, {model['blocks']} blocks of "
        f"{model['block']:,}",
        f"records    {_records(plan['records'])}",
        f"machine    {_gb(machine['free'])} of {_gb(machine['memory'])} GB memory free, "
        f"{_gb(machine['disk'])} GB disk; arithmetic at the rate of a {machine['timed']}",
        "",
        *_columns(
            ("stage", "memory GB", "disk GB", "time", "mostly"),
            [
                (
                    name,
                    _gb(s["peak"]),
                    _gb(sum(s["disk"].values())),
                    _time(s["seconds"]),
                    _mostly(s),
                )
                for name, s in plan["stages"].items()
            ]
            + [("run", _gb(run["peak"]), _gb(run["disk"]), _time(run["seconds"]), "")],
        ),
    ]
    if plan["not_planned"]:
        lines.append(f"not planned: {', '.join(plan['not_planned'])}")
    cards = [name for name in plan["ways"][0]["fits"] if name != "here"]
    rows = [
        (
            way["way"],
            "dense" if way["ratio"] == 1 else "" if way["ratio"] is None else f"{way['ratio']:g}",
            _gb(way["peak"]),
            _gb(sum(way["disk"].values())),
            _time(way["seconds"]),
            *("yes" if way["fits"][place] else "-" for place in ("here", *cards)),
        )
        for way in plan["ways"]
    ]
    heads = ("unlearn by", "ratio", "memory GB", "disk GB", "time here", "fits here", *cards)
    lines += ["", *_columns(heads, rows), "", *map(_largest, plan["largest_ratio"].items())]
    return "\n".join(lines)


def _records(found: dict[str, Any]) -> str:
    sets = ", ".join(f"{name} {one['records']}" for name, one in found["sets"].items())
    longest = max((one["longest"] for one in found["sets"].values()), default=0)
    return f"{sets}; at most {longest} tokens ({found['how']})"


def _largest(found: tuple[str, float | None]) -> str:
    engine, ratio = found
    said = "none" if ratio is None else "all weights" if ratio == 1 else f"{ratio:.4g}"
    return f"largest ratio that fits here with {engine}: {said}"


def _mostly(stage: dict[str, Any]) -> str:
    """The largest two terms of its memory."""
    terms = sorted(stage["memory"].items(), key=lambda item: -item[1])[:2]
    return ", ".join(f"{name} {_gb(size)}" for name, size in terms)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}" if size < 1e11 else f"{size / 1e9:,.0f}"


def _time(found: float | None) -> str:
    if found is None:
        return "?"
    if found < 90:
        return f"{found:.0f} s"
    if found < 5400:
        return f"{found / 60:.0f} min"
    return f"{found / 3600:.1f} h" if found < 172_800 else f"{found / 86_400:.0f} days"


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width)
            if i in (0, len(heads) - 1 if heads[-1] == "mostly" else 0)
            else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    ]
