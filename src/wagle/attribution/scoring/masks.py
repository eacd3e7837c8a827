"""From a gradient store to a mask: check the request, then score, then select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.candidates import Candidates, Measure, Measured, candidate_names
from wagle.attribution.scoring.choice import Chosen, choose_score, score_settings
from wagle.attribution.scoring.entry import Function
from wagle.attribution.scoring.gamma import (
    check_damping,
    curvature_of,
    gamma_quantities,
    read_gamma,
    resolve_damping,
    resolve_gamma,
)
from wagle.attribution.scoring.levels import Group, select
from wagle.attribution.scoring.ratios import exact_count, read_ladder
from wagle.attribution.scoring.unscored import mask_without_scores, refuse_beside
from wagle.mask.mask import Mask
from wagle.model.structure import place
from wagle.recipe.rules import Gamma
from wagle.system.errors import WagleError, choose

DEFAULT_RATIO = 0.8
SCOPES = ("auto", "global", "tensor", "row", "block")


def needed_quantities(
    score: str | Function | Mapping[str, Any], gamma: Gamma = "auto"
) -> list[str]:
    """What a gradient store must hold for a score, in a fixed order; weights are always there.

    Args:
        score: a name, a function, or a mapping with one key (which needs nothing).
        gamma: the gamma as given; only scores with gamma read it.
    """
    if isinstance(score, Mapping):
        return []
    wanted = _read(choose_score(score), gamma)
    return [quantity for quantity in COLLECTED if quantity in wanted]


def _read(score: Chosen, gamma: Gamma) -> set[str]:
    """What is read for every weight: what the score needs, and what its gamma is chosen from."""
    chosen_from = gamma_quantities(gamma) if "gamma" in score.entry.settings else ()
    return {*score.entry.quantities, *chosen_from}


def mask_from_scores(
    store: Measured,
    *,
    score: str | Function | Mapping[str, Any],
    gamma: Gamma,
    damping: float | str,
    settings: Mapping[str, float],
    ratio: float | str | Sequence[float | str] | None,
    scope: str,
    include: Sequence[str],
    exclude: Sequence[str],
    seed: int,
) -> Mask:
    """Score every candidate weight and select the best share of them: ``Mask.from_scores``."""
    choose(dict.fromkeys(SCOPES), scope, "scope")
    read_gamma(gamma)
    check_damping(damping)
    if isinstance(score, Mapping):
        own_scope = None if scope == "auto" else scope
        refuse_beside(score, ratio=ratio, scope=own_scope, settings=settings)
        return mask_without_scores(store, score, include, exclude, seed)
    ladder = read_ladder(DEFAULT_RATIO if ratio is None else ratio)
    chosen = choose_score(score)
    entry, given = chosen.entry, score_settings(chosen, settings)
    if scope == "auto":
        scope = entry.scope
    candidates = Candidates(store, _names(store, chosen, gamma, include, exclude), seed)
    groups = _groups(candidates, scope, ladder)
    if "weight" in _read(chosen, gamma):
        store.check_weights()
    numbers = _from_data(candidates, chosen, gamma, damping)
    measure = Measure(entry.function, entry.quantities, {**numbers, **given})
    dominated = entry.dominated(measure.settings)
    by_row = scope == "row"
    found = select(candidates, measure, groups, ladder, by_row=by_row, dominated=dominated)
    drawn = {"seed": seed} if "uniform" in measure.quantities else {}
    about = {
        **candidates.describe(include, exclude),
        "score": chosen.name,
        "settings": {**measure.settings, **drawn},
        "gamma": dict(gamma) if isinstance(gamma, Mapping) else gamma,
        "damping": damping,
        "scope": scope,
        "thresholds": found.thresholds if scope == "global" else None,
        "theta_share": found.theta_share,
        "score_histogram": found.histogram,
    }
    return Mask(*found.writer.finish(found.counts, about))


# ---------------------------------------------------------------------------------------------
# The request


def _names(
    store: Measured, score: Chosen, gamma: Gamma, include: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """The candidate parameters: those that match the patterns and have what the score needs."""
    needed = _read(score, gamma)
    wanted = [quantity for quantity in COLLECTED if quantity in needed]
    for quantity in wanted:
        if quantity not in store.quantities:
            own = quantity in score.entry.quantities
            what = score if own else f"gamma {gamma!r}"
            raise WagleError(
                f"{what} needs {quantity}, which this gradient store lacks; collect it: "
                f"wagle.gradients(..., quantities={wanted}), or attribution.quantities in a recipe"
            )
    names = candidate_names(store.shapes, include, exclude)
    for quantity in wanted:
        inside = [name for name in names if store.has(quantity, name)]
        if not inside:
            raise WagleError(
                f"include and exclude leave no parameter with {quantity}, which {score} needs"
            )
        names = inside
    return names


def _from_data(
    candidates: Candidates, score: Chosen, gamma: Gamma, damping: float | str
) -> dict[str, float]:
    """Gamma and damping as numbers, if the score has them."""
    asked = score.entry.settings
    found: dict[str, float] = {}
    if "gamma" in asked:
        found["gamma"] = resolve_gamma(candidates, gamma)
    if "damping" in asked:
        of = curvature_of(score.entry.quantities, score) if damping == "auto" else ""
        found["damping"] = resolve_damping(candidates, damping, of)
    return found


def _groups(candidates: Candidates, scope: str, ladder: Sequence[float | str]) -> list[Group]:
    """Which weights compete with which; a ratio that selects nothing anywhere is an error."""
    kept: dict[str, list[str]] = {}
    for name in candidates.names:
        key = {"global": "", "block": place(name)[0] or name}.get(scope, name)
        kept.setdefault(key, []).append(name)
    groups = []
    for names in kept.values():
        total = candidates.row_length(names[0]) if scope == "row" else candidates.of(names).total
        groups.append(Group(names, [exact_count(one, total) for one in ladder]))
    for which, ratio in enumerate(ladder):
        if not any(group.counts[which] for group in groups):
            where = f"{candidates.total} weights" if scope == "global" else f"any {scope}"
            raise WagleError(f"ratio {ratio} of {where} selects none; raise it")
    return groups
