"""Set operations on masks of one model, and how closely two masks agree.

The operations work on levels and return packed levels, from which the mask is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from wagle.mask.packing import Packed
from wagle.mask.writing import MaskWriter
from wagle.model.structure import place
from wagle.system.errors import WagleError


class Leveled(Protocol):
    """What is read from a mask; ``mask[name]`` and ``count`` need a single ratio."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter, in parameter order."""

    @property
    def ratios(self) -> Sequence[float]:
        """The ratios of the ladder, ascending."""

    @property
    def counts(self) -> Sequence[int]:
        """How many weights each ratio selects."""

    @property
    def count(self) -> int:
        """How many weights the single ratio selects."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the mask was made from: score, settings, model."""

    @property
    def candidate_names(self) -> list[str]:
        """The parameters that the selection ranged over, in parameter order."""

    def level(self, name: str) -> Tensor:
        """The levels of one parameter, in its shape, uint8."""

    def __getitem__(self, name: str) -> Tensor: ...

    def __iter__(self) -> Iterator[str]: ...


class _Operation(NamedTuple):
    """A set operation on the selected weights, and on the candidate parameters."""

    weights: Callable[[Tensor, Tensor], Tensor]
    candidates: Callable[[set[str], set[str]], set[str]]


_OPERATIONS: dict[str, _Operation] = {
    "union": _Operation(torch.logical_or, set.union),
    "intersection": _Operation(torch.logical_and, set.intersection),
    "difference": _Operation(lambda a, b: a & ~b, lambda a, _: a),
}


def combine(operation: str, a: Leveled, b: Leveled) -> Packed:
    """The ``union``, ``intersection`` or ``difference`` of two single-ratio masks.

    The candidates are the parameters that either mask ranged over, that both did, or that ``a``
    did, respectively; the ratio is the count over them. Masks of different models or shapes, and a
    result that selects nothing, are errors.
    """
    _check_shapes(a, b)
    models = [str(mask.metadata.get("model")) for mask in (a, b)]
    if models[0] != models[1]:
        raise WagleError(
            f"the masks belong to different models, {models[0][:6]} and {models[1][:6]}; combine "
            "masks of one model"
        )
    weights, candidates = _OPERATIONS[operation]
    inside = candidates(set(a.candidate_names), set(b.candidate_names))
    names = [name for name in a.shapes if name in inside]

    def selected(name: str) -> Tensor:
        return weights(a[name], b[name])

    count = sum(int(torch.count_nonzero(selected(name))) for name in names)
    if count == 0:
        raise WagleError(
            f"the {operation} of the masks '{_short(a)}' and '{_short(b)}' selects no weight, so "
            "there is nothing to train; choose other masks"
        )
    total = _total(a, names)
    writer = MaskWriter(a.shapes, [count / total])
    for name in names:
        writer.add(name, selected(name))
    return writer.finish([count], _metadata(operation, [a, b], names, total))


def complement(mask: Leveled) -> Packed:
    """The candidate weights that a mask leaves out; for a ladder, the ladder of complements.

    Parameters that the mask did not range over stay out. The ratios are counts over candidates.
    """
    names = mask.candidate_names
    total = _total(mask, names)
    counts = [total - count for count in reversed(mask.counts)]
    if counts[0] == 0:
        raise WagleError(
            f"ratio {mask.ratios[-1]} selects every candidate weight, so its complement selects "
            "none; choose a lower ratio"
        )
    writer = MaskWriter(mask.shapes, [count / total for count in counts])
    for name in names:  # what is in i of n masks is in n - i of their complements
        writer.add(name, len(mask.ratios) - mask.level(name))
    return writer.finish(counts, _metadata("complement", [mask], names, total))


def _check_shapes(a: Leveled, b: Leveled) -> None:
    if a.shapes != b.shapes:
        differ = sorted(n for n in {*a.shapes, *b.shapes} if a.shapes.get(n) != b.shapes.get(n))
        raise WagleError(
            f"the masks do not fit together: {differ[0]} is {a.shapes.get(differ[0])} in one and "
            f"{b.shapes.get(differ[0])} in the other; they must belong to one model"
        )


def _total(mask: Leveled, names: Sequence[str]) -> int:
    return sum(math.prod(mask.shapes[name]) for name in names)


def _short(mask: Leveled) -> str:
    """A mask in a few words: ``wagle gamma=0.25 ratio=0.1``."""
    settings: dict[str, Any] = mask.metadata.get("settings") or {}
    numbers = [f" {k}={v:g}" for k, v in settings.items() if isinstance(v, int | float)]
    ratios = ",".join(f"{ratio:g}" for ratio in mask.ratios)
    return f"{mask.metadata.get('score')}{''.join(numbers)} ratio={ratios}"


def _metadata(score: str, of: list[Leveled], names: list[str], total: int) -> dict[str, Any]:
    return {
        "score": score,
        "settings": {"of": [_short(mask) for mask in of]},
        "candidates": total,
        "names": None if len(names) == len(of[0].shapes) else names,
        "thresholds": None,
        "model": of[0].metadata.get("model"),
    }


# ---------------------------------------------------------------------------------------------
# Comparison


@dataclass(frozen=True)
class Overlap:
    """How closely two masks A and B agree over some weights.

    Attributes:
        weights: how many weights there are.
        a: how many of them A selects.
        b: how many of them B selects.
        both: how many of them both select.
        chance: how many both would select if each chose at random, in every parameter as many
            weights as it has there: the sum of density_A * density_B * weights over parameters.
    """

    weights: int
    a: int
    b: int
    both: int
    chance: float

    @property
    def jaccard(self) -> float | None:
        """``|A and B| / |A or B|``; None if neither mask selects anything."""
        return _jaccard(self.a, self.b, self.both)

    @property
    def chance_jaccard(self) -> float | None:
        """The Jaccard index if the overlap were ``chance``."""
        return _jaccard(self.a, self.b, self.chance)

    @property
    def coefficient(self) -> float | None:
        """``|A and B|`` divided by the smaller count; None if that is 0."""
        least = min(self.a, self.b)
        return self.both / least if least else None

    def __add__(self, other: Overlap) -> Overlap:
        """The agreement over the weights of both overlaps."""
        return Overlap(
            self.weights + other.weights,
            self.a + other.a,
            self.b + other.b,
            self.both + other.both,
            self.chance + other.chance,
        )


@dataclass(frozen=True)
class Comparison:
    """How closely two masks agree: over all weights, and place by place.

    Attributes:
        overall: over all weights.
        places: per block and, outside the blocks, per parameter.
        plain_chance: the Jaccard index of two masks that select as many weights at random, each
            anywhere among its candidates; rho / (2 - rho) if both have density rho.
        same_model: whether both were made for the same weights.
    """

    overall: Overlap
    places: dict[str, Overlap]
    plain_chance: float | None
    same_model: bool


def _jaccard(a: float, b: float, both: float) -> float | None:
    either = a + b - both
    return both / either if either else None


def compare(a: Leveled, b: Leveled) -> Comparison:
    """How closely two single-ratio masks agree, compared with what chance alone would give.

    The masks may belong to related checkpoints: parameters and shapes must agree.
    """
    _check_shapes(a, b)
    nothing = Overlap(0, 0, 0, 0, 0.0)
    places: dict[str, Overlap] = {}
    for name in a:
        key = place(name)[0] or name
        places[key] = places.get(key, nothing) + _overlap(a[name], b[name])
    names = [a.candidate_names, b.candidate_names]
    shared = _total(a, [name for name in names[0] if name in set(names[1])])
    by_chance = a.count / _total(a, names[0]) * b.count / _total(b, names[1]) * shared
    return Comparison(
        overall=sum(places.values(), nothing),
        places=places,
        plain_chance=_jaccard(a.count, b.count, by_chance),
        same_model=a.metadata.get("model") == b.metadata.get("model"),
    )


def _overlap(a: Tensor, b: Tensor) -> Overlap:
    in_a, in_b, both = (int(torch.count_nonzero(one)) for one in (a, b, a & b))
    return Overlap(a.numel(), in_a, in_b, both, in_a * in_b / a.numel())
