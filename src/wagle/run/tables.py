"""The names that a recipe may use, collected from the tables of all rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from wagle.attacks.table import ATTACKS
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.scores import SCORES
from wagle.data.demo import DEMO_SETS
from wagle.data.templates import TEMPLATES
from wagle.evaluation.table import BENCHMARKS
from wagle.metrics.membership import MEMBERSHIP_ATTACKS
from wagle.model.quantization.kinds import FILES, LOADS
from wagle.system.errors import WagleError, choose
from wagle.system.plugins import find, installed, origin
from wagle.unlearning.objectives.retaining import RETAIN_TERMS
from wagle.unlearning.objectives.table import OBJECTIVES
from wagle.unlearning.training.optimizers import OPTIMIZERS
from wagle.unlearning.watching.rules import FIGURES, OF_OPTIONS

_TABLES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "objectives": ("objective", OBJECTIVES),
    "retain_terms": ("retain_term", RETAIN_TERMS),
    "scores": ("score", SCORES),
    "benchmarks": ("benchmark", BENCHMARKS),
    "attacks": ("attack", ATTACKS),
    "data": ("data", {f"demo:{name}": None for name in DEMO_SETS}),
}


def members(what: str) -> list[dict[str, str]]:
    """What a recipe may name, and what installed plug-ins add to it.

    Args:
        what: ``objectives``, ``retain_terms``, ``scores``, ``benchmarks``, ``attacks`` or ``data``.

    Returns:
        Of each its ``name``, the package that it is ``from`` and a sentence ``about`` it. A plug-in
        that cannot be imported is listed with the reason.
    """
    kind, table = choose(_TABLES, what, "kind of plug-in")
    rows = []
    for name in [*table, *(found for found in installed(kind) if found not in table)]:
        try:
            about = _about(find(table, name, kind))
        except WagleError as error:
            about = str(error)
        rows.append({"name": name, "from": origin(table, name, kind), "about": about})
    return rows


def _about(member: Any) -> str:
    """The first sentence of what a member says of itself."""
    if member is None:
        return ""
    text = getattr(getattr(member, "function", member), "__doc__", None) or ""
    return " ".join(text.strip().split("\n\n")[0].split())


def setting_names() -> dict[str, list[str]]:
    """For every ``{table}`` in the text of a setting, the names in that table, in its order.

    Optimisers exclude torch's own, which depend on its version; membership attacks are those that a
    recipe may ask for: ``reference`` is added automatically.
    """
    own = [name for name in OPTIMIZERS if not hasattr(torch.optim, name)]
    return {
        "attacks": list(ATTACKS),
        "benchmarks": list(BENCHMARKS),
        "files": list(FILES),
        "figures": [name for name in FIGURES if name not in OF_OPTIONS],
        "figures_of_options": [name for name in FIGURES if name in OF_OPTIONS],
        "loads": list(LOADS),
        "membership_attacks": [name for name in MEMBERSHIP_ATTACKS if name != "reference"],
        "objectives": list(OBJECTIVES),
        "optimizers": [name for name in own if not isinstance(OPTIMIZERS[name], str)],
        "optimizers_8bit": [name for name in own if isinstance(OPTIMIZERS[name], str)],
        "quantities": list(COLLECTED),
        "scores": list(SCORES),
        "templates": list(TEMPLATES),
    }
