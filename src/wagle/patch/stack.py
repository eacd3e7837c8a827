"""Several patches on one base: the order in which they fit, and where they overlap.

There are two kinds of stacks. In a *chain* each patch was made on the result of the one before, so
the last one promises the fingerprint of the whole. *Independent* patches were all made on one base;
applied in order, the later one wins where two change the same weight, and no patch promises the
combined result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from wagle.patch.file import PATCH, Form, Patch
from wagle.patch.folders import Kind
from wagle.system.errors import WagleError

_CHUNK = 1 << 20  # weights compared at a time
Source: TypeAlias = "Patch | str | Path"


class Named(NamedTuple):
    """A patch and its name in messages."""

    name: str
    patch: Patch


def load_named(source: Source, form: Form = PATCH) -> Named:
    """Load a patch from its file, or take it as it is, and name it."""
    if isinstance(source, Patch):
        return Named(f"the {form.what}", source)
    return Named(f"{form.what} {source}", Patch.load(source, form))


def load_stack(sources: Source | Sequence[Source]) -> list[Named]:
    """Load one patch or several, each given directly or as a file."""
    given = [sources] if isinstance(sources, Patch | str | Path) else list(sources)
    return [load_named(source) for source in given]


# ---------------------------------------------------------------------------------------------
# What fits


def promised(stack: Sequence[Named], base: str) -> str | None:
    """The fingerprint that a valid stack promises, or None if its patches are independent.

    Args:
        stack: one patch or more.
        base: fingerprint of the model that they are applied to.
    """
    independent = len(stack) > 1 and all(named.patch.base == base for named in stack)
    return None if independent else stack[-1].patch.result


def stack_problem(stack: Sequence[Named], folder: str | Path, base: str) -> str | None:
    """Why a stack does not belong on a model folder, in one line without a remedy, or None.

    Args:
        stack: one patch or more.
        folder: the base.
        base: its fingerprint.
    """
    first, patch = stack[0]
    if patch.base != base:
        return (
            f"{first} belongs to {patch.form.base} {patch.base[:6]}, but {folder} is {base[:6]}"
            f"{_where(patch, folder, base)}"
        )
    if promised(stack, base) is None:
        return None
    for before, named in pairwise(stack):
        if named.patch.base != before.patch.result:
            return (
                f"{named.name} belongs to base {named.patch.base[:6]}, but {before.name} makes "
                f"{before.patch.result[:6]} and {folder} is {base[:6]}"
            )
    return None


def _where(patch: Patch, folder: str | Path, found: str) -> str:
    """How a wrong base differs from the right one, in brackets, as far as the patch knows."""
    if found == patch.result:
        return f" (the model that the {patch.form.what} makes: it is already applied)"
    name = patch.first_difference(folder)
    if name is not None:
        return f" (first differing tensor: {name})"
    if patch.digests.base or patch.digests.after:
        return f" (they differ only in weights that the {patch.form.what} replaces)"
    return ""


def misfit(stack: Sequence[Named], kinds: Mapping[str, Kind], folder: str | Path) -> str | None:
    """The first tensor of a folder that a patch does not fit, in one line, or None."""
    for name, patch in stack:
        for line in patch.misfits(kinds, folder):
            return f"{name} does not fit: {line}"
    return None


# ---------------------------------------------------------------------------------------------
# Overlaps


@dataclass(frozen=True)
class Shared:
    """The weights that two patches both change.

    Attributes:
        tensors: how many per tensor, for tensors that have any, in name order.
        differing: how many of them get two different values.
    """

    tensors: dict[str, int]
    differing: int

    @property
    def count(self) -> int:
        """How many weights both change."""
        return sum(self.tensors.values())


def overlaps(patches: Sequence[Source]) -> dict[tuple[int, int], Shared]:
    """Which weights both change, for every pair of patches.

    A part of one tensor is in memory at a time, and its coded positions.

    Args:
        patches: patches of one model, or their files.

    Returns:
        For every pair (i, j), i < j, counted from 0, what both change.
    """
    stack = load_stack(patches)
    tensors: dict[tuple[int, int], dict[str, int]] = {
        pair: {} for pair in combinations(range(len(stack)), 2)
    }
    differing = dict.fromkeys(tensors, 0)
    for name in sorted({name for named in stack for name in named.patch.tensors}):
        for pair in tensors:
            one, other = (stack[i] for i in pair)
            if name not in one.patch.tensors or name not in other.patch.tensors:
                continue
            both, unequal = _shared(one, other, name)
            if both:
                tensors[pair][name] = both
            differing[pair] += unequal
    return {pair: Shared(found, differing[pair]) for pair, found in tensors.items()}


def _shared(one: Named, other: Named, name: str) -> tuple[int, int]:
    """How many weights of a tensor both change, and how many of those to different values."""
    kinds = [named.patch.tensors[name].kind for named in (one, other)]
    if kinds[0] != kinds[1]:
        raise WagleError(
            f"{name} is {kinds[0]} in {one.name} and {kinds[1]} in {other.name}; compare patches of "
            "one model"
        )
    mine, theirs = one.patch.cursor(name), other.patch.cursor(name)
    size = one.patch.tensors[name].size
    both = unequal = 0
    for stop in range(_CHUNK, size + _CHUNK, _CHUNK):
        (where, values), (places, others) = mine.upto(stop), theirs.upto(stop)
        if values is None or others is None:
            continue
        _, left, right = np.intersect1d(where, places, assume_unique=True, return_indices=True)
        both += len(left)
        first, second = values[torch.from_numpy(left)], others[torch.from_numpy(right)]
        unequal += int((first != second).sum())
    return both, unequal
