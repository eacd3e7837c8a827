"""From a mask to slices: which parameters of a model train, and where their vectors lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from wagle.mask.mask import Mask
from wagle.model.sharding import local, own_range
from wagle.model.streaming.opening import stream_of
from wagle.model.streaming.stream import Stream
from wagle.model.structure import is_sharded
from wagle.system.errors import WagleError
from wagle.system.mapped import Room
from wagle.unlearning.training.weights.overlaid import Overlaid
from wagle.unlearning.training.weights.slices import IN_MEMORY, Slice

PER_WEIGHT = 20  # bytes: index, master, gradient and two moments
SMALL = 256 << 20  # bytes of vectors that stay in memory beside a streamed model


def _own(index: Tensor, parameter: Tensor) -> Tensor:
    """The indices that lie in this process's part of a parameter, counted from its beginning."""
    start, stop = own_range(parameter)
    if stop - start == parameter.numel():
        return index
    ends = torch.searchsorted(index, torch.tensor([start, stop], dtype=index.dtype))
    return index[ends[0] : ends[1]] - start


def choose(
    model: nn.Module,
    mask: Mask | None,
    only: set[str] | None,
    saved: Mapping[str, torch.dtype],
) -> Iterator[tuple[nn.Parameter, Slice | None]]:
    """Every trainable parameter, with its slice if it takes part; those of blocks lie over a folder.

    The arguments are those of ``SelectedWeights``.
    """
    _refuse_laid(model)
    make = _Maker(model, mask, only)
    sharded = is_sharded(model)
    for name, parameter in list(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        index = None if mask is None else _own(mask.selected(name), parameter)
        if index is not None and len(index) == local(parameter).numel():
            index = None
        left_out = only is not None and name not in only
        if left_out or (index is not None and len(index) == 0 and not sharded):
            yield parameter, None
        else:
            yield parameter, make(name, parameter, index, saved.get(name, parameter.dtype))


def _refuse_laid(model: nn.Module) -> None:
    """Refuse a streamed model that has been trained: what lies over its blocks would be lost."""
    stream = stream_of(model)
    if stream is not None and stream.overlay:
        raise WagleError(
            f"the model streamed from {stream.folder} has been trained already; save it with "
            "save_model, and open the new folder"
        )


class _Maker:
    """Makes slices; of a streamed model, each block is read once."""

    def __init__(self, model: nn.Module, mask: Mask | None, only: set[str] | None) -> None:
        self._stream = stream_of(model)
        self._where = room_of(model, _count(model, mask, only))
        self._homes = {} if self._stream is None else blocks_of(self._stream)
        self._read: tuple[int, dict[str, Tensor]] = (-1, {})

    def __call__(
        self, name: str, parameter: nn.Parameter, index: Tensor | None, saved: torch.dtype
    ) -> Slice:
        if self._stream is None:
            return Slice(name, parameter, index, saved)
        block = self._homes.get(name)
        if block is None:
            return Slice(name, self._stream.own(name), index, saved, self._where)
        if self._read[0] != block:
            self._read = (block, {})
            self._read = (block, self._stream.weights(block))
        base = self._read[1][name]
        return Overlaid(name, parameter, base, index, saved, self._where)


def blocks_of(stream: Stream) -> dict[str, int]:
    """The block of every parameter that is in one."""
    return {name: block for block, names in enumerate(stream.names) for name in names}


def room_of(model: nn.Module, count: int) -> Room:
    """Where the vectors of ``count`` selected weights lie: beside a streamed model, few in memory."""
    large = stream_of(model) is not None and count * PER_WEIGHT > SMALL
    return Room(on_disk=True) if large else IN_MEMORY


def _count(model: nn.Module, mask: Mask | None, only: set[str] | None) -> int:
    if mask is not None:
        return mask.count
    return sum(p.numel() for n, p in model.named_parameters() if only is None or n in only)
