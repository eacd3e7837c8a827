"""From scores to levels: selection for every scope, chunk by chunk and group by group.

A group is a set of weights that compete: all candidates (``global``), a tensor or a block. By row,
each row of a parameter is its own group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from wagle.attribution.scoring.candidates import Candidates, Measure, Values
from wagle.attribution.scoring.entry import Dominated
from wagle.attribution.scoring.selection import (
    Draft,
    Levels,
    check_finite,
    count_bins,
    count_fours,
    count_levels,
    octaves,
    row_levels,
    thresholds,
)
from wagle.mask.writing import MaskWriter
from wagle.model.structure import place
from wagle.system.memory import Spill
from wagle.system.processes import group

_KEPT = 64 << 20  # bytes of levels that wait in memory for their turn


class Group(NamedTuple):
    """Parameters whose scores compete, and how many of their weights each ratio selects.

    By row, ``counts`` apply to each row.
    """

    names: list[str]
    counts: list[int]


Placed: TypeAlias = tuple[str, Tensor, "Tensor | None"]  # parameter, levels, theta-dominated


class Found:
    """What a selection gathers along the way.

    Attributes:
        writer: takes the levels.
        counts: how many weights each ratio selects.
        dominated: ``count_fours`` over the weights where the weight term dominates, or None.
        octaves: by block, how many scores lie in each power of two, (256,).
        thresholds: per ratio, the score at the boundary of the last group.
    """

    def __init__(self, candidates: Candidates, ladder: Sequence[float | str]) -> None:
        self.ratios = [float(one) for one in ladder]
        self.writer = MaskWriter(candidates.store.shapes, self.ratios)
        self.counts = [0] * len(self.ratios)
        self.dominated: Tensor | None = None
        self.octaves: dict[str, Tensor] = {}
        self.thresholds: list[float] = []

    def see(self, name: str, found: Tensor) -> None:
        """Add the octaves of one chunk of scores."""
        key = place(name)[0] or name
        self.octaves[key] = self.octaves[key] + found if key in self.octaves else found

    def add(self, name: str, level: Tensor, dominated: Tensor | None) -> None:
        """Add the levels of the next chunk of a parameter, flat."""
        self.writer.add(name, level)
        if dominated is not None:
            self.count(level, dominated)

    def count(self, level: Tensor, dominated: Tensor) -> None:
        """Count the weights of a chunk where the weight term dominates."""
        here = count_fours(level * dominated)
        self.dominated = here if self.dominated is None else self.dominated + here

    def join(self) -> None:
        """Add what the other processes have counted."""
        if group.world() == 1:
            return
        every = group.gather((self.octaves, self.dominated))
        self.octaves = {}
        for seen, _ in every:
            for name, found in seen.items():
                self.see(name, found)
        counted = [dominated for _, dominated in every if dominated is not None]
        self.dominated = torch.stack(counted).sum(0) if counted else None

    @property
    def theta_share(self) -> list[float] | None:
        """Per ratio, the share of selected weights where the weight term dominates."""
        if self.dominated is None:
            return None
        levels = count_levels(self.dominated)
        return [
            int(levels[level:].sum()) / count
            for level, count in zip(range(len(self.counts), 0, -1), self.counts, strict=True)
        ]

    @property
    def histogram(self) -> dict[str, list[list[int | None]]]:
        """By block (outside the blocks, by parameter): [e, how many scores in [2^e, 2^(e+1))].

        None in place of e counts scores of 0 and below; -127 counts all smaller positive ones.
        """
        return {
            key: [[None, n] for n in [int(found[255])] if n]
            + [[e - 127, n] for e, n in enumerate(found[:255].tolist()) if n]
            for key, found in self.octaves.items()
        }


def select(
    candidates: Candidates,
    measure: Measure,
    groups: Sequence[Group],
    ladder: Sequence[float | str],
    *,
    by_row: bool = False,
    dominated: Dominated | None = None,
) -> Found:
    """Find the levels of all candidates, group by group.

    Args:
        candidates: the weights.
        measure: their scores.
        groups: which of them compete, and how many each ratio selects.
        ladder: the ratios.
        by_row: each row of a group competes by itself.
        dominated: where the weight term of the score dominates, which is counted along the way.
    """
    found = Found(candidates, ladder)
    for one in groups:
        inside = candidates.of(one.names)
        run = _levels_by_row if by_row else _levels
        rows = candidates.rows(one.names[0]) if by_row else 1
        found.counts = [n + rows * k for n, k in zip(found.counts, one.counts, strict=True)]
        placed = run(inside, measure, one.counts, dominated, found)
        if group.world() == 1:
            for name, level, over in placed:
                found.add(name, level, over)
        else:
            _add_all(inside, placed, found, by_row)
    found.join()
    return found


def _add_all(candidates: Candidates, own: Iterator[Placed], found: Found, by_row: bool) -> None:
    """Add the levels of all processes, in the order of the weights, on every one of them."""
    kept: Spill = Spill(_KEPT)

    def keep() -> None:
        for number, (_, level, over) in enumerate(own):
            kept[number] = level
            if over is not None:
                found.count(level, over)

    group.agreed(keep)
    for owner, spans in enumerate(candidates.spans(by_row)):
        for number, (name, start, stop) in enumerate(spans):
            mine = kept.pop(number) if owner == group.rank() else None
            room = torch.empty(stop - start, dtype=torch.uint8)
            found.writer.add(name, group.spread(room if mine is None else mine, owner))
    kept.close()


def _levels(
    candidates: Candidates,
    measure: Measure,
    counts: Sequence[int],
    dominated: Dominated | None,
    found: Found,
) -> Iterator[Placed]:
    """(parameter, levels, theta-dominated) chunk by chunk, the k largest among all candidates."""
    positive = [count for count in counts if count]  # a count of 0 raises no level
    limits = thresholds(measure.chunks(candidates), positive or [1], seen=found.see)
    found.thresholds = [limits.value(which) for which in range(len(positive))]
    if not positive:
        return
    levels = Levels(limits)

    def work(name: str, values: Values) -> tuple[Draft, Tensor | None]:
        return levels.draft(measure(name, values)), dominated(values) if dominated else None

    for name, (draft, over) in candidates.each(measure.quantities, work):
        yield name, levels.settle(draft), over


def _levels_by_row(
    candidates: Candidates,
    measure: Measure,
    counts: Sequence[int],
    dominated: Dominated | None,
    found: Found,
) -> Iterator[Placed]:
    """The same, with the k largest of each row."""

    def work(name: str, values: Values) -> tuple[Tensor, Tensor, Tensor | None]:
        scores = measure(name, values)
        bins = count_bins(scores)
        check_finite(name, bins)
        level = _in_rows(candidates, name, scores, partial(row_levels, counts=counts))
        return level, octaves(scores, bins), dominated(values) if dominated else None

    for name, (level, seen, over) in candidates.each(measure.quantities, work, whole_rows=True):
        found.see(name, seen)
        yield name, level, over


def _in_rows(
    candidates: Candidates, name: str, flat: Tensor, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply a function of (R, C) to rows of a parameter, given flat."""
    row = candidates.row_length(name)
    if name not in candidates.store.transposed:
        return function(flat.view(-1, row)).view(-1)
    turned = flat.view(candidates.store.shapes[name]).transpose(-1, -2)  # rows last
    levels = function(turned.reshape(-1, row)).view(turned.shape)
    return levels.transpose(-1, -2).reshape(-1)
