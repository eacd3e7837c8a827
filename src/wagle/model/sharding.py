"""Models in shards (FSDP2): every process holds a part of every weight, and whole blocks for a moment.

A weight is split by rows: rank r of W holds the r-th block of ``ceil(rows / W)`` of them, the last
ranks perhaps fewer or none. Flat, that is one contiguous range, in the order of the ranks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.model.loading import empty_model
from wagle.model.saving import begin_folder, check_names
from wagle.model.structure import DTYPES, find_blocks
from wagle.model.weights import Weights, place_buffers, weight_files
from wagle.system.errors import WagleError, choose
from wagle.system.files.atomic import atomic_folder
from wagle.system.files.tensors import TensorFile
from wagle.system.memory import free_at_once
from wagle.system.processes import group
from wagle.system.processes.tensors import save_parts


class Range(NamedTuple):
    """The part of a flattened parameter that this process holds."""

    start: int
    stop: int


def local(tensor: Tensor) -> Tensor:
    """This process's part of a parameter or a gradient, without a copy; all of one that is whole."""
    own: Any = tensor.detach()
    part: Tensor = own.to_local() if type(own).__name__ == "DTensor" else own
    return part


def own_range(tensor: Tensor) -> Range:
    """Which part of the flattened tensor this process holds."""
    total = tensor.numel()
    if type(tensor.detach()).__name__ != "DTensor":
        return Range(0, total)
    rows, size = tensor.shape[0], math.prod(tensor.shape[1:])
    each = -(-rows // group.world())
    start = min(rows, group.rank() * each)
    return Range(start * size, min(rows, start + each) * size)


def load_sharded(
    path: str | Path,
    dtype: str = "float32",
    attention: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a model folder in shards, one for each process; the model is in evaluation mode.

    Only the part that a process holds is read. All processes must call this, and run every forward
    and backward pass of the model together.

    Args:
        path: the folder.
        dtype: the dtype of the weights.
        attention: as in ``load_model``.
        trust_remote_code: as in ``load_model``.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if group.world() == 1:
        raise WagleError(
            "a model is sharded over several processes; start them with torchrun, or leave out "
            "model.shard"
        )
    free_at_once()
    device = group.local_device()
    model: Any = empty_model(path, attention, dtype, trust_remote_code=trust_remote_code)
    mesh = init_device_mesh(device.type, (group.world(),))
    _, blocks = find_blocks(model)
    for part in (*blocks, *_ends(model), model):
        # The outermost layers too: weights that stay whole after a pass would miss later changes.
        _keep_small(fully_shard(part, mesh=mesh, reshard_after_forward=True), device)
    weights = Weights(path)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)  # torch makes the local parts, and empties the buffers
    _place(model, buffers)
    place_buffers(model, weights, device)
    group.agreed(lambda: _fill(model, weights, choose(DTYPES, dtype, "dtype")))
    weights.close()
    sharded: PreTrainedModel = model.eval()
    return sharded


def _keep_small(part: Any, device: torch.device) -> None:
    """Have a part that FSDP2 took over use little memory, where the processes talk by gloo.

    There nothing is gained by having the next block whole before this one is done.
    """
    if device.type == "cpu":
        part.set_custom_all_gather(_Gather())
        part.set_custom_reduce_scatter(_Scatter())
        part.set_modules_to_backward_prefetch([part])  # itself, which is whole already


class _Rooms:
    """Where FSDP2 gets the memory for what travels."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Rooms):
    """Every process's part goes straight to its place: gloo's own way makes one more copy of all."""

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, *_: Any, **__: Any) -> None:
        parts = output_tensor.chunk(group.world())
        if input_tensor.data_ptr() != parts[group.rank()].data_ptr():
            parts[group.rank()].copy_(input_tensor)
        for owner, part in enumerate(parts):
            group.spread(part, owner)


class _Scatter(_Rooms):
    """The mean of every process's part, on that process; what it is made of is freed at once.

    Gloo's own way adds up a copy of all of it on every process, and FSDP2 keeps it until the next block
    is done.
    """

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, *_: Any, **__: Any) -> None:
        parts = input_tensor.chunk(group.world())
        for owner, part in enumerate(parts):
            group.add_up_on(part, owner)
        torch.div(parts[group.rank()], group.world(), out=output_tensor)
        input_tensor.untyped_storage().resize_(0)


def _ends(model: Any) -> list[nn.Module]:
    """The embedding and the head, which need not be whole at one time unless they are tied."""
    stem, head = model.get_input_embeddings(), model.get_output_embeddings()
    if stem is None or head is None or stem.weight is head.weight:
        return []
    return [stem, head]


def _place(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, buffer)


def _fill(model: nn.Module, weights: Weights, dtype: torch.dtype) -> None:
    """Read the local part of every parameter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            begin, end = own_range(parameter)
            if end > begin:
                local(parameter).view(-1).copy_(weights.read(name, begin, end).to(dtype))


def save_sharded(model: PreTrainedModel, like: str | Path, out: str | Path) -> None:
    """Write the folder that ``save_model`` would write of the whole model, which nobody holds.

    Every process writes its own part of every tensor into files that all of them see.
    """
    state = model.state_dict(keep_vars=True)
    check_names(like, state)
    folder = Path(out)
    with contextlib.ExitStack() as stack:
        if group.main_process():
            part = stack.enter_context(atomic_folder(folder))
            begin_folder(like, part)
        place = group.from_main(part if group.main_process() else folder)
        for file in weight_files(like):
            _save_file(state, file, place / file.name)
    group.wait()


def _save_file(state: dict[str, Any], old: Path, new: Path) -> None:
    """One weight file, with the names, shapes and precisions of the old one."""
    with TensorFile(old) as file:
        shapes = {name: file.shape(name) for name in file.names}
        kinds = {name: file.dtype(name) for name in file.names}
    starts = {name: own_range(state[name]).start for name in shapes}
    parts = {name: local(state[name]) for name in shapes}
    if not group.main_process():  # what is whole, such as a buffer, rank 0 writes
        parts = {n: t for n, t in parts.items() if t.numel() < math.prod(shapes[n])}
    save_parts(new, parts, shapes, starts, kinds, {"format": "pt"})
