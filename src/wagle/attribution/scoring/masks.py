"""From a gradient store to a mask: what is asked is checked, then scored, then selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.candidates import (
    Candidates,
    Measure,
    Measured,
    candidate_names,
    matching,
)
from wagle.attribution.scoring.gamma import (
    check_damping,
    curvature_of,
    gamma_quantities,
    read_gamma,
    resolve_damping,
    resolve_gamma,
)
from wagle.attribution.scoring.levels import Group, select
from wagle.attribution.scoring.scores import (
    Score,
    find_score,
    needs,
    random,
    read_mapping,
    score_name,
    score_settings,
    wanda,
)
from wagle.attribution.scoring.selection import count_fours, count_levels, exact_ratio, read_ladder
from wagle.mask.mask import Gamma, Mask
from wagle.mask.writing import MaskWriter
from wagle.model.structure import place
from wagle.system.errors import WagleError, choose

DEFAULT_RATIO = 0.8
SCOPES = ("auto", "global", "tensor", "row", "block")


def needed_quantities(score: str | Score | Mapping[str, Any], gamma: Gamma = "auto") -> list[str]:
    """What a gradient store must hold for a score, in a fixed order; the weights are always there.

    Args:
        score: a name, a function, or a mapping with one key (which needs nothing).
        gamma: as it is asked for; only scores that have gamma read it.
    """
    if isinstance(score, Mapping):
        return []
    asked = needs(find_score(score))
    wanted = {*asked.quantities, *(gamma_quantities(gamma) if "gamma" in asked.settings else ())}
    return [quantity for quantity in COLLECTED if quantity in wanted]


def mask_from_scores(
    store: Measured,
    *,
    score: str | Score | Mapping[str, Any],
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
        _refuse_beside(
            score, ratio=ratio, scope=None if scope == "auto" else scope, settings=settings
        )
        return _mask_of_masks(store, score, include, exclude, seed)
    ladder = read_ladder(DEFAULT_RATIO if ratio is None else ratio)
    function = find_score(score)
    given = score_settings(score, settings)
    if scope == "auto":
        scope = "row" if function is wanda else "global"
    candidates = Candidates(store, _names(store, score, gamma, include, exclude), seed)
    groups = _groups(candidates, scope, ladder)
    asked = needs(function)
    if "weight" in asked.quantities or (
        "gamma" in asked.settings and "weight" in gamma_quantities(gamma)
    ):
        store.check_weights()
    chosen = _from_data(candidates, score, gamma, damping)
    measure = Measure(function, asked.quantities, {**chosen, **given})
    found = select(candidates, measure, groups, ladder, by_row=scope == "row")
    packed = found.writer.finish(
        found.counts,
        {
            **_about(candidates, include, exclude),
            "score": score_name(score),
            "settings": {
                **measure.settings,
                **({"seed": seed} if "uniform" in measure.quantities else {}),
            },
            "gamma": dict(gamma) if isinstance(gamma, Mapping) else gamma,
            "damping": damping,
            "scope": scope,
            "thresholds": found.thresholds if scope == "global" else None,
            "theta_share": found.theta_share,
            "score_histogram": found.histogram,
        },
    )
    return Mask(*packed)


def _about(
    candidates: Candidates, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, Any]:
    names = list(candidates.names)
    return {
        "include": list(include),
        "exclude": list(exclude),
        "names": None if len(names) == len(candidates.store.shapes) else names,
        "candidates": candidates.total,
        "model": candidates.store.model_fingerprint,
    }


# ---------------------------------------------------------------------------------------------
# What is asked


def _names(
    store: Measured,
    score: str | Score,
    gamma: Gamma,
    include: Sequence[str],
    exclude: Sequence[str],
) -> list[str]:
    """The candidate parameters: those that pass the patterns and have what the score needs."""
    wanted = needed_quantities(score, gamma)
    for quantity in wanted:
        if quantity not in store.quantities:
            own = quantity in needs(find_score(score)).quantities
            what = f"the score {score_name(score)!r}" if own else f"gamma {gamma!r}"
            raise WagleError(
                f"{what} needs {quantity}, which this gradient store lacks; collect it: "
                f"wagle.gradients(..., quantities={wanted}), or attribution.quantities in a recipe"
            )
    names = candidate_names(store.shapes, include, exclude)
    for quantity in wanted:
        inside = [name for name in names if store.has(quantity, name)]
        if not inside:
            raise WagleError(
                f"include and exclude leave no parameter with {quantity}, which the score "
                f"{score_name(score)!r} needs"
            )
        names = inside
    return names


def _from_data(
    candidates: Candidates, score: str | Score, gamma: Gamma, damping: float | str
) -> dict[str, float]:
    """Gamma and damping as numbers, where the score has them."""
    function = find_score(score)
    asked = needs(function).settings
    found: dict[str, float] = {}
    if "gamma" in asked:
        found["gamma"] = resolve_gamma(candidates, gamma)
    if "damping" in asked:
        auto = damping == "auto"
        of = curvature_of(function, f"the score {score_name(score)!r}") if auto else ""
        found["damping"] = resolve_damping(candidates, damping, of)
    return found


def _groups(candidates: Candidates, scope: str, ladder: Sequence[float | str]) -> list[Group]:
    """Who competes with whom; a ratio that selects nothing anywhere is an error."""
    kept: dict[str, list[str]] = {}
    for name in candidates.names:
        key = {"global": "", "block": place(name)[0] or name}.get(scope, name)
        kept.setdefault(key, []).append(name)
    groups = []
    for names in kept.values():
        total = candidates.row_length(names[0]) if scope == "row" else candidates.of(names).total
        groups.append(Group(names, [int(exact_ratio(one) * total) for one in ladder]))
    for which, ratio in enumerate(ladder):
        if not any(group.counts[which] for group in groups):
            where = f"{candidates.total} weights" if scope == "global" else f"any {scope}"
            raise WagleError(f"ratio {ratio} of {where} selects none; raise it")
    return groups


# ---------------------------------------------------------------------------------------------
# Masks made of masks and names


def _mask_of_masks(
    store: Measured,
    score: Mapping[str, Any],
    include: Sequence[str],
    exclude: Sequence[str],
    seed: int,
) -> Mask:
    """The three scores that are no function of a weight and its gradients."""
    kind, value = read_mapping(score)
    if kind == "by_name":
        return _by_name(store, value, include, exclude)
    if include or exclude:
        raise WagleError(
            f"the score {kind!r} ranges over the candidates of its mask; remove include and exclude"
        )
    where = f"the mask {value}" if isinstance(value, str | Path) else "the mask"
    other = value if isinstance(value, Mask) else Mask.load(value)
    made_for = str(other.metadata.get("model"))
    if made_for != store.model_fingerprint or other.shapes != store.shapes:
        raise WagleError(
            f"{where} belongs to model {made_for[:6]}, this gradient store to "
            f"{store.model_fingerprint[:6]}; make one for it with wagle attribute"
        )
    candidates = Candidates(store, other.candidate_names, seed)
    if kind == "random_like":
        return _random_like(candidates, other)
    made = other.complement()
    made.metadata = {**_control(kind, candidates, {}), **made.metadata}
    return made


def _refuse_beside(score: Mapping[str, Any], **given: Any) -> None:
    for name, value in given.items():
        if value not in (None, {}):
            raise WagleError(
                f"the score {next(iter(score), None)!r} has its own ratio and no scope or settings; "
                f"remove {name}"
            )


def _control(
    kind: str, candidates: Candidates, settings: dict[str, Any], scope: str | None = None
) -> dict[str, Any]:
    return {
        **_about(candidates),
        "score": kind,
        "settings": settings,
        "scope": scope,
        "thresholds": None,
        "theta_share": None,
        "score_histogram": None,
    }


def _short(mask: Mask) -> str:
    return str(mask.metadata.get("score"))


def _by_name(
    store: Measured, patterns: list[str], include: Sequence[str], exclude: Sequence[str]
) -> Mask:
    """All weights of the candidate parameters that match."""
    candidates = Candidates(store, candidate_names(store.shapes, include, exclude))
    chosen = candidates.of(sorted(matching(candidates.names, patterns, "score.by_name")))
    writer = MaskWriter(store.shapes, [chosen.total / candidates.total])
    for name in chosen.names:
        writer.add(name, torch.ones(store.size(name), dtype=torch.uint8))
    about = _control("by_name", candidates, {"patterns": patterns})
    about |= {"include": list(include), "exclude": list(exclude)}
    return Mask(*writer.finish([chosen.total], about))


def _random_like(candidates: Candidates, other: Mask) -> Mask:
    """Uniform draws, in every tensor as many as another mask selects there at each of its ratios."""
    groups = []
    for name in candidates.names:
        levels = count_levels(count_fours(other.level(name).reshape(-1)))
        most = len(other.ratios)
        groups.append(Group([name], [int(levels[most - i :].sum()) for i in range(most)]))
    measure = Measure(random, ("uniform",), {})
    found = select(candidates, measure, groups, other.ratios)
    settings = {"like": _short(other), "seed": candidates.seed}
    about = _control("random_like", candidates, settings, scope="tensor")
    return Mask(*found.writer.finish(found.counts, about))
