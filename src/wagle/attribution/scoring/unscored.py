"""Masks without a score: random like another mask, its complement, all weights with certain names.

Each is requested as a mapping with one key, ``{kind: value}``, and has its own ratio. The kinds are
listed in ``wagle.recipe.rules``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wagle.attribution.scoring.candidates import (
    Candidates,
    Measure,
    Measured,
    candidate_names,
    matching,
)
from wagle.attribution.scoring.levels import Group, select
from wagle.attribution.scoring.scores import random
from wagle.attribution.scoring.selection import count_fours, count_levels
from wagle.mask.mask import Mask
from wagle.mask.writing import MaskWriter
from wagle.recipe.rules import UNSCORED, Unfit, parse_unscored
from wagle.system.errors import WagleError, nearest


def read_mapping(score: Mapping[str, Any]) -> tuple[str, Any]:
    """The one key of a score given as a mapping, and its checked value: a mask or patterns."""
    try:
        return parse_unscored(score, lambda value: isinstance(value, Mask | str | Path))
    except Unfit as unfit:
        raise WagleError(_refusal(score, unfit)) from None


def _refusal(score: Mapping[str, Any], unfit: Unfit) -> str:
    if unfit.rule == "keys":
        guess = nearest(str(next(iter(score))), UNSCORED) if len(score) == 1 else None
        hint = f"; did you mean {guess!r}?" if guess else ""
        keys = [str(key) for key in score]
        return f"score has the keys {keys}{hint} (one of {', '.join(UNSCORED)})"
    wanted = {
        "mask": "give a mask, or the path to one",
        "patterns": "give a list of patterns, such as ['ffn', '*.q_proj.*']",
    }[unfit.rule]
    return f"score.{unfit.key} is {unfit.value!r}; {wanted}"


def refuse_beside(score: Mapping[str, Any], **given: Any) -> None:
    """Refuse settings that do not go with a score that has its own ratio."""
    for name, value in given.items():
        if value not in (None, {}):
            raise WagleError(
                f"the score {next(iter(score), None)!r} has its own ratio and takes no scope or "
                f"settings; remove {name}"
            )


def mask_without_scores(
    store: Measured,
    score: Mapping[str, Any],
    include: Sequence[str],
    exclude: Sequence[str],
    seed: int,
) -> Mask:
    """The mask for a score that is not a function of a weight and its gradients."""
    kind, value = read_mapping(score)
    if kind not in _OF_MASK:
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
            f"{where} belongs to model {made_for[:6]}, but this gradient store belongs to "
            f"{store.model_fingerprint[:6]}; make one for it with wagle attribute"
        )
    return _OF_MASK[kind](Candidates(store, other.candidate_names, seed), other)


def _about(
    kind: str, candidates: Candidates, settings: dict[str, Any], scope: str | None = None
) -> dict[str, Any]:
    return {
        **candidates.describe(),
        "score": kind,
        "settings": settings,
        "scope": scope,
        "thresholds": None,
        "theta_share": None,
        "score_histogram": None,
    }


def _by_name(
    store: Measured, patterns: list[str], include: Sequence[str], exclude: Sequence[str]
) -> Mask:
    """All weights of the candidate parameters that match the patterns."""
    candidates = Candidates(store, candidate_names(store.shapes, include, exclude))
    chosen = candidates.of(sorted(matching(candidates.names, patterns, "score.by_name")))
    writer = MaskWriter(store.shapes, [chosen.total / candidates.total])
    for name in chosen.names:
        writer.add(name, torch.ones(store.size(name), dtype=torch.uint8))
    about = _about("by_name", candidates, {"patterns": patterns})
    about |= {"include": list(include), "exclude": list(exclude)}
    return Mask(*writer.finish([chosen.total], about))


def _random_like(candidates: Candidates, other: Mask) -> Mask:
    """Random draws: per tensor, as many as another mask selects there, at each of its ratios."""
    groups = []
    for name in candidates.names:
        levels = count_levels(count_fours(other.level(name).reshape(-1)))
        most = len(other.ratios)
        groups.append(Group([name], [int(levels[most - i :].sum()) for i in range(most)]))
    measure = Measure(random, ("uniform",), {})
    found = select(candidates, measure, groups, other.ratios)
    settings = {"like": str(other.metadata.get("score")), "seed": candidates.seed}
    about = _about("random_like", candidates, settings, scope="tensor")
    return Mask(*found.writer.finish(found.counts, about))


def _complement(candidates: Candidates, other: Mask) -> Mask:
    """The candidates of another mask that it leaves out."""
    made = other.complement()
    made.metadata = {**_about("complement", candidates, {}), **made.metadata}
    return made


_OF_MASK: dict[str, Callable[[Candidates, Mask], Mask]] = {
    "complement": _complement,
    "random_like": _random_like,
}
