"""Stochastic rounding: a step smaller than the spacing of bfloat16 still moves on average.

Rounding to the nearest value drops any update below half the spacing at a weight, which acts as a
hidden mask; rounding up or down at random preserves the mean of the updates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wagle.data.draws import uniform

_DROPPED = 16  # bits of a float32 that bfloat16 lacks


def seeded(key: Sequence[object], device: torch.device) -> torch.Generator:
    """A separate generator whose draws depend only on ``key`` and the kind of device."""
    return torch.Generator(device).manual_seed(int(uniform(*key) * 2.0**53))


def stochastic_bfloat16(values: Tensor, key: tuple[object, ...]) -> Tensor:
    """Round to one of the two nearest bfloat16 values, more probably to the nearer one.

    A value that lies a share s of the way from its neighbour on the side of zero to the other one
    is rounded to the latter with probability s, exact to 2^-16, so the mean over draws is the
    value. Values that bfloat16 can hold are unchanged, including signed zeros, infinities and NaN.
    Beyond the largest finite bfloat16 (3.39e38) the neighbour away from zero is infinity.

    Args:
        values: any shape, float32.
        key: identifies the draws, such as (seed, step, name). Equal keys and values give equal
            results on one kind of device.

    Returns:
        The same shape, bfloat16.

    Source: Gupta et al. 2015, arXiv 1502.02551, section 3.
    """
    assert values.dtype == torch.float32
    draws = torch.empty(values.shape, dtype=torch.int32, device=values.device)
    draws.random_(0, 1 << _DROPPED, generator=seeded(key, values.device))
    # The bits of a float order its magnitudes: a carry out of the dropped bits is the next value.
    draws.add_(values.contiguous().view(torch.int32)).bitwise_and_(-1 << _DROPPED)
    rounded = draws.view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).to(torch.bfloat16)
