"""Batches: as large as memory allows, halved when it runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from wagle.evaluation.asking.requests import Reply, Request
from wagle.model.streaming.opening import is_streamed
from wagle.model.structure import device_of
from wagle.system.errors import WagleError
from wagle.system.memory import free_memory, give_memory_back
from wagle.system.progress import Bar

logger = logging.getLogger(__name__)
T = TypeVar("T")
Found = list[tuple[Request, Reply]]

_DECODE = 64  # a written answer takes one token a step: more rows keep the device busy
_MOST = {"cpu": 1024}  # tokens that keep a device busy; more only adds padding
_MOST_ELSEWHERE = 32_768
_LEAST = 256


def choose_budget(model: PreTrainedModel) -> int:
    """Padded tokens per forward pass that keep the device busy and fit into half its free memory.

    Per token it counts the keys and values of all blocks (of one, if the blocks are on disk), the
    widest activations of one block and one row of logits, each also in float32.
    """
    config, device = model.config.get_text_config(decoder=True), device_of(model)
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    depth = 1 if is_streamed(model) else config.num_hidden_layers
    values = 2 * depth * width + 8 * width + 3 * inner + 2 * config.vocab_size
    fits = int(0.5 * free_memory(device) / (values * 4))
    return max(_LEAST, min(fits, _MOST.get(device.type, _MOST_ELSEWHERE)))


def kept_budget(model: PreTrainedModel, budget: int) -> int:
    """Tokens whose keys and values written answers may keep: a quarter of the free memory."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    fits = int(0.25 * free_memory(device_of(model)) / per_token)
    return max(budget, min(_DECODE * budget, fits))


def in_batches(
    items: Sequence[T],
    budget: int,
    length: Callable[[T], int],
    answer: Callable[[Sequence[T], int], Iterable[Found]],
    what: str,
    *,
    size: Callable[[T], int] = lambda _: 1,
) -> Iterator[Found]:
    """Answer items batch by batch, longest first: if memory is short, the first batch shows it.

    Args:
        items: requests, or groups of requests.
        budget: padded tokens per batch; halved for good when memory runs out.
        length: gives an item's length in tokens.
        answer: answers a batch within a budget, piece by piece; starts over if memory ran out.
        what: the progress bar's title.
        size: how many requests an item holds.
    """
    if not items:
        return
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    place = 0
    with Bar(what, sum(map(size, items))) as bar:
        while place < len(order):
            widest = max(1, length(items[order[place]]))
            batch = [items[i] for i in order[place : place + max(1, budget // widest)]]
            done, short = 0, False
            try:
                for found in answer(batch, budget):
                    yield found
                    done += len(found)
                    bar.advance(len(found))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_shortage(error):
                    raise
                if budget <= 1:
                    raise WagleError(
                        f"memory runs out at {widest} tokens; store the weights in a "
                        "smaller dtype, shorten the records or use a larger machine"
                    ) from None
                short = True
            if short:  # outside the handler, whose traceback keeps the tensors alive
                give_memory_back()
                bar.advance(-done)
                used = len(batch) * widest
                budget = max(1, min(budget, used) // 2)
                logger.warning(
                    "memory ran out at %d tokens a batch; continuing with %d", used, budget
                )
                continue
            place += len(batch)


def is_shortage(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or on the CPU (whose allocator has no error of its own)."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
