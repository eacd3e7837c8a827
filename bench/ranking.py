"""How well numbers per weight single out a part: ROC AUC and precision, without sorting.

Scores are counted by the 16 high bits of their float32 pattern: 65536 bins, each under 1 % wide.
Weights in one bin count as tied: half a win in the AUC, their share of the bin in the precision.
``resolution`` is the most that this can move the AUC.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wagle.system.errors import WagleError

BINS = 1 << 16
NEITHER, UNTAUGHT, TAUGHT = range(3)  # the labels of weights


class Found(NamedTuple):
    """How a score ranks the taught part among its candidates.

    Attributes:
        auc: the chance that a taught weight scores above another one; 0.5 is chance.
        untaught: the same for the untaught part, the taught one left out.
        precision: the taught share of the k largest scores, k the size of the taught part.
        share: the taught share of all candidates: the precision of chance.
        resolution: the most that the ties inside the bins can move ``auc``.
    """

    auc: float
    untaught: float
    precision: float
    share: float
    resolution: float


def count(scores: Tensor, labels: Tensor) -> Tensor:
    """Histograms of one tensor: (3, BINS) int64, a row per label.

    Args:
        scores: any shape, float32, finite.
        labels: the same shape, uint8: NEITHER, UNTAUGHT or TAUGHT.
    """
    if not torch.isfinite(scores).all():
        raise WagleError("a score is not finite, so it has no rank")
    bits = (scores.reshape(-1) + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as whole numbers in the order of the scores
    bins = (ordered >> 16) + BINS // 2 + labels.reshape(-1).int() * BINS
    return torch.bincount(bins, minlength=3 * BINS).view(3, BINS)


def _auc(positive: Tensor, negative: Tensor) -> tuple[float, float]:
    """The AUC of two histograms (BINS,), and half the share of pairs in one bin."""
    up, down = positive.double(), negative.double()
    pairs = float(up.sum() * down.sum())
    below = down.cumsum(0) - down
    tied = float((up * down).sum()) / 2
    return (float((up * below).sum()) + tied) / pairs, tied / pairs


def _precision(positive: Tensor, everyone: Tensor) -> float:
    wanted = int(positive.sum())
    above = everyone.flip(0).cumsum(0)  # from the largest score down
    taken = (wanted - (above - everyone.flip(0))).clamp(min=0)  # left for each bin
    part = torch.minimum(taken, everyone.flip(0)).double() / everyone.flip(0).clamp(min=1)
    return float((part * positive.flip(0)).sum()) / wanted


def rank(counts: Tensor) -> Found | None:
    """What histograms (3, BINS) say; None where a part has no weights in them."""
    if not all(int(row.sum()) for row in counts):
        return None
    taught, untaught, neither = counts[TAUGHT], counts[UNTAUGHT], counts[NEITHER]
    auc, resolution = _auc(taught, untaught + neither)
    return Found(
        auc,
        _auc(untaught, neither)[0],
        _precision(taught, counts.sum(0)),
        float(taught.sum() / counts.sum()),
        resolution,
    )
