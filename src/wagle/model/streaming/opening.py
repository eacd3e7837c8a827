"""Open a model folder as a live model whose blocks stay on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from wagle.model.streaming.blocks import StoredBlocks
from wagle.model.streaming.stream import Stream
from wagle.model.structure import model_folder
from wagle.model.weights import STREAM
from wagle.system.memory import free_at_once
from wagle.system.processes.group import local_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
Item = TypeVar("Item")


def open_streamed(
    path: str | Path,
    dtype: str = "float32",
    attention: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Open a causal language model in a local folder, with one of its blocks in memory at a time.

    It is called like any other model; ``in_step`` lets many calls share one reading of its blocks.
    The arguments are those of ``load_model``. Peak memory is that of stem, head and two blocks (one
    is read ahead), whatever the depth.

    Raises:
        WagleError: as ``load_model``; and where the blocks cannot be told apart, or share weights.
    """
    folder = model_folder(path)
    free_at_once()  # whole blocks come and go: their holes in the heap would add up
    device = torch.device(local_device())
    with contextlib.ExitStack() as stack:
        stored = StoredBlocks(folder, dtype, attention, device, stack, trust_remote_code)
        stored.hold_around(stack)
        stream = Stream(stored, stack.pop_all())
    model: Any = stored.model
    setattr(model, STREAM, stream)
    model.to = lambda *_, **__: model  # it stays where it is: a Trainer would move it
    opened: PreTrainedModel = model.eval()
    return opened


def stream_of(model: nn.Module) -> Stream | None:
    """What keeps the blocks of a model on disk; None for an ordinary model."""
    owner: Any = getattr(model, "module", model)
    found: Stream | None = getattr(owner, STREAM, None)
    return found


def is_streamed(model: nn.Module) -> bool:
    """Whether the blocks of a model stay on disk."""
    return stream_of(model) is not None


def in_step(model: nn.Module, jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run jobs that call a model, and return what each returned.

    The jobs of a streamed model go through its blocks together, so that each block is read once for
    all of them; those of any other model run one after the other. Either way only one of them runs
    at a time.
    """
    stream = stream_of(model)
    return [job() for job in jobs] if stream is None else stream.in_step(jobs)


def each(model: nn.Module, work: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
    """``work`` of every item, which calls the model, in step."""
    return in_step(model, [partial(work, item) for item in items])
