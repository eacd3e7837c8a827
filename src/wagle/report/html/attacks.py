"""The section of attacks: what each was, what it brought back, and how far that is evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from markupsafe import Markup

from wagle.evaluation.figures import Figure
from wagle.recipe.recipe import Recipe
from wagle.report.html.asked import listed
from wagle.report.html.charts import lines_chart
from wagle.report.rows import ROLES, notes, other_count

Found: TypeAlias = Mapping[str, Any]  # what a file wagle-attack/1 holds
_FORGET = ("forget.probability", "forget.paraphrased", "forget.extraction_strength")
MAIN: dict[str, tuple[str, ...]] = {
    "relearning": (*_FORGET, "held_out.probability"),
    "quantization": _FORGET,
    "prompts": ("probability", "extraction_strength", "rouge_l"),
}
_MEANINGS = {
    "relearning": "Each model was taught some records for a few steps, and looked at on the way.",
    "quantization": "The weights of each model were rounded to few bits, and the same was asked "
    "again.",
    "prompts": "Each model was asked for the forget records in other ways.",
    "probe": "A classifier reads the hidden states of each model. The largest of many figures lies "
    "above chance even where there is nothing to read, so the same stands beside it for shuffled "
    "labels.",
    "sampling": "Each model was asked every forget question many times: how likely one of k answers "
    "leaks.",
}
_LOOKS = ("probe", "sampling")  # once: their states are not steps of one way
_CURVES = ("forget.probability", "held_out.probability")  # of relearning
_STEPS, _ANSWERS = "step", "k answers"
_SEE = {
    _STEPS: "Where after rises faster than the reference, something was left to bring back.",
    _ANSWERS: "Where after lies above the reference, something leaks that one answer may hide.",
}
_LEAK, _MAXIMUM, _SHUFFLED = "leak@", "_maximum", "_maximum_shuffled"


# ---------------------------------------------------------------------------------------------
# Nothing of a record


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an attack as others may see them: what is given record by record is counted."""
    return {
        key: f"of {len(value)} records" if isinstance(value, Mapping) else value
        for key, value in settings.items()
    }


def public_recipe(recipe: Recipe) -> Recipe:
    """The recipe, but for what its attacks are given record by record, unless ``show_text``."""
    if recipe.report.show_text:
        return recipe
    attacks = [one.model_copy(update={"settings": public(one.settings)}) for one in recipe.attacks]
    return recipe.model_copy(update={"attacks": attacks})


# ---------------------------------------------------------------------------------------------
# What the page shows


def attack_sections(
    found: Mapping[str, Found], short: Callable[[str], str]
) -> list[dict[str, Any]]:
    """What the page shows of every attack that was made.

    Args:
        found: by what the recipe calls it, its file.
        short: cuts paths to names.
    """
    return [_section(label, one, short) for label, one in found.items()]


def _section(label: str, found: Found, short: Callable[[str], str]) -> dict[str, Any]:
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


def read_figure(found: Found, role: str, state: str, name: str) -> Figure | None:
    """A figure of a model in a state, from an attack's file, if it is there."""
    data = found["roles"].get(role, {}).get("states", {}).get(state, {}).get(name)
    if data is None:
        return None
    interval = data["interval"] and tuple(data["interval"])
    return Figure(
        data["value"], interval, "", unit=data["unit"], note=data["note"], count=data["n"]
    )


def _states(found: Found) -> dict[str, list[str]]:
    """The names of the figures by state, of the unlearned model, which was attacked always."""
    return {state: list(names) for state, names in found["roles"]["after"]["states"].items()}


def _shown(found: Found) -> list[tuple[str, str]]:
    """The figures that are shown, as pairs of state and name, those of one figure together."""
    states, name = _states(found), found["attack"]
    if name == "sampling":
        return [(state, n) for state, names in states.items() for n in _doubling(names)]
    if name == "probe":
        ends = (_MAXIMUM, _SHUFFLED)
        return [(state, n) for state, names in states.items() for n in names if n.endswith(ends)]
    first = next(iter(states.values()))
    return [(s, n) for n in MAIN.get(name, first) for s, names in states.items() if n in names]


def _groups(found: Found, roles: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The parts of the table by their heading: a figure over the states, or a state's figures."""
    looks = found["attack"] in _LOOKS
    groups: dict[str, dict[str, Any]] = {}
    for state, name in _shown(found):
        figures = {role: f for role in roles if (f := read_figure(found, role, state, name))}
        group = groups.setdefault(state if looks else name, {"counts": {}, "rows": []})
        group["counts"] |= figures
        group["rows"].append(
            {
                "title": name if looks else state,
                "name": name,
                "figures": figures,
                **_effect_texts(_effect(found, state, name)),
            }
        )
    return {
        heading: {"n": other_count(group["counts"], 0), "rows": group["rows"]}
        for heading, group in groups.items()
    }


def _effect(found: Found, state: str, name: str) -> Mapping[str, Any] | None:
    """What the attack did to a figure; a control of shuffled labels has no effect."""
    effect: Mapping[str, Any] | None = found["effects"].get(state, {}).get(name)
    return None if name.endswith(_SHUFFLED) else effect


def _effect_texts(effect: Mapping[str, Any] | None) -> dict[str, str]:
    """What an attack brought back, as the table shows it, and why there is no share of it."""
    share, gap = (effect[key] if effect else None for key in ("recovered", "gap"))
    moved = effect is not None and effect["rise"] is not None
    return {
        "recovered": "" if share is None else f"{100 * share:.0f} %",
        "gap": "" if gap is None else f"{gap:+.3f}",
        "undefined": (effect["note"] or "") if effect and moved else "",
    }


def _doubling(names: Iterable[str]) -> list[str]:
    """``leak@1``, ``leak@2``, ``leak@4`` and so on, and the last."""
    ks = [int(name.removeprefix(_LEAK)) for name in names if name.startswith(_LEAK)]
    return [f"{_LEAK}{k}" for k in ks if k & (k - 1) == 0 or k == max(ks)]


def _undefined(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Why a recovered share cannot be told, with the figures that this is so of."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["undefined"]:
            text = f"no share of it can be told: {row['undefined'].removeprefix('undefined: ')}"
            found.setdefault(text, []).append(row["name"])
    return {text: ", ".join(dict.fromkeys(names)) for text, names in found.items()}


def _curves(found: Found, roles: Sequence[str]) -> list[dict[str, Any]]:
    """A line per model over the steps of relearning, or over the number of sampled answers."""
    states = _states(found)
    points: dict[str, list[tuple[int, str, str]]] = {}  # by figure: x, state, name
    if found["attack"] == "relearning":
        for name in _CURVES:
            for rate, steps in by_rate(s for s in states if name in states[s]).items():
                title = f"{name}, learning rate {rate}" if rate else name
                points[title] = [(step, state, name) for step, state in steps]
    elif found["attack"] == "sampling":
        state = next(iter(states))
        names = [name for name in states[state] if name.startswith(_LEAK)]
        points["leak@k"] = [(int(name.removeprefix(_LEAK)), state, name) for name in names]
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


def by_rate(states: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    """The states of relearning with their steps, by learning rate: of one rate the name is empty.

    Of several, each begins with ``step 0``, the model as it is.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for state in states:
        rate, _, step = state.rpartition("step ")
        found.setdefault(rate.removesuffix(", "), []).append((int(step), state))
    first = found.pop("", []) if len(found) > 1 else []
    return {rate: [*first, *steps] for rate, steps in found.items()}


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


# ---------------------------------------------------------------------------------------------
# In one sentence


def strongest(found: Found) -> str:
    """The most that an attack brought back: against the reference, where there is one.

    Args:
        found: what its file holds.
    """
    pairs = _shown(found)
    told = [(e, f"{name}, {state}") for state, name in pairs if (e := _effect(found, state, name))]
    gaps = [(effect["gap"], where) for effect, where in told if effect["gap"] is not None]
    if gaps:
        most, where = max(gaps)
        return f"largest gap to the reference {most:+.3f} ({where})"
    shares = [(e["recovered"], where) for e, where in told if e["recovered"] is not None]
    if shares:
        most, where = max(shares)
        return f"at most {100 * most:.0f} % recovered ({where}); no evidence without a reference"
    if found["attack"] == "sampling":
        pairs = pairs[-1:]
    if found["attack"] in _LOOKS:
        own = [pair for pair in pairs if not pair[1].endswith(_SHUFFLED)]
        return "; ".join(_beside(found, *pair) for pair in own)
    return "what it brought back cannot be told"


def _beside(found: Found, state: str, name: str) -> str:
    """A figure after, and beside it the same before and of shuffled labels."""
    beside = {"before": read_figure(found, "before", state, name)}
    if name.endswith(_MAXIMUM):
        control = name.replace(_MAXIMUM, _SHUFFLED)
        beside["shuffled labels"] = read_figure(found, "after", state, control)
    texts = ", ".join(f"{what} {_text(figure)}" for what, figure in beside.items() if figure)
    return f"{name} {_text(read_figure(found, 'after', state, name))}" + (
        f" ({texts})" if texts else ""
    )


def _text(figure: Figure | None) -> str:
    return "-" if figure is None or figure.value is None else f"{figure.value:.3f}"
