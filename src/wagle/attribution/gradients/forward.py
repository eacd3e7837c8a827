"""The forward pass of the engine ``stream``: what enters each block, and its other arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wagle.attribution.gradients.blocks import Batch
from wagle.attribution.gradients.kept import Kept
from wagle.attribution.gradients.passes import Inputs, linear_layers
from wagle.compat.torch import leaf_of
from wagle.model.streaming.traces import check_given
from wagle.model.structure import placed
from wagle.system.processes import group


class Enough(Exception):
    """Ends a forward pass early, once everything wanted from it has been seen."""


def record(kept: Kept) -> None:
    """Run the stem on every batch; keep its output and the arguments each block will get."""
    group.agreed(partial(_record_all, kept))
    kept.early = next((names for names in group.gather(kept.early) if names), [])


def _record_all(kept: Kept) -> None:
    with kept.blocks.around() as parameters:
        for position, one in enumerate(kept.batches):
            hidden = _record(kept, one, first=position == 0)
            if position == 0:
                reached = {id(p) for p in _reached(hidden)}
                kept.early = [n for n, p in parameters.items() if id(p) in reached]
            kept.spill[0, one.key] = hidden


def _record(kept: Kept, one: Batch, first: bool) -> Tensor:
    entered: list[Tensor] = []
    blocks = kept.blocks

    def shim(block: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            blocks.keyword = "hidden_states" in kwargs
            hidden = kwargs.pop("hidden_states") if blocks.keyword else args[0]
            given = (args if blocks.keyword else args[1:], kwargs)
            one.calls.append(given)
            entered.append(hidden)
            if first:
                check_given(blocks.model, given)
                if block == 0:
                    blocks.look(one, hidden)
            if block == len(blocks) - 1:
                raise Enough
            # a leaf, so that a later argument computed from it can be recognised
            return blocks.answer(hidden.detach().requires_grad_(first))

        return forward

    with blocks.replaced(shim), torch.set_grad_enabled(first), contextlib.suppress(Enough):
        kept.loss(one)
    return entered[0]


def through_blocks(kept: Kept) -> None:
    """Run through the blocks once, keeping the input of each."""
    blocks = kept.blocks
    for block in range(len(blocks)):
        with placed(blocks.model, blocks.load(block, block + 1)), torch.no_grad():
            for p, which in enumerate(kept.passes):
                inputs = None
                with contextlib.ExitStack() as stack:
                    if "inputs" in which.kinds:
                        inputs = Inputs(which, _layers(kept, block))
                        stack.enter_context(inputs.hooked())
                    for one in kept.of(p):
                        _forward(kept, block, one, inputs)
                if inputs is not None:
                    inputs.add_up()
                    kept.sink.add(f"{block:05d}", inputs.finish())


def _layers(kept: Kept, block: int) -> dict[str, nn.Module]:
    own = set(kept.blocks.names[block])
    return {n: layer for n, layer in linear_layers(kept.blocks.model).items() if n in own}


def _forward(kept: Kept, block: int, one: Batch, inputs: Inputs | None) -> None:
    if inputs is not None:
        inputs.real = one.batch["attention_mask"].to(kept.blocks.device)
    found = kept.blocks.call(block, one, kept.hidden(block, one))
    if not kept.passes[one.which].backward:
        del kept.spill[block, one.key]
    kept.spill[block + 1, one.key] = found
    kept.bar.advance(one.records)


def _reached(output: Tensor) -> list[Tensor]:
    """The leaves that a tensor was computed from."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    left = [output.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = leaf_of(node)
        if leaf is not None:
            found.append(leaf)
        left += [following for following, _ in node.next_functions]
    return found
