"""What an attack found: the figures shown for it, and the most that it brought back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from wagle.evaluation.figures import Figure
from wagle.report.files import LEAK as LEAK
from wagle.report.numbers import or_dash

Found: TypeAlias = Mapping[str, Any]  # the content of a wagle-attack/1 file
_FORGET = ("forget.probability", "forget.paraphrased", "forget.extraction_strength")
MAIN: dict[str, tuple[str, ...]] = {
    "relearning": (*_FORGET, "held_out.probability"),
    "quantization": _FORGET,
    "prompts": ("probability", "extraction_strength", "rouge_l"),
}
LOOKS = ("probe", "sampling")  # they observe once: their states are not successive steps
_MAXIMUM, _SHUFFLED = "_maximum", "_maximum_shuffled"


def read_figure(found: Found, role: str, state: str, name: str) -> Figure | None:
    """A model's figure in a state, from an attack's file, if it is there."""
    data = found["roles"].get(role, {}).get("states", {}).get(state, {}).get(name)
    if data is None:
        return None
    interval = data["interval"] and tuple(data["interval"])
    return Figure(
        data["value"], interval, "", unit=data["unit"], note=data["note"], count=data["n"]
    )


def states_of(found: Found) -> dict[str, list[str]]:
    """The names of the unlearned model's figures, by state; that model is always attacked."""
    return {state: list(names) for state, names in found["roles"]["after"]["states"].items()}


def shown_figures(found: Found) -> list[tuple[str, str]]:
    """The figures that are shown, as pairs of state and name, grouped by figure."""
    states, name = states_of(found), found["attack"]
    if name == "sampling":
        return [(state, n) for state, names in states.items() for n in _doubling(names)]
    if name == "probe":
        ends = (_MAXIMUM, _SHUFFLED)
        return [(state, n) for state, names in states.items() for n in names if n.endswith(ends)]
    first = next(iter(states.values()))
    return [(s, n) for n in MAIN.get(name, first) for s, names in states.items() if n in names]


def _doubling(names: Iterable[str]) -> list[str]:
    """``leak@1``, ``leak@2``, ``leak@4`` and so on, and the last."""
    ks = [int(name.removeprefix(LEAK)) for name in names if name.startswith(LEAK)]
    return [f"{LEAK}{k}" for k in ks if k & (k - 1) == 0 or k == max(ks)]


def effect_on(found: Found, state: str, name: str) -> Mapping[str, Any] | None:
    """What the attack did to a figure; a control with shuffled labels has no effect."""
    effect: Mapping[str, Any] | None = found["effects"].get(state, {}).get(name)
    return None if name.endswith(_SHUFFLED) else effect


def by_rate(states: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    """The states of relearning with their steps, by learning rate; a single rate has an empty name.

    With several rates, each begins with ``step 0``, the model as it is.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for state in states:
        rate, _, step = state.rpartition("step ")
        found.setdefault(rate.removesuffix(", "), []).append((int(step), state))
    first = found.pop("", []) if len(found) > 1 else []
    return {rate: [*first, *steps] for rate, steps in found.items()}


def strongest(found: Found) -> str:
    """The most that an attack brought back: against the reference, if there is one.

    Args:
        found: the content of its file.
    """
    pairs = shown_figures(found)
    told = [
        (e, f"{name}, {state}") for state, name in pairs if (e := effect_on(found, state, name))
    ]
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
    if found["attack"] in LOOKS:
        own = [pair for pair in pairs if not pair[1].endswith(_SHUFFLED)]
        return "; ".join(_beside(found, *pair) for pair in own)
    return "how much it brought back cannot be determined"


def _beside(found: Found, state: str, name: str) -> str:
    """A figure after, with the same figure before and for shuffled labels in brackets."""
    beside = {"before": read_figure(found, "before", state, name)}
    if name.endswith(_MAXIMUM):
        control = name.replace(_MAXIMUM, _SHUFFLED)
        beside["shuffled labels"] = read_figure(found, "after", state, control)
    texts = ", ".join(f"{what} {_text(figure)}" for what, figure in beside.items() if figure)
    return f"{name} {_text(read_figure(found, 'after', state, name))}" + (
        f" ({texts})" if texts else ""
    )


def _text(figure: Figure | None) -> str:
    return or_dash(None if figure is None else figure.value)
