"""How much of an unlearning quantisation undoes, read off the weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from wagle.compat.torchao import codes_and_steps
from wagle.mask.mask import Mask
from wagle.model.quantization.layers import (
    Method,
    as_layer,
    as_rows,
    check_group,
    group_of,
    int4,
    int8,
)
from wagle.model.weights import Weights
from wagle.system.errors import WagleError, choose

_CHUNK = 1 << 22  # weights whose codes are made at once
_CODED: dict[str, Method] = {"int4": int4, "int8": int8}  # steps of one size within a row or group


def changed_codes(
    base: nn.Module | str | Path,
    after: nn.Module | str | Path,
    how: str,
    mask: Mask | None = None,
    *,
    group_size: int | None = None,
) -> dict[str, int | float | None]:
    """How much of an unlearning remains once the weights are rounded.

    The codes are those that ``quantize`` would give, in the precision in which ``after`` holds its
    weights. Nothing is run. At most one tensor of a folder is in memory, and mostly only a few
    million weights at a time. A weight shared by embedding and head counts as the head's.

    Args:
        base: the original model, live or a folder.
        after: the unlearned model, with the same names and shapes.
        how: ``int8`` or ``int4``.
        mask: a mask of a single ratio for these models: the weights to count. None counts those
            that changed.
        group_size: as in ``quantize``.

    Returns:
        ``weights``: how many of the selected (or changed) weights are quantised; ``changed``: how
        many of these differ; ``code_changed``: the share of ``weights`` whose code differs from the
        original's; ``below_half_step``: the share of ``changed`` that moved by less than half a
        step of the original; ``not_quantized``: selected (or changed) weights that quantisation
        leaves alone. A share with nothing to count is None.

    Raises:
        WagleError: the name is unknown, the models do not fit each other or the mask, or weights
            are not finite.
    """
    method = choose(_CODED, how, "quantisation with codes")
    with _opened(base) as (old, old_weight), _opened(after) as (new, new_weight):
        _check_fit(old, new, mask)
        group = group_of(new, group_size)
        layers = {id(m.weight): m for m in new.modules() if isinstance(m, nn.Linear | Conv1D)}
        total, rest = torch.zeros(4, dtype=torch.int64), 0
        for name, parameter in new.named_parameters():
            if mask is not None and name not in mask:
                continue
            picked = None if mask is None else mask[name]
            before, now = old_weight(name), new_weight(name)
            layer = layers.get(id(parameter))
            if layer is None:
                rest += int((before.to(now.dtype) != now if picked is None else picked).sum())
                continue
            if how == "int4":
                check_group(name, as_rows(layer, now).shape[1], group)
            chosen = None if picked is None else as_rows(layer, picked)
            total += _counts(
                name, as_rows(layer, before), as_rows(layer, now), chosen, method, group
            )
    weights, changed, codes, below = total.tolist()
    return {
        "weights": weights,
        "changed": changed,
        "code_changed": codes / weights if weights else None,
        "below_half_step": below / changed if changed else None,
        "not_quantized": rest,
    }


def _counts(
    name: str, old: Tensor, new: Tensor, picked: Tensor | None, method: Method, group: int
) -> Tensor:
    """Counts for one weight (out, in), some rows at a time, as (4,) int64.

    How many entries are examined, and how many of these moved, have another code, or moved by less
    than half a step.
    """
    total = torch.zeros(4, dtype=torch.int64)
    step = max(1, _CHUNK // old.shape[1])
    for start in range(0, len(old), step):
        part = slice(start, start + step)
        now = new[part].contiguous()
        before = old[part].to(now.dtype).contiguous()
        if not (torch.isfinite(before).all() and torch.isfinite(now).all()):
            raise WagleError(f"the weights of {name} are not finite; the model is unusable")
        moved = before != now
        looked = moved if picked is None else picked[part].to(moved.device)
        if not looked.any():
            continue
        first, steps = _codes(before, method, group)
        second, _ = _codes(now, method, group)
        small = (now.float() - before.float()).abs() < steps / 2
        parts = (looked, looked & moved, looked & (first != second), looked & moved & small)
        total += torch.stack([part.sum().cpu() for part in parts])
    return total


def _codes(rows: Tensor, method: Method, group: int) -> tuple[Tensor, Tensor]:
    """The codes of a weight (out, in) as int8, and the step size of each as float32."""
    weight: Any = method(as_layer(rows), group).weight
    codes, steps = codes_and_steps(weight)
    scale = steps.float()  # (out, groups of a row)
    return codes, scale.repeat_interleave(rows.shape[1] // scale.shape[1], 1)


@contextmanager
def _opened(
    source: nn.Module | str | Path,
) -> Iterator[tuple[nn.Module, Callable[[str], Tensor]]]:
    """A model's structure, and its weights by name, one at a time."""
    if isinstance(source, nn.Module):
        live = {name: p.detach() for name, p in source.named_parameters()}
        yield source, live.__getitem__
        return
    weights = Weights(source)
    try:
        yield weights.model, weights.get
    finally:
        weights.close()


def _check_fit(old: nn.Module, new: nn.Module, mask: Mask | None) -> None:
    have = {name: tuple(p.shape) for name, p in new.named_parameters()}
    others = {"base": {name: tuple(p.shape) for name, p in old.named_parameters()}}
    if mask is not None:
        # what the mask does not know was not trainable; what it knows must be there
        others["mask"] = {**have, **mask.shapes}
    for what, shapes in others.items():
        differ = sorted(n for n in {*have, *shapes} if have.get(n) != shapes.get(n))
        if differ:
            raise WagleError(
                f"{what} and after do not fit: {differ[0]} is {shapes.get(differ[0])} in one and "
                f"{have.get(differ[0])} in the other; give models of the same architecture"
            )
