"""Digests of everything that a run must not change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wagle.model.sharding import local
from wagle.model.stored import weight_files
from wagle.model.streaming.opening import stream_of
from wagle.unlearning.training.weights.slices import CHUNK


def seal(model: nn.Module, selected: Mapping[int, Tensor | None]) -> dict[str, str]:
    """A digest per tensor of everything that is not selected (selected entries count as zero).

    Of a streamed model, the blocks are in its folder, where every weight file counts by its size
    and the time of its last change.

    Args:
        model: the model.
        selected: by the id of a parameter, the flat indices of its selected entries, ascending;
            None: all of them.
    """
    digests = {}
    state: dict[str, Tensor] = dict(model.named_parameters())
    state.update(model.named_buffers())
    for name, tensor in state.items():
        index = selected.get(id(tensor))
        if tensor.is_meta or (index is None and id(tensor) in selected):
            continue
        digests[name] = _digest(local(tensor).reshape(-1), index)
    stream = stream_of(model)
    for file in () if stream is None else weight_files(stream.folder):
        found = file.stat()
        digests[str(file)] = f"{found.st_size} {found.st_mtime_ns}"
    return digests


def _digest(flat: Tensor, index: Tensor | None) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK]
        if index is not None:
            ends = torch.tensor([start, start + len(part)], dtype=index.dtype, device=index.device)
            first, last = torch.searchsorted(index, ends).tolist()
            if last > first:
                part = part.clone().index_fill_(0, index[first:last].long() - start, 0)
        digest.update(part.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
