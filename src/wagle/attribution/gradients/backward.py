"""The backward pass of the engine ``stream``: from the loss to the head, the blocks, the stem."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wagle.attribution.gradients.blocks import Batch
from wagle.attribution.gradients.forward import Enough
from wagle.attribution.gradients.kept import Kept
from wagle.attribution.gradients.passes import Sums
from wagle.model.structure import placed
from wagle.system.processes import group


def through_head(kept: Kept) -> None:
    """From the last block's output to the loss and back: the gradients of the head."""
    with kept.blocks.around() as parameters:
        late = [n for n in parameters if n not in kept.early]
        for p, which in enumerate(kept.passes):
            if not which.backward:
                continue
            kept.sink.wait()  # another pass's embedding next to this one would be the peak
            sums = Sums(which, parameters)
            group.agreed(partial(_head_of, kept, p, sums))
            kept.tied = set().union(*group.gather(kept.tied))
            for quantity, found in sums.found.items():
                for n in kept.tied & set(found):
                    kept.spill[quantity, n] = found.pop(n)
            sums.add_up(late)
            kept.sink.add("head", sums.finish(late))


def _head_of(kept: Kept, p: int, sums: Sums) -> None:
    """The gradients of the head over the batches of a pass."""
    which, parameters = kept.passes[p], sums.parameters
    for one in kept.of(p):
        kept.carry[one.key] = _head(kept, one)
        sums.share = one.records / len(which.tokens)
        kept.tied |= {n for n in kept.early if parameters[n].grad is not None}
        if "square" in which.kinds:  # a tied weight's: later, with its other use
            for n in kept.early:
                parameters[n].grad = None
        for n, parameter in parameters.items():
            sums.take(n, parameter)


def _head(kept: Kept, one: Batch) -> Tensor:
    """Back from the loss of a batch to the last block's output."""
    blocks = kept.blocks
    last = len(blocks) - 1
    leaf = kept.hidden(last + 1, one).detach().requires_grad_()

    def shim(block: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = blocks.entered(args, kwargs)
            return blocks.answer(leaf if block == last else hidden)

        return forward

    with blocks.replaced(shim), torch.enable_grad():
        kept.loss(one).mean().backward()
    assert leaf.grad is not None
    return leaf.grad


def blocks_left(kept: Kept) -> int:
    """How many blocks are left to do: all of them, or those that a killed run had not finished."""
    found = kept.sink.kept("carry")
    if not all(group.gather(found is not None)) or found is None:
        return len(kept.blocks)
    own = {one.key for one in kept.batches}
    kept.carry = {k: t.to(kept.blocks.device) for k, t in found[0].items() if k in own}
    return int(found[1]["block"])


def through_block(kept: Kept, block: int) -> None:
    """Recompute one block and go back through it: its gradients are then finished."""
    blocks = kept.blocks
    with placed(blocks.model, blocks.load(block, block - 1)) as parameters, torch.enable_grad():
        for p, which in enumerate(kept.passes):
            if not which.backward:
                continue
            sums = Sums(which, parameters)
            with sums.hooked():
                for one in kept.of(p):
                    sums.share = one.records / len(which.tokens)
                    hidden = kept.hidden(block, one).detach().requires_grad_()
                    blocks.call(block, one, hidden).backward(kept.carry[one.key])
                    assert hidden.grad is not None
                    kept.carry[one.key] = hidden.grad
                    del kept.spill[block, one.key]
                    kept.bar.advance(one.records)
            sums.add_up()
            kept.sink.add(f"{block:05d}", sums.finish())
    kept.sink.keep("carry", dict(kept.carry), {"block": block})


def through_stem(kept: Kept) -> None:
    """Back through the stem; a tied weight gets the sum over its two uses."""
    if not kept.early:
        return
    with kept.blocks.around() as around:
        parameters = {n: around[n] for n in kept.early}
        for p, which in enumerate(kept.passes):
            if not which.backward:
                continue
            kept.sink.wait()
            sums = Sums(which, parameters)
            squares = "square" in which.kinds
            if not squares:
                sums.start({q: _begun(kept, q) for q in sums.found})
            for one in kept.of(p):
                if squares and kept.tied:
                    _head(kept, one)
                _stem(kept, one).backward(kept.carry[one.key])
                sums.share = one.records / len(which.tokens)
                for n, parameter in parameters.items():
                    sums.take(n, parameter)
            sums.add_up()
            kept.sink.add("stem", sums.finish())


def _begun(kept: Kept, quantity: str) -> dict[str, Tensor]:
    """What the head has added to the sums of tied weights; nothing without batches of the pass."""
    keys = [(quantity, n) for n in kept.tied]
    return {key[1]: kept.spill.pop(key) for key in keys if key in kept.spill}


def _stem(kept: Kept, one: Batch) -> Tensor:
    """The input of the first block, recomputed."""
    blocks = kept.blocks
    entered: list[Tensor] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        entered.append(blocks.entered(args, kwargs))
        raise Enough

    with blocks.replaced(lambda _: forward), torch.enable_grad(), contextlib.suppress(Enough):
        kept.loss(one)
    return entered[0]
