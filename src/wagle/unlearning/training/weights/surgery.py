"""Gradient surgery: pure functions of the compact gradients of the selected weights.

A list of gradients holds one float32 vector per parameter, in the same order everywhere; all are
gradients of losses to be minimised. Norms and products run over the whole list, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from wagle.system.errors import WagleError
from wagle.system.mapped import passing
from wagle.unlearning.training.weights.rounding import seeded

_CHUNK = 1 << 22  # entries widened to float64 at a time
Keep: TypeAlias = Callable[[Iterable[Tensor]], list[Tensor]]
"""Holds vectors that are made one after the other: a list, or files that are mapped into memory."""


class Masked(NamedTuple):
    """Gradients with only some entries left, and how many those are."""

    gradients: list[Tensor]
    kept: int


def gru(
    forget: Sequence[Tensor],
    retain: Sequence[Tensor],
    *,
    remembered: Sequence[Tensor] | None,
    momentum: float = 0.8,
    floor: float = 1.0,
    keep: Keep = list,
) -> tuple[list[Tensor], list[Tensor]]:
    """Remove from the forget gradient what would raise the retain loss.

    The retain gradient is smoothed, ``r <- momentum g_r + (1 - momentum) r``. Where the two
    conflict, ``<g_f, r> < 0``, the step is ``g_f - <g_f, r> / |r|^2 r``, which is orthogonal to r;
    otherwise it is g_f. The retain loss is thus a constraint and is not itself descended.

    Args:
        forget: the gradient of the forget loss alone.
        retain: that of the retain loss, the same shapes.
        remembered: the smoothed retain gradient of the previous step; None at the first.
        momentum: the weight of the new retain gradient, in (0, 1].
        floor: in (0, 1]: the cosine between the two is clamped to at least ``-floor``, so that
            below 1 only part of a strong conflict is removed (0.5 in a variant of the authors'
            code).
        keep: holds the results.

    Returns:
        The gradient to step along, and the new smoothed retain gradient; the tensors in the lists
            are
        not changed.

    Source: Wang et al. 2025, GRU, arXiv 2503.09117; the smoothing and the variant from its code.
    """
    if not 0 < momentum <= 1:
        raise WagleError(f"the momentum of gru is {momentum}; give a number in (0, 1]")
    if not 0 < floor <= 1:
        raise WagleError(f"the floor of gru is {floor}; give a number in (0, 1]")
    if remembered is None:
        smoothed = keep(new.clone() for (new,) in passing(retain))
    else:
        smoothed = keep(torch.lerp(old, new, momentum) for old, new in passing(remembered, retain))
    product = _dot(forget, smoothed)
    if not product < 0:
        return list(forget), smoothed
    length = _norm(smoothed)
    share = max(product / length, -floor * _norm(forget)) / length
    return keep(f.sub(r, alpha=share) for f, r in passing(forget, smoothed)), smoothed


def sign_agreement(
    forget: Sequence[Tensor], retain: Sequence[Tensor], *, keep: Keep = list
) -> Masked:
    """Keep the forget gradient where the retain loss would fall too; elsewhere it is 0.

    The forget gradient is first scaled to norm 1 over the whole list (0 stays 0).

    Args:
        forget: the gradient of the forget loss.
        retain: that of the retain loss, the same shapes.
        keep: holds the results.

    Returns:
        The masked gradients, and how many entries have the same sign in both and are not 0.

    Source: Sondej et al. 2025, MUDMAN, arXiv 2506.12484 (disruption masking, normalisation).
    """
    norm = _norm(forget) or 1.0
    counts = []

    def masked(f: Tensor, r: Tensor) -> Tensor:
        agree = (f.sign() == r.sign()) & (f != 0)
        counts.append(int(agree.sum()))
        return f.div(norm).mul_(agree)

    return Masked(keep(masked(f, r) for f, r in passing(forget, retain)), sum(counts))


def row_norm(
    forget: Sequence[Tensor], rows: Sequence[Tensor | None], *, quantile: float = 0.99
) -> list[Tensor]:
    """Which entries train in this step: those in the output rows with the largest forget gradient.

    Rows are ranked by the norm of the forget gradient over their selected entries. Of the R rows
    that have any, across all parameters, those with at least the k-th largest norm are kept, ``k =
    R - floor(quantile R)``, exact as a decimal; ties are kept too, but never rows without any
    forget gradient. Multiply both gradients, forget and retain, by the result.

    Args:
        forget: the gradient of the forget loss.
        rows: for each entry of each gradient, the row it belongs to, int32; None: all entries are
            one row (a bias, a norm).
        quantile: in [0, 1); 0.99 keeps one row in a hundred.

    Returns:
        Bool tensors of the shapes of ``forget``, True where the row trains.

    Source: Zhang et al. 2024, SURE, arXiv 2410.16454. Its code counts the forget gradient twice;
    this counts it once.
    """
    if not 0 <= quantile < 1:
        raise WagleError(f"the quantile of row_norm is {quantile}; give a number in [0, 1)")
    norms, seen = [], []
    for gradient, row in zip(forget, rows, strict=True):
        norm, present = _row_norms(gradient, row)
        norms.append(norm)
        seen.append(norm[present])
    every = torch.cat(seen)
    below = math.floor(Fraction(str(quantile)) * len(every))
    limit = every.kthvalue(below + 1).values
    masks = []
    for gradient, row, norm in zip(forget, rows, norms, strict=True):
        keep = (norm >= limit) & (norm > 0)
        masks.append(keep.expand(len(gradient)) if row is None else keep.index_select(0, row))
    return masks


def _row_norms(gradient: Tensor, row: Tensor | None) -> tuple[Tensor, Tensor]:
    """The norm of each row, and which rows have entries.

    Summed in float64 and returned in float32, so that equal rows stay equal when a GPU adds in
    another order.
    """
    if row is None:
        present = torch.tensor([gradient.numel() > 0], device=gradient.device)
        return gradient.new_tensor([_norm([gradient])]), present
    count = int(row.max()) + 1 if len(row) else 0
    squares = torch.zeros(count, dtype=torch.float64, device=gradient.device)
    present = torch.zeros(count, dtype=torch.bool, device=gradient.device)
    for part, index in zip(gradient.split(_CHUNK), row.split(_CHUNK), strict=True):
        squares.index_add_(0, index, part.double().square())
        present.index_fill_(0, index.long(), True)
    return squares.sqrt_().float(), present


def perturbation(forget: Sequence[Tensor], *, rho: float, keep: Keep = list) -> list[Tensor]:
    """The perturbation of sharpness-aware forgetting: ``rho g / |g|``, to add to the weights.

    Args:
        forget: the gradient of the forget loss at the weights themselves.
        rho: >= 0, the length of the perturbation, in the units of a weight.
        keep: holds the result.

    Returns:
        The shapes of ``forget``, float32; zeros for a zero gradient.

    Source: Fan et al. 2025, arXiv 2502.05374 (SAM for unlearning).
    """
    norm = _norm(forget) or 1.0
    return keep(gradient.div(norm).mul_(rho) for (gradient,) in passing(forget))


def noise(
    likes: Mapping[str, Tensor], *, rho: float, key: Sequence[object], keep: Keep = list
) -> list[Tensor]:
    """The perturbation of randomised smoothing: draws from N(0, rho^2), to add to the weights.

    Args:
        likes: tensors with the wanted shapes and devices, by parameter name.
        rho: >= 0, the standard deviation, in the units of a weight.
        key: identifies the draws: (seed, step, draw).
        keep: holds the result.

    Returns:
        In the order of ``likes``, float32; on one kind of device, each is a pure function of (key,
        name), independent of which other parameters there are.

    Source: Fan et al. 2025, arXiv 2502.05374 (RS for unlearning).
    """
    return keep(
        torch.empty(like.shape, dtype=torch.float32, device=like.device).normal_(
            0.0, rho, generator=seeded((*key, name), like.device)
        )
        for name, like in likes.items()
    )


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    total = 0.0
    for a, b in passing(left, right):
        parts = zip(a.split(_CHUNK), b.split(_CHUNK), strict=True)
        total += sum(float(torch.dot(x.double(), y.double())) for x, y in parts)
    return total


def _norm(gradients: Sequence[Tensor]) -> float:
    return math.sqrt(_dot(gradients, gradients))
