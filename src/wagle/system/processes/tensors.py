"""One tensor file that several processes write together, each its own part of every tensor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wagle.system.files.atomic import atomic_file, disk_errors
from wagle.system.files.tensors import add_digest, layout, tensor_bytes
from wagle.system.processes import group

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CHUNK = 1 << 22  # elements converted and written at a time


def save_parts(
    path: Path,
    parts: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    starts: Mapping[str, int],
    kinds: Mapping[str, torch.dtype],
    metadata: Mapping[str, str],
    *,
    digest: bool = False,
) -> None:
    """Write the file that ``save_tensors`` would write of the whole tensors, which nobody holds.

    All processes call this with the same names, and see the same files.

    Args:
        path: the file.
        parts: this process's part of each tensor.
        shapes: the shapes of the whole tensors.
        starts: where the parts begin in the flattened tensors.
        kinds: what each tensor is converted to.
        metadata: of the file, as safetensors has it.
        digest: add a digest of the whole file; the metadata has room for it.
    """
    text, places, end = layout(shapes, kinds, metadata)
    with contextlib.ExitStack() as stack:

        def begin() -> Path | None:
            if not group.main_process():
                return None
            part = stack.enter_context(atomic_file(path))
            with disk_errors(path), part.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, end)
                file.write(text)
            return part

        target = group.from_main(group.agreed(begin))
        assert target is not None
        group.agreed(lambda: _put(target, parts, places, starts, kinds))
        if digest and group.main_process():
            add_digest(target)
    group.wait()  # rank 0 has given the file its name


def _put(
    target: Path,
    parts: Mapping[str, Tensor],
    places: Mapping[str, int],
    starts: Mapping[str, int],
    kinds: Mapping[str, torch.dtype],
) -> None:
    """Write this process's parts into the file that rank 0 has made."""
    with disk_errors(target), target.open("r+b", buffering=0) as file:
        for name, part in parts.items():
            at = places[name] + starts[name] * kinds[name].itemsize
            for chunk in part.detach().reshape(-1).split(_CHUNK):
                left = tensor_bytes(chunk.to("cpu", kinds[name]))
                while left:
                    put = os.pwrite(file.fileno(), left, at)
                    left, at = left[put:], at + put
        os.fsync(file.fileno())
