"""Optimisers that step on one part of the weights after another: one block's vectors in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from wagle.system.mapped import Room, let_go, will_need


def step_in_parts(
    optimizer: Optimizer, parts: Sequence[Sequence[nn.Parameter]], where: Room
) -> None:
    """Have an element-wise optimiser step on one part after the other, in place.

    To everything else it stays one optimiser with its groups; a step is still one step.

    Args:
        optimizer: whose entries do not depend on one another.
        parts: its parameters, each in one part.
        where: where what it keeps for each entry lies.
    """
    kind: Any = type(optimizer)

    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> None:
        assert closure is None
        for part, following in zip(parts, [*parts[1:], ()], strict=True):
            for parameter in following:
                kept = self.state.get(parameter, {}).values()
                vectors = [value for value in kept if isinstance(value, Tensor)]
                will_need(parameter, parameter.grad, *vectors)
            with only(self, part):
                kind.step(self)
            put_away(self, part, where)

    optimizer.__class__ = type(kind.__name__, (kind,), {"step": step})


@contextlib.contextmanager
def only(optimizer: Optimizer, part: Sequence[nn.Parameter]) -> Iterator[None]:
    """An optimiser of a part of its parameters, for a moment."""
    groups, wanted = optimizer.param_groups, {id(p) for p in part}
    whole = [group["params"] for group in groups]
    try:
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) in wanted]
        optimizer.param_groups = [group for group in groups if group["params"]]
        yield
    finally:
        for group, params in zip(groups, whole, strict=True):
            group["params"] = params
        optimizer.param_groups = groups


def put_away(optimizer: Optimizer, part: Sequence[nn.Parameter], where: Room) -> None:
    """Put what an optimiser keeps of these parameters' entries where it belongs."""
    for parameter in part:
        state = optimizer.state.get(parameter, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = where.put(value)
                let_go(state[name])
        let_go(parameter, parameter.grad)
