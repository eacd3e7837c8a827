"""Proof from files: what differs between two models, and whether a mask or patches explain it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wagle.mask.mask import Mask
from wagle.model.weights import StoredTensor, fingerprint
from wagle.patch.folders import in_step, pairs, same_layout, unequal
from wagle.patch.stack import Named, Source, load_stack, promised, stack_problem
from wagle.system.errors import WagleError


@dataclass(frozen=True)
class Verification:
    """What differs between two models, and whether that is allowed.

    Attributes:
        changed: weights that differ in any bit.
        total: all weights.
        tensors: changed weights per tensor, changed tensors only, in name order.
        mask_count: weights that the mask selects (of a ladder: its largest ratio), or None
            without a mask.
        mask_of_base: whether the mask was made for this base, or None if there is no mask or it
            does not say; True is not required, as a mask may serve a related checkpoint.
        outside: changed weights that the mask does not select, per tensor, or None without a mask.
        patches: how many patches were given.
        patch_problems: why base and patches do not give the result, one line each, or None
            without a patch.
    """

    changed: int
    total: int
    tensors: dict[str, int]
    mask_count: int | None = None
    mask_of_base: bool | None = None
    outside: dict[str, int] | None = None
    patches: int = 0
    patch_problems: tuple[str, ...] | None = None

    @property
    def outside_mask(self) -> int | None:
        """How many changed weights the mask does not select, or None without a mask."""
        return None if self.outside is None else sum(self.outside.values())

    @property
    def patch_matches(self) -> bool | None:
        """Whether base and patches give the result bit for bit, or None without a patch."""
        return None if self.patch_problems is None else not self.patch_problems

    @property
    def ok(self) -> bool:
        """Whether nothing changed outside the mask, and the patches match, if these were given.

        Two equal models count as ok; ``changed`` tells them apart.
        """
        return not self.outside and not self.patch_problems


def verify(
    base: str | Path,
    result: str | Path,
    *,
    mask: Mask | str | Path | None = None,
    patch: Source | Sequence[Source] | None = None,
) -> Verification:
    """Compare two model folders bit by bit, and with a mask or patches that explain the difference.

    Args:
        base: the model folder before.
        result: the model folder after: equal tensor names, shapes and types.
        mask: a mask, or its file; every changed weight must be selected by it. A tensor that is
            not in the mask may not change at all.
        patch: a patch or its file, or several in order; base and patches must give the result
            bit for bit.

    Returns:
        The counts; ``ok`` is the verdict. Folders that cannot be compared at all are an error.
    """
    layout = same_layout(base, result)
    mask = Mask.load(mask) if isinstance(mask, str | Path) else mask
    stack = [] if patch is None else load_stack(patch)
    for name, shape in mask.shapes.items() if mask is not None else ():
        if name in layout and layout[name].shape != tuple(shape):
            raise WagleError(
                f"the mask does not fit the model: {name} is {list(shape)} in the mask and "
                f"{list(layout[name].shape)} in {base}"
            )
    ours = fingerprint(base) if mask is not None or stack else ""
    problems = _wrong_ends(stack, base, ours, result) if stack else []
    misfits = [line for named in stack for line in named.patch.misfits(layout, base)]
    tensors: dict[str, int] = {}
    outside: dict[str, int] = {}
    for name, old, new in pairs(base, result):
        fitting = stack if not misfits else []
        found = _compare(name, old, new, mask, [p for p in fitting if name in p.patch.tensors])
        if found.changed:
            tensors[name] = found.changed
        if found.stray:
            outside[name] = found.stray
        if fitting and found.wrong:
            said = "base + patch" if len(stack) == 1 else f"base + {len(stack)} patches"
            problems.append(f"{name}: {found.wrong} weights of {said} are not those of {result}")
    made_for = None if mask is None else mask.metadata.get("model")
    return Verification(
        changed=sum(tensors.values()),
        total=sum(math.prod(kind.shape) for kind in layout.values()),
        tensors=tensors,
        mask_count=None if mask is None else mask.counts[-1],
        mask_of_base=None if made_for is None else made_for == ours,
        outside=None if mask is None else outside,
        patches=len(stack),
        patch_problems=(*problems, *misfits) if stack else None,
    )


def _wrong_ends(
    stack: Sequence[Named], base: str | Path, ours: str, result: str | Path
) -> list[str]:
    """How the fingerprints of base (``ours``) and result contradict the patches."""
    problem = stack_problem(stack, base, ours)
    problems = [] if problem is None else [problem]
    wanted, theirs = promised(stack, ours), fingerprint(result)
    if wanted is not None and theirs != wanted:
        problems.append(f"{stack[-1].name} makes {wanted[:6]}, but {result} is {theirs[:6]}")
    return problems


class _Compared(NamedTuple):
    """How many weights of a tensor changed, how many outside the mask, how many unlike the patches."""

    changed: int
    stray: int
    wrong: int


def _compare(
    name: str, old: StoredTensor, new: StoredTensor, mask: Mask | None, stack: Sequence[Named]
) -> _Compared:
    """Compare a tensor before and after, part by part; ``stack`` are the patches that change it."""
    cursors = [named.patch.cursor(name) for named in stack]
    known = mask is not None and name in mask.shapes
    changed = stray = wrong = 0
    for start, before, after in in_step(old, new):
        part = unequal(before, after)
        here = int(np.count_nonzero(part))
        changed += here
        if mask is not None and known and here:
            unselected = mask.levels(name, start, start + len(part)).numpy() == 0
            stray += int(np.count_nonzero(part & unselected))
        elif mask is not None:
            stray += here
        for cursor in cursors:
            cursor.put(before, start)
        wrong += int(np.count_nonzero(unequal(before, after))) if cursors else here
    return _Compared(changed, stray, wrong)
