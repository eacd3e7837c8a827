"""The weights section: exact counts, where the selected ones are, and their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from wagle.model.structure import place
from wagle.report.html.charts import HEAT, density_chart, heat_chart, scores_chart, top
from wagle.report.html.page import Page
from wagle.report.html.section import Section

Density: TypeAlias = Mapping[str, Mapping[str, tuple[int, int]]]  # (selected, weights)
_LARGE = 0.005  # share of the blocks' weights: smaller kinds (norms, biases) do not set the scale


def weights(page: Page) -> Section:
    """How many weights were selected and changed, the proof, and charts of where they are."""
    context = {
        "weights": {**counts(page), **_densities(page.density)},
        "heat": _heat(page.density),
        "scores": _scores(page),
    }
    return Section("weights", "Weights", 60, context)


def counts(page: Page) -> dict[str, Any]:
    """Exact counts of weights."""
    mask, unlearned, patch = (page.state.get(name, {}) for name in ("mask", "unlearn", "patch"))
    candidates = mask.get("candidates")
    selected = unlearned.get("selected")
    ratio = page.ratio
    exact = (
        ratio is not None
        and candidates is not None
        and (selected == math.floor(Decimal(str(ratio)) * candidates))
    )
    return {
        "candidates": candidates,
        "selected": selected,
        "ratio": ratio if exact else None,
        "adapter": page.recipe.unlearning.lora is not None,
        "changed": patch.get("changed", unlearned.get("changed")),
        "total": patch.get("total"),
        "tensors": patch.get("tensors"),
        "outside": patch.get("outside_mask"),
        "bytes": patch.get("bytes"),
        "share": patch.get("share_of_model"),
        "fingerprints": {
            role: e.details["model"]["fingerprint"][:12]
            for role, e in page.evaluations.items()
            if e.details.get("model", {}).get("fingerprint")
        },
    }


def _densities(density: Density) -> dict[str, Any]:
    """Where the selected weights are, by block and by kind of module."""
    blocks, kinds = density.get("block", {}), density.get("kind", {})
    inside = {name: pair for name, pair in blocks.items() if name.isdecimal() and pair[1]}
    total = [sum(pair[i] for pair in kinds.values()) for i in (0, 1)]
    overall = total[0] / total[1] if total[1] else 0.0
    shares = {name: chosen / of for name, (chosen, of) in inside.items()}
    return {
        "overall": overall,
        "top": top([chosen / of for chosen, of in kinds.values() if of], overall),
        "least": min(shares.items(), key=lambda item: item[1], default=None),
        "most": max(shares.items(), key=lambda item: item[1], default=None),
        "kinds": [
            (n, *pair, pair[0] / pair[1], n in blocks) for n, pair in kinds.items() if pair[1]
        ],
        "chart": density_chart(inside, overall, "share of selected weights per block"),
    }


def _heat(density: Density) -> dict[str, Any]:
    """Density by block and kind; the shades span the kinds that hold most weights."""
    cells = {place(name): pair for name, pair in density.get("parameter", {}).items() if pair[1]}
    cells = {key: pair for key, pair in cells.items() if key[0]}  # inside the blocks only
    if len({block for block, _ in cells}) < 2:
        return {"chart": ""}
    sizes: dict[str, int] = {}
    for (_, kind), (_, of) in cells.items():
        sizes[kind] = sizes.get(kind, 0) + of
    least = _LARGE * sum(sizes.values())
    shares = [chosen / of for (_, kind), (chosen, of) in cells.items() if sizes[kind] >= least]
    overall = sum(chosen for chosen, _ in cells.values()) / sum(sizes.values())
    # at least a fifth around the mean, so that the noise of a random mask looks even
    ends = (min([*shares, 0.8 * overall]), max([*shares, min(1.0, 1.2 * overall)]))
    return {
        "chart": heat_chart(cells, ends, "share of selected weights per block and kind of module"),
        "ends": ends,
        "shades": [HEAT[0] + (HEAT[1] - HEAT[0]) * step / 4 for step in range(5)],
    }


def _scores(page: Page) -> dict[str, Any]:
    """The scores of all blocks together, and the mask's threshold."""
    mask = page.state.get("mask", {})
    found: dict[int | None, int] = {}
    for bins in (mask.get("score_histogram") or {}).values():
        for exponent, n in bins:
            found[exponent] = found.get(exponent, 0) + n
    total = sum(found.values())
    zero = found.pop(None, 0)
    ratios, limits = mask.get("ratios") or [], mask.get("thresholds") or []
    limit = dict(zip(ratios, limits, strict=False)).get(page.ratio)
    shares = {e: n / total for e, n in found.items() if e is not None and n}
    drawn = limit is not None and limit > 0
    return {
        "chart": scores_chart(shares, limit, "scores of the candidate weights"),
        "zero": zero / total if total else 0.0,
        "threshold": limit if drawn else None,
    }
