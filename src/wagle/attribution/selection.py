"""Exact global selection: the k largest of N scores, never concatenated and never sorted.

A radix select over the bit patterns of float32 scores: a histogram of the high 16 bits, one of the
low 16 bits inside the bins that hold a boundary, then the levels. Scores come in chunks and are
recomputed for each of the three passes. Equal scores at a boundary go to the earlier chunk, then
to the lower index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import torch
from torch import Tensor

from wagle.errors import WagleError

Chunks: TypeAlias = Callable[[], Iterator[tuple[str, Tensor]]]
_HALF = 1 << 15
_BINS = 1 << 16


def exact_count(ratio: float | str, total: int) -> int:
    """floor(ratio * total), exact on the decimal that ``ratio`` prints as: 0.29 of 100 is 29."""
    try:
        share = Fraction(str(ratio))
    except ValueError:
        raise WagleError(f"ratio {ratio!r} is not a number; give one with 0 < ratio <= 1") from None
    if not 0 < share <= 1:
        raise WagleError(f"ratio {ratio} is outside (0, 1]; give the share of weights to select")
    count = int(share * total)
    if count == 0:
        raise WagleError(f"ratio {ratio} of {total} weights selects none; raise it")
    return count


def keys(scores: Tensor) -> Tensor:
    """Order-preserving int32 keys of float32 scores; -0.0 and 0.0 get the same."""
    bits = (scores.float() + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _high(key: Tensor) -> Tensor:
    return (key >> 16) + _HALF  # 0 ... 65535, order-preserving


@dataclass(frozen=True)
class Thresholds:
    """Where each count ends: ``key`` is the k-th largest, ``ties`` how many equal ones are in."""

    counts: tuple[int, ...]
    key: tuple[int, ...]
    ties: tuple[int, ...]

    def value(self, which: int) -> float:
        """The score at the boundary of the count number ``which``."""
        key = torch.tensor([self.key[which]], dtype=torch.int32)
        return float((key ^ ((key >> 31) & 0x7FFFFFFF)).view(torch.float32)[0])


def _histogram(chunks: Chunks) -> Tensor:
    total = torch.zeros(_BINS, dtype=torch.int64)
    infinite = _HALF + 0x7F80  # from here on: +inf and NaN; mirrored below: -inf and -NaN
    for name, scores in chunks():
        part = torch.bincount(_high(keys(scores)), minlength=_BINS)
        if part[infinite:].any() or part[: _BINS - infinite].any():
            raise WagleError(f"a score of {name} is not finite; check its weights and gradients")
        total += part
    return total


def thresholds(chunks: Chunks, counts: Sequence[int]) -> Thresholds:
    """Find the boundary of each of ``counts`` (1 <= k <= N) in two passes over the scores.

    Args:
        chunks: gives an iterator over (parameter name, scores), the same at every call.
        counts: how many scores lie above each boundary.
    """
    above = _histogram(chunks).flip(0).cumsum(0).flip(0)  # scores in this bin or a higher one
    total = int(above[0])
    if not all(1 <= count <= total for count in counts):
        raise WagleError(f"cannot select {max(counts)} of {total} weights")
    bins = [int((above >= count).nonzero()[-1]) for count in counts]
    slots = sorted(set(bins))
    table = torch.full((_BINS,), -1, dtype=torch.int32)
    table[slots] = torch.arange(len(slots), dtype=torch.int32)
    low = torch.zeros(len(slots), _BINS, dtype=torch.int64)
    for _, scores in chunks():
        key = keys(scores)
        slot = table.index_select(0, _high(key))
        inside = slot >= 0
        flat = slot[inside].long() * _BINS + (key[inside] & 0xFFFF)
        low += torch.bincount(flat, minlength=low.numel()).view(low.shape)
    found, ties = [], []
    for count, where in zip(counts, bins, strict=True):
        rest = count - (int(above[where + 1]) if where + 1 < _BINS else 0)
        inside_above = low[slots.index(where)].flip(0).cumsum(0).flip(0)
        last = int((inside_above >= rest).nonzero()[-1])
        found.append(((where - _HALF) << 16) + last)
        ties.append(rest - (int(inside_above[last + 1]) if last + 1 < _BINS else 0))
    return Thresholds(tuple(counts), tuple(found), tuple(ties))


def levels(chunks: Chunks, limits: Thresholds) -> Iterator[tuple[str, Tensor]]:
    """The third pass: per chunk, how many of the counts include each score (uint8)."""
    bins = [(key >> 16) + _HALF for key in limits.key]
    table = torch.zeros(_BINS, dtype=torch.uint8)
    for where in bins:
        table[where + 1 :] += 1
    boundary = torch.zeros(_BINS, dtype=torch.bool)
    boundary[bins] = True
    left = list(limits.ties)
    for name, scores in chunks():
        key = keys(scores)
        high = _high(key)
        level = table.index_select(0, high)
        near = boundary.index_select(0, high).nonzero().squeeze(-1)
        exact = key[near]
        fixed = torch.zeros(len(near), dtype=torch.uint8)
        for which, limit in enumerate(limits.key):
            fixed += exact > limit
            if left[which]:
                equal = (exact == limit).nonzero().squeeze(-1)[: left[which]]
                fixed[equal] += 1
                left[which] -= len(equal)
        level[near] = fixed
        yield name, level


def kth_largest(chunks: Chunks, count: int) -> float:
    """The ``count``-th largest score, exactly."""
    return thresholds(chunks, [count]).value(0)
