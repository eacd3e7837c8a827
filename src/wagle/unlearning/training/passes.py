"""The passes of a step: forward to the terms of its loss, and back to the selected weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from wagle.model.streaming.opening import in_step
from wagle.system.processes import group
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.training.weights.selected import SelectedWeights

Micro: TypeAlias = Mapping[str, Any]


class Loss(Protocol):
    """The terms of a micro-batch, summed and divided by the records of the step."""

    def __call__(self, micro: Micro, *, log: bool = True) -> Terms:
        """``log`` says whether they count towards the step's figures."""


def pass_back(
    selected: SelectedWeights,
    micros: Sequence[Micro],
    losses: Sequence[Loss],
    slots: Sequence[str],
    *,
    log: bool = True,
) -> None:
    """Add the gradients of micro-batches to slots, of the forget term and of the retain term.

    Of a streamed model all of them go through its blocks together, forward and back.
    """

    def once(loss: Loss, micro: Micro) -> None:
        terms = group.agreed(partial(loss, micro, log=log))[: len(slots)]
        for number, (term, slot) in enumerate(zip(terms, slots, strict=True)):
            with selected.into(slot):
                _backward(term, keep=any(later is not None for later in terms[number + 1 :]))
            selected.collect(slot)

    in_step(selected.model, [partial(once, loss, micro) for micro in micros for loss in losses])
    selected.carry_back()


def _backward(loss: Tensor | None, *, keep: bool = False) -> None:
    if loss is not None and loss.requires_grad:
        torch.autograd.backward(loss, retain_graph=keep)
