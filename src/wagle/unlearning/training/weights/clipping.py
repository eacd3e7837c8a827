"""Clipping the gradients of all masters together: all at once, or with one at a time in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from wagle.system.mapped import passing
from wagle.system.processes import group


def clip_all(masters: Sequence[nn.Parameter], limit: float, *, sharded: bool) -> float:
    """Clip the gradients to a norm, in place; returns the norm from before.

    Args:
        masters: each with a gradient.
        limit: the largest norm of all gradients together.
        sharded: whether the other processes have further parts of them.
    """
    norm = torch.nn.utils.get_total_norm(m.grad for m in masters if m.grad is not None)
    if sharded:
        norm = group.add_up(norm.square().reshape(1)).sqrt()[0]
    torch.nn.utils.clip_grads_with_norm_(masters, limit, norm)
    return float(norm)


def clip_one_by_one(masters: Sequence[nn.Parameter], limit: float, *, sharded: bool) -> float:
    """The same for gradients that may lie in files, on one process."""
    assert not sharded
    gradients = [m.grad for m in masters if m.grad is not None]
    norms = [torch.linalg.vector_norm(gradient) for (gradient,) in passing(gradients)]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.tensor(0.0)
    share = limit / (norm + 1e-6)
    if share < 1:
        for (gradient,) in passing(gradients):
            gradient.mul_(share)
    return float(norm)
