"""The structure of a model: its folder, its blocks, its parameters by name, and its precision.

Nothing here depends on an architecture: parameters come from ``named_parameters()``, and the head
is reached by a hook on the model's own output embedding, so soft-capping and scaling still apply.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wagle.system.errors import WagleError, choose
from wagle.system.files.reading import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""Torch's dropout modules, whose rate is ``p``."""


def model_folder(path: str | Path) -> Path:
    """The folder of a local model, checked: a missing folder never turns into a download."""
    folder = Path(path)
    if not os.path.isdir(folder):
        raise WagleError(
            f"model folder {one_line(path)} does not exist; give the path to a local model"
        )
    if not (folder / "config.json").is_file():
        raise WagleError(f"{path} holds no config.json, so it is not a model folder")
    return folder


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name of a model's list of decoder blocks ("model.layers"), and the list.

    It is the one list of modules whose length is the configuration's number of layers.
    """
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outer = [
        (name, module)
        for name, module in found
        if not any(name.startswith(f"{other}.") for other, _ in found)
    ]
    if len(outer) != 1:
        raise WagleError(
            f"cannot find the blocks of {type(model).__name__} (one list of {depth} modules)"
        )
    return outer[0]


_BLOCK = re.compile(r"^(?P<stem>.*?)\.(?P<index>\d+)\.(?P<kind>.+)$")


def place(name: str) -> tuple[str, str]:
    """Where a parameter belongs: its block ("0", "1", ... or "" outside the blocks) and its kind.

    ``model.layers.3.mlp.up_proj.weight`` is ("3", "mlp.up_proj.weight").
    """
    found = _BLOCK.match(name)
    return (found["index"], found["kind"]) if found else ("", name)


def check_length(model: PreTrainedModel, longest: int, what: str) -> None:
    """Refuse records longer than the number of positions that a model has learned."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and longest > most:
        raise WagleError(
            f"{what} needs {longest} tokens, but the model has {most} positions; lower "
            "model.max_length or evaluation.max_new_tokens"
        )


def check_ids(model: PreTrainedModel, records: Iterable[Sequence[int]]) -> None:
    """Refuse records with a token that the model has no embedding for."""
    owner: Any = getattr(model, "module", model)
    size = getattr(owner.get_input_embeddings(), "num_embeddings", None)
    most = max((max(ids) for ids in records if len(ids)), default=-1)
    if size is not None and most >= size:
        raise WagleError(
            f"a record has the token {most}, but the model has embeddings for 0 to {size - 1} only; "
            "use the model's own tokenizer, or resize_token_embeddings"
        )


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device


def is_sharded(model: nn.Module) -> bool:
    """Whether every process holds only its part of a model's weights (FSDP2)."""
    return any(kind.__name__ == "FSDPModule" for kind in type(model).__mro__)


@contextlib.contextmanager
def precision(device: torch.device, dtype: str) -> Iterator[None]:
    """Run matrix products in ``dtype`` (autocast); the weights stay as they are."""
    kind = choose(DTYPES, dtype, "precision")
    with torch.autocast(device.type, kind, enabled=kind != torch.float32):
        yield


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Set every dropout rate to zero, even in training mode; restore them afterwards.

    Attention reads its rate from a plain attribute of the module, so changing ``nn.Dropout`` is not
    enough. The model stays in training mode: activation checkpointing works only there.
    """
    changed: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = [n for n, v in vars(module).items() if "dropout" in n and isinstance(v, float)]
        if isinstance(module, DROPOUTS):
            names.append("p")
        for name in [*names, *(["layerdrop"] if hasattr(module, "layerdrop") else [])]:
            changed.append((module, name, getattr(module, name)))
            setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


@contextlib.contextmanager
def head_at(model: nn.Module, keep: Tensor) -> Iterator[None]:
    """Pass only the positions in ``keep`` (B, T) bool to the model's head: logits are (1, n, V)."""
    owner: Any = getattr(model, "module", model)
    head = owner.get_output_embeddings()
    if head is None:
        raise WagleError(f"{type(model).__name__} has no output embedding; is it a causal model?")

    own = threading.get_ident()  # passes in step are each in a thread

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if threading.get_ident() != own:
            return args
        return (args[0][keep].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the batch with its tensors on ``device``."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def place_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace a model's parameters with tensors, tied ones everywhere they are used.

    A tensor that is not an ``nn.Parameter`` becomes one that requires a gradient.
    """
    homes: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for leaf, held in module.named_parameters(recurse=False, remove_duplicate=False):
            homes.setdefault(id(held), []).append((module, leaf))
    places = {name: homes[id(p)] for name, p in model.named_parameters()}
    for name, tensor in tensors.items():
        new = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
        for module, leaf in places[name]:
            module.register_parameter(leaf, new)


@contextlib.contextmanager
def placed(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[dict[str, nn.Parameter]]:
    """Temporarily use tensors as a model's parameters; yields those parameters by name."""
    before = {n: p for n, p in model.named_parameters() if n in tensors}
    place_parameters(model, tensors)
    now = dict(model.named_parameters())
    try:
        yield {name: now[name] for name in tensors}
    finally:
        place_parameters(model, before)
