"""The output of a block at the real positions of a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from wagle.model.structure import find_blocks, is_sharded
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.shapes import Hidden


class _Enough(Exception):
    """Ends a forward pass after the block that was wanted."""


@contextmanager
def _watching(model: nn.Module, layer: int, found: list[Tensor]) -> Iterator[None]:
    """Keep the output of block ``layer``; the pass ends there, by raising ``_Enough``."""
    _, blocks = find_blocks(model)  # type: ignore[arg-type]
    own = threading.get_ident()  # passes in step are each in a thread

    def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != own:
            return
        found.append(args[0] if args else kwargs["hidden_states"])
        if not is_sharded(model):  # FSDP2 must see the end of a pass
            raise _Enough

    def leaving(_: nn.Module, __: Any, output: Any) -> None:
        if threading.get_ident() != own:
            return
        found.append(output[0] if isinstance(output, tuple) else output)

    if layer + 1 < len(blocks):
        handle = blocks[layer + 1].register_forward_pre_hook(entering, with_kwargs=True)
    else:  # only the norm follows: let the pass finish
        handle = blocks[layer].register_forward_hook(leaving)
    try:
        yield
    finally:
        handle.remove()


def hidden(model: nn.Module, batch: Mapping[str, Any], layer: int) -> Hidden:
    """The output of block ``layer`` at the real positions of a batch; later blocks do not run."""
    states, length = states_of(model, batch, layer)
    return Hidden(states.float(), length)


def states_of(model: nn.Module, batch: Mapping[str, Any], layer: int) -> tuple[Tensor, Tensor]:
    """The states of ``hidden`` in the model's own precision, and their number per record."""
    found: list[Tensor] = []
    with _watching(model, layer, found), suppress(_Enough):
        model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
        )
    real = batch["attention_mask"].bool()
    return found[0][real], real.sum(-1)


def check_layer(model: nn.Module, layer: Any) -> None:
    """Refuse a block that does not exist."""
    _, blocks = find_blocks(model)  # type: ignore[arg-type]
    if not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise WagleError(
            f"layer is {layer}; the model has blocks 0 to {len(blocks) - 1}, so choose one of these"
        )
