"""The attacks section: what each was, what it brought back, and how far that is evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wagle.evaluation.figures import ROLES
from wagle.report.attack_findings import (
    LEAK,
    LOOKS,
    Found,
    by_rate,
    effect_on,
    read_figure,
    shown_figures,
    states_of,
    strongest,
)
from wagle.report.disclosure import public
from wagle.report.figure_notes import notes, other_count
from wagle.report.html.charts import lines_chart
from wagle.report.html.page import Page
from wagle.report.html.section import Section
from wagle.report.settings import listed

_MEANINGS = {
    "relearning": "Each model was taught some records for a few steps, and measured along the way.",
    "quantization": "The weights of each model were rounded to a few bits, and the same was asked "
    "again.",
    "prompts": "Each model was asked for the forget records in other ways.",
    "probe": "A classifier reads the hidden states of each model. The largest of many figures lies "
    "above chance even if there is nothing to read, so the same is shown for shuffled "
    "labels.",
    "sampling": "Each model was asked every forget question many times: how likely one of k answers "
    "leaks.",
}
_CURVES = ("forget.probability", "held_out.probability")  # of relearning
_STEPS, _ANSWERS = "step", "k answers"
_SEE = {
    _STEPS: "Where after rises faster than the reference, something was left to bring back.",
    _ANSWERS: "Where after lies above the reference, something leaks that one answer may hide.",
}


def attacks(page: Page) -> Section | None:
    """What the attacks found, if there were any."""
    if not page.attacks:
        return None
    found = [attack_part(label, one, page.short) for label, one in page.attacks.items()]
    return Section("attacks", "Attacks", 40, {"attacks": found})


def attack_part(label: str, found: Found, short: Callable[[str], str]) -> dict[str, Any]:
    """What the page shows for one attack; ``short`` cuts paths to names."""
    roles = [role for role in ROLES if role in found["roles"]]
    groups = _groups(found, roles)
    rows = [row for group in groups.values() for row in group["rows"]]
    noted = notes((row["name"], row["figures"]) for row in rows) | _undefined(rows)
    return {
        "label": label,
        "attack": found["attack"],
        "meaning": _MEANINGS.get(found["attack"], ""),
        "settings": short(listed(public(found["settings"]))),
        "strongest": strongest(found),
        "roles": roles,
        "groups": groups,
        "recovered": any(row["recovered"] for row in rows),
        "gap": any(row["gap"] for row in rows),
        "notes": {short(text): of for text, of in noted.items()},
        "curves": _curves(found, roles),
        "legend": [(f"curve-{role}", role) for role in roles],
        "codes": [_code_sentence(how, counts) for how, counts in found.get("codes", {}).items()],
    }


def _groups(found: Found, roles: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The parts of the table by heading: a figure over the states, or a state's figures."""
    looks = found["attack"] in LOOKS
    groups: dict[str, dict[str, Any]] = {}
    for state, name in shown_figures(found):
        figures = {role: f for role in roles if (f := read_figure(found, role, state, name))}
        group = groups.setdefault(state if looks else name, {"counts": {}, "rows": []})
        group["counts"] |= figures
        group["rows"].append(
            {
                "title": name if looks else state,
                "name": name,
                "figures": figures,
                **_effect_texts(effect_on(found, state, name)),
            }
        )
    return {
        heading: {"n": other_count(group["counts"], 0), "rows": group["rows"]}
        for heading, group in groups.items()
    }


def _effect_texts(effect: Mapping[str, Any] | None) -> dict[str, str]:
    """What an attack brought back, as the table shows it, and why a share is missing."""
    share, gap = (effect[key] if effect else None for key in ("recovered", "gap"))
    moved = effect is not None and effect["rise"] is not None
    return {
        "recovered": "" if share is None else f"{100 * share:.0f} %",
        "gap": "" if gap is None else f"{gap:+.3f}",
        "undefined": (effect["note"] or "") if effect and moved else "",
    }


def _undefined(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Why a recovered share is not defined, with the figures this concerns."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["undefined"]:
            text = f"no share is shown: {row['undefined'].removeprefix('undefined: ')}"
            found.setdefault(text, []).append(row["name"])
    return {text: ", ".join(dict.fromkeys(names)) for text, names in found.items()}


def _curves(found: Found, roles: Sequence[str]) -> list[dict[str, Any]]:
    """A line per model over the steps of relearning, or over the number of sampled answers."""
    states = states_of(found)
    points: dict[str, list[tuple[int, str, str]]] = {}  # by figure: x, state, name
    if found["attack"] == "relearning":
        for name in _CURVES:
            for rate, steps in by_rate(s for s in states if name in states[s]).items():
                title = f"{name}, learning rate {rate}" if rate else name
                points[title] = [(step, state, name) for step, state in steps]
    elif found["attack"] == "sampling":
        state = next(iter(states))
        names = [name for name in states[state] if name.startswith(LEAK)]
        points["leak@k"] = [(int(name.removeprefix(LEAK)), state, name) for name in names]
    over = _STEPS if found["attack"] == "relearning" else _ANSWERS
    made = []
    for title, places in points.items():
        rows = [
            {
                "step": x,
                **{role: f.value for role in roles if (f := read_figure(found, role, state, name))},
            }
            for x, state, name in places
        ]
        chart = _curve(rows, title, over)
        if chart:
            made.append({"title": title, "over": over, "see": _SEE[over], "chart": chart})
    return made


def _curve(rows: list[dict[str, Any]], title: str, over: str) -> Markup:
    return lines_chart(
        rows,
        {role: role == "reference" for role in ROLES},
        f"{title} by {over}, a line for each model",
        y_title=title,
        x_title=over,
    )


def _code_sentence(how: str, counts: Mapping[str, Any]) -> str:
    """What rounding alone undoes, read off the weights."""
    rest = counts["not_quantized"]
    left = f" {rest:,} more stay unrounded." if rest else ""
    if counts["code_changed"] is None:
        return f"{how}: none of the weights that changed is rounded.{left}"
    some = "changed" if counts["weights"] == counts["changed"] else "selected"
    text = (
        f"{how}: {100 * counts['code_changed']:.0f} % of the {counts['weights']:,} {some} weights "
        f"have another {how} code than in the original"
    )
    if counts["below_half_step"] is not None:
        moved = "" if some == "changed" else f" of the {counts['changed']:,} that changed"
        text += f"; {100 * counts['below_half_step']:.0f} %{moved} moved by less than half a step"
    return f"{text}.{left}"
