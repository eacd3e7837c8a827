"""Patches over a base whose blocks stay on disk: no patched model is written or held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.streaming.stream import Laid
from wagle.patch.application import check_fit
from wagle.patch.file import Patch
from wagle.patch.stack import load_stack, promised
from wagle.system.errors import WagleError
from wagle.system.mapped import Room

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_PER_WEIGHT = 8  # bytes: where it is, and its value
_SMALL = (
    256 << 20
)  # bytes that stay in memory; more lie in files, of which only what is used is there


class LaidOver(NamedTuple):
    """A base under patches.

    Attributes:
        model: the live model; one block of it is in memory at a time.
        fingerprint: of the model that the patches promise; independent ones promise none.
    """

    model: PreTrainedModel
    fingerprint: str | None


def open_patched(
    base: str | Path,
    patches: str | Path | Sequence[str | Path],
    dtype: str = "float32",
    attention: str = "auto",
) -> LaidOver:
    """The model that patches turn a base into; the base's blocks stay on disk.

    New values in blocks lie over what is read, those before and after the blocks are written into
    memory.

    Args:
        base: the model folder that the patch was made for; another one is refused.
        patches: as ``apply`` takes them.
        dtype: the dtype of the weights in memory.
        attention: ``eager``, ``sdpa`` or ``auto``.
    """
    stack = load_stack(patches)
    if not stack:
        raise WagleError(f"no patch was given for {base}; name at least one")
    ours = check_fit(stack, base)
    model = open_streamed(base, dtype, attention)
    stream = stream_of(model)
    assert stream is not None
    size = sum(named.patch.changed for named in stack) * _PER_WEIGHT
    where = Room(on_disk=size > _SMALL)
    blocks, known = {name for names in stream.names for name in names}, dict(model.named_buffers())
    for named in stack:
        for name in named.patch.tensors:
            if name in blocks:
                laid = _over(stream.overlay.get(name), named.patch, name)
                index = None if laid.index is None else where.put(laid.index)
                stream.overlay[name] = Laid(index, where.put(laid.values))
            elif name in stream.outer:
                _put(named.patch, name, stream.own(name).data)
            elif name in known:
                _put(named.patch, name, known[name])
            else:
                raise WagleError(
                    f"{base} loads {name} under another name; apply {named.name} to a folder"
                )
    return LaidOver(model, promised(stack, ours))


def _places(patch: Patch, name: str) -> Tensor | None:
    """Where a tensor changed, (k,) int32 flat positions; None if everywhere."""
    if patch.tensors[name].count == patch.tensors[name].size:
        return None
    wide = np.int32 if patch.tensors[name].size < 1 << 31 else np.int64
    return torch.from_numpy(np.concatenate([p.astype(wide) for p in patch.positions(name)]))


def _put(patch: Patch, name: str, tensor: Tensor) -> None:
    """Write the new values of a tensor into the model's, in its dtype."""
    Laid(_places(patch, name), patch.values(name)).over(tensor.view(-1))


def _over(below: Laid | None, patch: Patch, name: str) -> Laid:
    """What lies over a tensor of a block when a patch comes on top of the ones before."""
    index, values = _places(patch, name), patch.values(name)
    if below is None or index is None:
        return Laid(index, values)
    if below.index is None:
        whole = below.values.clone()
        whole[index.long()] = values
        return Laid(None, whole)
    every = torch.cat([below.index, index])
    order = every.argsort(stable=True)
    places = every[order]
    last = torch.cat([places[1:] != places[:-1], torch.tensor([True])])  # the later patch wins
    return Laid(places[last], torch.cat([below.values, values])[order][last])
