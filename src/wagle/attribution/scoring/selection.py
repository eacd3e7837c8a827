"""Exact selection: the k largest of N scores, which are never concatenated or sorted.

A radix select over the bit patterns of float32 scores: a histogram of their high 16 bits, another
of the low 16 bits within the bins that hold a boundary, then the levels. Scores come in chunks and
are recomputed for each of the three passes. Ties at a boundary go to the earlier chunk, then to the
lower index. Several processes have a part of the chunks each, in the order of their ranks: they add
up their histograms, and none sees another's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.system.errors import WagleError
from wagle.system.processes import group

T = TypeVar("T")
_HALF = 1 << 15
_BINS = 1 << 16
_NEAR = 255  # marks in a table a boundary's bin, whose scores are compared one by one
_WAITING = 1 << 21  # low halves collected before they are counted
# The high halves from the lowest score to the highest: negative floats run backwards.
_ASCENDING = torch.cat([torch.arange(_BINS - 1, _HALF - 1, -1), torch.arange(_HALF)])


class Chunks(Protocol):
    """Scores chunk by chunk, the same at every call; flat, float32, contiguous."""

    def __call__(self, work: Callable[[Tensor], T]) -> Iterator[tuple[str, T]]:
        """Yield (parameter name, ``work(scores)``) in order."""


# ---------------------------------------------------------------------------------------------
# Bits


def keys(scores: Tensor) -> Tensor:
    """Order-preserving int32 keys of float32 scores; -0.0 and 0.0 get the same key."""
    bits = (scores.float() + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _score(key: int) -> float:
    bits = torch.tensor([key], dtype=torch.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)[0])


def _high(scores: Tensor) -> Tensor:
    """The high halves of the bit patterns, 0 to 65535: not in the order of the scores."""
    return (scores.view(torch.int32) >> 16).bitwise_and_(_BINS - 1)


def _where(found: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(found.numpy()))  # ten times faster than nonzero()


def count_bins(scores: Tensor) -> Tensor:
    """How many scores have each high half: (65536,), int64."""
    return torch.bincount(_high(scores), minlength=_BINS)


def check_finite(name: str, bins: Tensor, what: str = "a score") -> None:
    """Refuse infinite and NaN scores, whose high halves are the last for each sign."""
    if bins[0x7F80:_HALF].any() or bins[_HALF + 0x7F80 :].any():
        raise WagleError(f"{what} of {name} is not finite; check its weights and gradients")


def octaves(scores: Tensor, bins: Tensor) -> Tensor:
    """How many scores lie in each power of two, from ``count_bins``: (256,), int64.

    Entry ``i`` counts scores in [2^(i-127), 2^(i-126)), entry 0 all smaller positive ones, and
    entry 255 scores of 0 and below.
    """
    found = bins[:_HALF].view(256, 128).sum(1)
    if bins[0] or bins[_HALF:].any():
        positive = torch.count_nonzero(scores > 0)
        found[0] = positive - found[1:255].sum()
        found[255] = scores.numel() - positive
    return found


def count_fours(level: Tensor) -> Tensor:
    """How often each combination of four consecutive levels (0 to 15) occurs: (65536,), int64.

    A quarter of the work of counting one by one. The last four are padded with zeros.
    """
    four = torch.nn.functional.pad(level, (0, -level.numel() % 4)).view(torch.int32)
    pairs = (four | (four >> 4)) & 0x00FF00FF  # one level in each byte becomes one in each nibble
    return torch.bincount((pairs | (pairs >> 8)) & 0xFFFF, minlength=_BINS)


def count_levels(fours: Tensor) -> Tensor:
    """How many weights have each level, from ``count_fours``: (16,), int64; level 0 has padding."""
    table = fours.view(16, 16, 16, 16)
    axes = range(4)
    return torch.stack([table.sum([a for a in axes if a != axis]) for axis in axes]).sum(0)


# ---------------------------------------------------------------------------------------------
# The boundaries


@dataclass(frozen=True)
class Thresholds:
    """Where each count ends.

    ``key`` is the k-th largest, and ``ties`` how many of the scores that equal it are in: of all, or
    of this process's and those after it. ``signed_zero`` says that the scores may include -0.0,
    which must count as 0.0.
    """

    counts: tuple[int, ...]
    key: tuple[int, ...]
    ties: tuple[int, ...]
    signed_zero: bool

    def value(self, which: int) -> float:
        """The score at the boundary of count number ``which``."""
        return _score(self.key[which])


Seen = Callable[[str, Tensor], None]


def _histogram(chunks: Chunks, what: str, seen: Seen | None) -> Tensor:
    def count(scores: Tensor) -> tuple[Tensor, Tensor | None]:
        bins = count_bins(scores)
        return bins, octaves(scores, bins) if seen else None

    def own() -> Tensor:
        total = torch.zeros(_BINS, dtype=torch.int64)
        for name, (bins, found) in chunks(count):
            check_finite(name, bins, what)
            total += bins
            if seen is not None and found is not None:
                seen(name, found)
        return total

    return group.add_up(group.agreed(own))


def _unsigned_zero(chunks: Chunks) -> Chunks:
    return lambda work: chunks(lambda scores: work(scores + 0.0))


def _low_halves(chunks: Chunks, table: Tensor, slots: int) -> Tensor:
    """How many of this process's scores in each bin have each low half: (slots, 65536), int64."""

    def inside(scores: Tensor) -> Tensor:
        slot = table.index_select(0, _high(scores))
        near = _where(slot != _NEAR)
        return (slot[near].int() << 16) | (keys(scores[near]) & (_BINS - 1))

    def count() -> Tensor:
        return torch.bincount(torch.cat(waiting), minlength=slots * _BINS)

    low = torch.zeros(slots * _BINS, dtype=torch.int64)
    waiting: list[Tensor] = []
    for _, codes in chunks(inside):
        waiting.append(codes)
        if sum(map(len, waiting)) >= _WAITING:
            low += count()
            waiting.clear()
    if waiting:
        low += count()
    return low.view(slots, _BINS)


def _from_above(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many scores lie in the highest bins: the last, the last two, ..."""
    return np.cumsum(counts[::-1])


def _find(above: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """The bin that holds the ``wanted``-th largest, and how many of its scores are wanted."""
    steps = int(np.searchsorted(above, wanted))
    return len(above) - 1 - steps, wanted - (int(above[steps - 1]) if steps else 0)


def thresholds(
    chunks: Chunks, counts: Sequence[int], *, what: str = "a score", seen: Seen | None = None
) -> Thresholds:
    """Find the boundary of each of ``counts`` (1 <= k <= N) in two passes over the scores.

    Args:
        chunks: the scores.
        counts: how many scores lie above each boundary.
        what: what the scores are, for messages.
        seen: called with (parameter name, ``octaves``) for each chunk in the first pass.
    """
    bins = _histogram(chunks, what, seen)
    signed_zero = bool(bins[_HALF])  # the high half of -0.0 and of the smallest negative scores
    if signed_zero:
        chunks = _unsigned_zero(chunks)
        bins = _histogram(chunks, what, None)
    above = _from_above(bins[_ASCENDING].numpy())
    total = int(above[-1])
    if not all(1 <= count <= total for count in counts):
        raise WagleError(f"cannot select {max(counts)} of {total} weights")
    places = [_find(above, count) for count in counts]
    slots = sorted({where for where, _ in places})
    table = torch.full((_BINS,), _NEAR, dtype=torch.uint8)
    table[_ASCENDING[slots]] = torch.arange(len(slots), dtype=torch.uint8)
    own = group.agreed(lambda: _low_halves(chunks, table, len(slots)))
    low = [_from_above(counts) for counts in group.add_up(own.clone()).numpy()]
    found, ties, here = [], [], []
    for where, rest in places:
        slot = slots.index(where)
        last, equal = _find(low[slot], rest)
        found.append(((where - _HALF) << 16) + last)
        ties.append(equal)
        here.append(int(own[slot, last]))
    return Thresholds(tuple(counts), tuple(found), _own_ties(ties, here), signed_zero)


def _own_ties(ties: Sequence[int], here: Sequence[int]) -> tuple[int, ...]:
    """How many of the wanted ties are left for this process: the processes before it come first.

    Args:
        ties: how many scores equal to each boundary are wanted.
        here: how many this process has.
    """
    before = group.gather(here)[: group.rank()]
    return tuple(
        max(0, wanted - sum(one[which] for one in before)) for which, wanted in enumerate(ties)
    )


def kth_largest(chunks: Chunks, count: int, what: str = "a score") -> float:
    """The ``count``-th largest score, exactly."""
    return thresholds(chunks, [count], what=what).value(0)


# ---------------------------------------------------------------------------------------------
# The levels


class Draft(NamedTuple):
    """A chunk's levels without ties, and the scores that equal a boundary: indices and keys."""

    level: Tensor
    tied: NDArray[np.int64]
    keys: NDArray[np.int32]


class Levels:
    """The third pass: per score, how many of the counts include it (uint8).

    ``draft`` may run in any thread; ``settle`` assigns the ties, so it takes the drafts in order.
    """

    def __init__(self, limits: Thresholds) -> None:
        self.limits = limits
        self._left = list(limits.ties)
        self._keys = np.sort(np.array(limits.key, dtype=np.int32))
        places = [(key >> 16) + _HALF for key in limits.key]
        ordered = torch.zeros(_BINS, dtype=torch.uint8)
        for where in places:
            ordered[where + 1 :] += 1
        ordered[places] = _NEAR
        self._table = torch.empty_like(ordered)
        self._table[_ASCENDING] = ordered

    def draft(self, scores: Tensor) -> Draft:
        """The levels of one chunk, leaving out ties."""
        if self.limits.signed_zero:
            scores = scores + 0.0
        level = self._table.index_select(0, _high(scores))
        near = np.flatnonzero(level.numpy() == _NEAR)
        exact = keys(scores[torch.from_numpy(near)]).numpy()
        below = np.searchsorted(self._keys, exact)
        level.numpy()[near] = below
        tied = self._keys[np.minimum(below, len(self._keys) - 1)] == exact
        return Draft(level, near[tied], exact[tied])

    def settle(self, draft: Draft) -> Tensor:
        """The levels of the next chunk: ties are taken from the first on, while places are left."""
        level = draft.level.numpy()
        for which, limit in enumerate(self.limits.key):
            if self._left[which] and len(draft.tied):
                equal = np.flatnonzero(draft.keys == limit)[: self._left[which]]
                level[draft.tied[equal]] += 1
                self._left[which] -= len(equal)
        return draft.level


def row_levels(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Levels within each row: how many of the counts include a score among the row's largest.

    Args:
        scores: (R, C), float32; equal ones go to the lower index.
        counts: 0 <= k <= C, the same for every row.

    Returns:
        (R, C), uint8.
    """
    key = keys(scores).numpy()
    ordered = np.sort(key, axis=1)
    width = key.shape[1]
    level = np.zeros(key.shape, dtype=np.uint8)
    for count in counts:
        if count == 0:
            continue
        limit = ordered[:, width - count]
        level += key >= limit[:, None]
        if count < width:
            cut = np.flatnonzero(ordered[:, width - count - 1] == limit)  # ties cross the boundary
            level[cut] -= _late_ties(key[cut], limit[cut], count)
    return torch.from_numpy(level)


def _late_ties(key: NDArray[Any], limit: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Which scores equal to their row's limit no longer fit into its count."""
    above = np.count_nonzero(key > limit[:, None], axis=1)
    equal = key == limit[:, None]
    rank = np.cumsum(equal, axis=1, dtype=np.int32)
    late: NDArray[np.bool_] = equal & (rank > (count - above)[:, None])
    return late
