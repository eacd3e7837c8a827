"""From a gradient store to a mask: scores chunk by chunk, gamma, selection."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wagle.attribution.scores import Score, check_score, needs
from wagle.attribution.selection import (
    exact_count,
    kth_largest,
    levels,
    thresholds,
)
from wagle.attribution.store import GradientStore
from wagle.errors import WagleError
from wagle.mask import Gamma, Mask

_CHUNK = 1 << 21  # weights; a multiple of 8, the draws of one counter step


def uniform_chunk(seed: int, name: str, start: int, count: int) -> Tensor:
    """Draws from [0, 1), float32: a pure function of (seed, parameter name, index)."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    bits.advance(start // 8)
    words = bits.random_raw(-(-count // 2)).view(np.uint32)[:count]
    return torch.from_numpy((words >> 8).astype(np.float32) * np.float32(2.0**-24))


class Chunks:
    """The scores of a store in parameter order, a few million at a time, recomputed per call."""

    def __init__(
        self,
        store: GradientStore,
        names: Sequence[str],
        function: Callable[..., Tensor],
        quantities: Sequence[str],
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.store, self.names, self.function = store, names, function
        self.quantities, self.seed, self.settings = quantities, seed, settings

    def __call__(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.names:
            size = int(np.prod(self.store.shapes[name], dtype=np.int64))
            whole = {
                q: self.store.get(q, name).reshape(-1) for q in self.quantities if q != "uniform"
            }
            for start in range(0, size, _CHUNK):
                stop = min(start + _CHUNK, size)
                part = {q: t[start:stop].float() for q, t in whole.items()}
                if "uniform" in self.quantities:
                    part["uniform"] = uniform_chunk(self.seed, name, start, stop - start)
                scores = self.function(**part, **self.settings)
                if scores.shape != (stop - start,):
                    raise WagleError(
                        f"a score must have the shape of its weight; {name} got {tuple(scores.shape)}"
                    )
                yield name, scores


def candidates(
    shapes: Mapping[str, tuple[int, ...]], include: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """The parameters that a selection ranges over: those that pass the glob patterns."""
    for pattern in [*include, *exclude]:
        if not any(fnmatchcase(name, pattern) for name in shapes):
            raise WagleError(
                f"the pattern {pattern!r} matches no parameter (such as {next(iter(shapes))})"
            )
    names = [
        name
        for name in shapes
        if (not include or any(fnmatchcase(name, p) for p in include))
        and not any(fnmatchcase(name, p) for p in exclude)
    ]
    if not names:
        raise WagleError("include and exclude leave no parameter to select from")
    return names


def _dominance(weight: Tensor, grad_retain: Tensor) -> Tensor:
    """``|g_r| / |theta|``: below gamma, the weight term of the score is the larger one."""
    ratio = (grad_retain / weight).abs()
    ratio[grad_retain == 0] = 0.0
    return ratio.clamp(max=torch.finfo(torch.float32).max)


def resolve_gamma(store: GradientStore, names: Sequence[str], gamma: Gamma) -> float:
    """A number for gamma: itself, or the value at which a share of weights is theta-dominated.

    ``auto`` is ``{"theta_share": 0.5}``: the median of ``|g_r| / |theta|``, exactly. Weights without a
    retain gradient are theta-dominated at every gamma; where they alone exceed the share, the
    smallest positive value is taken.
    """
    if isinstance(gamma, int | float) and not isinstance(gamma, bool):
        if not gamma > 0:
            raise WagleError(f"gamma is {gamma}; it must be above 0")
        return float(gamma)
    asked = {"theta_share": 0.5} if gamma == "auto" else gamma
    if not isinstance(asked, Mapping) or set(asked) != {"theta_share"}:
        raise WagleError(f"gamma is {gamma!r}; give a number, auto, or {{theta_share: 0.5}}")
    share = asked["theta_share"]
    if not 0 < share < 1:
        raise WagleError(f"theta_share is {share}; it must lie between 0 and 1")
    ratios = Chunks(store, names, _dominance, ("weight", "grad_retain"), 0, {})
    total = positive = 0
    for _, ratio in ratios():
        total += ratio.numel()
        positive += int(torch.count_nonzero(ratio))
    if positive == 0:
        raise WagleError("every retain gradient is zero, so gamma cannot be chosen; give a number")
    above = exact_count(str(Decimal(1) - Decimal(str(share))), total)
    return kth_largest(ratios, min(above, positive))


def mask_from_scores(
    store: GradientStore,
    *,
    score: str | Score,
    ratio: float | str | Sequence[float | str],
    gamma: Gamma,
    include: Sequence[str],
    exclude: Sequence[str],
    seed: int,
) -> Mask:
    """Score every candidate weight and select the best share of them: ``Mask.from_scores``."""
    function = check_score(score)
    quantities, settings = needs(function)
    names = candidates(store.shapes, include, exclude)
    values: dict[str, Any] = {}
    if "gamma" in settings:
        values["gamma"] = resolve_gamma(store, names, gamma)
    unknown = [s for s in settings if s not in values]
    if unknown:
        raise WagleError(f"the score asks for {unknown[0]!r}, which no recipe sets")
    ratios = [ratio] if isinstance(ratio, int | float | str) else list(ratio)
    total = sum(int(np.prod(store.shapes[n], dtype=np.int64)) for n in names)
    counts = [exact_count(r, total) for r in ratios]
    if "weight" in quantities:
        store.check_weights()
    chunks = Chunks(store, names, function, quantities, seed, values)
    limits = thresholds(chunks, counts)
    found: dict[str, list[Tensor]] = {}
    for name, level in levels(chunks, limits):
        found.setdefault(name, []).append(level)
    return Mask.from_levels(
        {
            name: torch.cat(found[name]).view(shape)
            if name in found
            else torch.zeros(shape, dtype=torch.uint8)
            for name, shape in store.shapes.items()
        },
        ratios=[float(r) for r in ratios],
        counts=counts,
        metadata={
            "score": score if isinstance(score, str) else getattr(score, "__name__", "custom"),
            "settings": {**values, "seed": seed} if "uniform" in quantities else values,
            "gamma": dict(gamma) if isinstance(gamma, Mapping) else gamma,
            "include": list(include),
            "exclude": list(exclude),
            "candidates": total,
            "thresholds": [limits.value(i) for i in range(len(counts))],
            "model": store.model_fingerprint,
        },
    )
