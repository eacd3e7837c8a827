"""A model with one block in memory at a time, as the engine ``stream`` drives it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wagle.attribution.gradients.passes import Job, check_loss
from wagle.data.tokens import Tokens
from wagle.model.scoring import answer_nll
from wagle.model.streaming.blocks import StoredBlocks
from wagle.model.structure import placed, precision, to_device, without_dropout


@dataclass
class Batch:
    """One batch of one pass, and what the model passes to each block besides the hidden states.

    Attributes:
        which: the number of the pass.
        number: the number of the batch in its pass.
        batch: the padded records.
        calls: per block, the other arguments of its forward.
    """

    which: int
    number: int
    batch: dict[str, Any]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    @property
    def key(self) -> str:
        """The key under which its activations are kept."""
        return f"{self.which} {self.number}"

    @property
    def records(self) -> int:
        """How many records it holds."""
        return len(self.batch["index"])


class Blocks(StoredBlocks):
    """The model in a folder, for an engine: its structure, and the weights of one block.

    Attributes:
        keyword: whether a block receives its hidden states by keyword.
        tuples: whether a block returns a tuple.
    """

    def __init__(self, folder: Path, job: Job, stack: contextlib.ExitStack) -> None:
        device = torch.device(job.device)
        super().__init__(folder, job.dtype, job.attention, device, stack, job.trust)
        self.job = job
        stack.enter_context(without_dropout(self.model))
        self.keyword = False
        self.tuples = False

    # The model's own forward, with its blocks replaced

    @contextlib.contextmanager
    def replaced(self, shims: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
        """Let ``shims(i)`` answer in place of block i, which otherwise stays as it is."""
        for i, block in enumerate(self.blocks):
            block.forward = shims(i)
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    def entered(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """The hidden states among the arguments of a block."""
        found: Tensor = kwargs["hidden_states"] if self.keyword else args[0]
        return found

    def answer(self, hidden: Tensor) -> Any:
        """``hidden`` in the form in which a block returns it."""
        return (hidden,) if self.tuples else hidden

    def loss(self, one: Batch, tokens: Sequence[Tokens]) -> Tensor:
        """Run the model's forward on a batch, with the blocks as they are now: (B,) mean NLLs."""
        with precision(self.device, self.job.precision):
            # Every pass of a batch has the same positions, which the calls of its blocks recorded.
            nll = answer_nll(self.model, to_device(one.batch, self.device), whole=True).nll_mean
        check_loss(nll, one.batch, tokens)
        return nll

    def call(self, block: int, one: Batch, hidden: Tensor) -> Tensor:
        """Run one block on one batch, with the arguments that the model's own forward gives it."""
        args, kwargs = one.calls[block]
        with precision(self.device, self.job.precision):
            if self.keyword:
                found = self.blocks[block](*args, hidden_states=hidden, **kwargs)
            else:
                found = self.blocks[block](hidden, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def look(self, one: Batch, hidden: Tensor) -> None:
        """Find out what a block returns, by calling the first while its forward is replaced."""
        (args, kwargs), block = one.calls[0], self.blocks[0]
        hidden = hidden.detach()
        with placed(self.model, self.load(0, 0)), torch.no_grad():
            own = type(block).forward
            with precision(self.device, self.job.precision):
                found = (
                    own(block, *args, hidden_states=hidden, **kwargs)
                    if self.keyword
                    else own(block, hidden, *args, **kwargs)
                )
        self.tuples = not isinstance(found, Tensor)
