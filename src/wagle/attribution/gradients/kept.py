"""State that the engine ``stream`` keeps between steps: batches, activations, partial gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from torch import Tensor

from wagle.attribution.gradients.blocks import Batch, Blocks
from wagle.attribution.gradients.passes import Pass
from wagle.attribution.gradients.sink import Sink
from wagle.system.memory import Spill
from wagle.system.processes import group
from wagle.system.progress import Bar

_IN_MEMORY = 64 << 20  # bytes of activations before they go to a file


class Kept:
    """The state that the steps of one run of the engine share.

    Attributes:
        spill: the input of each block, by (block, key of the batch); and, by (quantity, parameter),
            the sums of tied weights that the head has finished but the stem has not.
        batches: this process's part of all batches.
        early: parameters of the stem.
        tied: those that the head uses too.
        carry: by batch, d(loss)/d(input of the last block that is done).
    """

    def __init__(
        self, blocks: Blocks, passes: Sequence[Pass], sink: Sink, stack: contextlib.ExitStack
    ) -> None:
        self.blocks, self.passes, self.sink = blocks, passes, sink
        self.spill = Spill(_IN_MEMORY, sink.folder)
        stack.callback(self.spill.close)
        every = [
            Batch(p, i, batch, [])
            for p, which in enumerate(passes)
            for i, batch in enumerate(which.batches(blocks.job.batch_tokens))
        ]
        self.batches = group.share(every)
        self.early: list[str] = []
        self.tied: set[str] = set()
        self.carry: dict[str, Tensor] = {}
        steps = sum(one.records for one in self.batches) * len(blocks)
        self.bar = stack.enter_context(Bar("gradients", 2 * steps))

    def of(self, which: int) -> list[Batch]:
        """The batches of one pass."""
        return [one for one in self.batches if one.which == which]

    def loss(self, one: Batch) -> Tensor:
        """Run the model's forward on a batch, with the blocks as they are now: (B,) mean NLLs."""
        return self.blocks.loss(one, self.passes[one.which].tokens)

    def hidden(self, block: int, one: Batch) -> Tensor:
        """The input of a block, on the device where it computes."""
        return self.spill[block, one.key].to(self.blocks.device)
