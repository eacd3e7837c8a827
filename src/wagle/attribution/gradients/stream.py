"""The engine ``stream``: gradients of a model with one block in memory at a time.

Nothing here depends on an architecture. The model's own forward runs with its blocks replaced: what
it would pass to each block is recorded once, and each block is then called with exactly that. The
weights of a block are read twice, once going forward and once going back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from wagle.attribution.gradients.backward import (
    blocks_left,
    through_block,
    through_head,
    through_stem,
)
from wagle.attribution.gradients.blocks import Blocks
from wagle.attribution.gradients.forward import record, through_blocks
from wagle.attribution.gradients.kept import Kept
from wagle.attribution.gradients.passes import Job, Pass
from wagle.attribution.gradients.sink import Sink
from wagle.system.memory import give_memory_back


def stream(model: PreTrainedModel | Path, passes: Sequence[Pass], job: Job, sink: Sink) -> None:
    """One block in memory: forward once, keeping each block's input, then back from the head.

    Peak memory is the largest of stem, block and head, whatever the depth; the arithmetic is 4/3
    of that of ``whole``. Finished blocks are in the sink: after a kill only the forward pass and
    the head are computed again.
    """
    assert isinstance(model, Path)
    with contextlib.ExitStack() as stack:
        kept = Kept(Blocks(model, job, stack), passes, sink, stack)
        record(kept)
        through_blocks(kept)
        give_memory_back()  # each step has its own sizes
        if not any(which.backward for which in passes):
            return
        through_head(kept)
        give_memory_back()
        for block in reversed(range(blocks_left(kept))):
            through_block(kept, block)
        give_memory_back()
        through_stem(kept)
