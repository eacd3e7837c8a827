"""What a comparison found, for the page and the table: rows of arms, and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wagle.report.numbers import interval

CONTROL = "random"
_BOUNDS = {"": "", "at most": "≤ ", "at least": "≥ ", "open": "? "}
_signed = "{:+.3f}".format


def shown_ratios(found: Mapping[str, Any]) -> list[float]:
    """The ratios of the masks, which are those of the control."""
    return [arm["ratio"] for arm in found["arms"] if arm["arm"] == CONTROL]


def comparison_rows(found: Mapping[str, Any], ratio: float) -> list[dict[str, str]]:
    """Every arm at one ratio, and those without a ratio, with the difference to the control."""
    against = {one["arm"]: one for one in found["differences"] if one["ratio"] == ratio}
    return [
        {
            "name": arm["arm"],
            "selected": f"{arm['selected']:,}",
            "learning_rate": f"{arm['learning_rate']:.2g}{' †' * arm['edge']}",
            "figure": f"{'≤ ' * arm['at_least']}{arm['mean']:.3f}",
            **_difference(against.get(arm["arm"])),
        }
        for arm in found["arms"]
        if arm["ratio"] in (ratio, None)
    ]


def _difference(one: Mapping[str, Any] | None) -> dict[str, str]:
    if one is None:
        return dict.fromkeys(("difference", "interval", "holm", "smallest", "rest"), "")
    rest = one["without_unit_0"]
    return {
        "difference": f"{_BOUNDS[one['bound']]}{one['mean']:+.3f}",
        "interval": interval(one["interval"], _signed),
        "holm": "" if one["p"] is None else f"{one['holm']:.3f}",
        "smallest": "" if one["smallest"] is None else f"{one['smallest']:.3f}",
        "rest": ""
        if rest is None
        else f"{rest['mean']:+.3f} {interval(rest['interval'], _signed)}".strip(),
    }


def comparison_notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know about the figures, if it applies."""
    arms = found["arms"]
    early = [arm["name"] for arm in arms if arm["at_least"]]
    broken = [f"{a['name']} (unit {u['unit']})" for a in arms for u in _broken(a)]
    edge = [arm["name"] for arm in arms if arm["edge"]]
    over = [arm["name"] for arm in arms if arm["over"]]
    notes = []
    if early:
        notes.append(
            "≤ at least this much is forgotten: on some unit the run ended before the retain "
            f"probability had fallen to {found['share']:g} of before, so the figure is that at "
            f"its end ({', '.join(early)}). A difference is then at most (≤), at least (≥), or "
            "either (?)."
        )
    if broken:
        notes.append(f"Broke off, so read up to that point: {', '.join(broken)}.")
    if edge:
        notes.append(
            f"† the best learning rate is the lowest or highest one tried ({', '.join(edge)}); "
            "a better one may lie beyond."
        )
    if over:
        notes.append(
            f"Over-unlearned, under half of the reference's figure: {', '.join(over)}. Lower is not "
            "better there."
        )
    if "complement" in {arm["arm"] for arm in arms}:
        notes.append(
            f"complement at a ratio selects all weights that {arms[0]['arm']} leaves out there, "
            f"so it has a different number of weights than {CONTROL}."
        )
    if "dense" not in {arm["arm"] for arm in arms}:
        notes.append("There is no dense run to compare the masks with; add the arm dense.")
    if not found["forget_set_varies"]:
        notes.append(
            "Every unit forgets the same records: units differ only in seed and order of "
            "teaching, so nothing is shown for other records."
        )
    return notes


def _broken(arm: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"unit": number, **unit}
        for number, unit in enumerate(arm["units"])
        if unit["stopped"] is not None
    ]
