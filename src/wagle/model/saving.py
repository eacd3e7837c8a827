"""Write a model folder that differs from another only in its weights."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wagle.model.streaming.opening import is_streamed, stream_of
from wagle.model.structure import model_folder
from wagle.model.weights import streamed_parts, weight_files
from wagle.system.errors import WagleError
from wagle.system.files.atomic import atomic_folder
from wagle.system.files.reading import read_json
from wagle.system.files.tensors import TensorFile, write_in_parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_CHUNK = 1 << 22  # weights converted and written at once


def save_model(model: PreTrainedModel, like: str | Path, out: str | Path) -> None:
    """Write ``model`` as a folder that differs from the folder ``like`` only in its weights.

    Shards, names and every other file (configuration, tokenizer, chat template) are those of
    ``like``, and each tensor keeps the precision it has there, so that a patch between the two
    folders is exact. What transformers 5 wrote and transformers 4 would misread (the base of rotary
    positions, the class of the tokenizer) is said in both ways.
    """
    if is_streamed(model):
        _save_streamed(model, like, out)
        return
    state = model.state_dict()
    check_names(like, state)
    with atomic_folder(out) as part:
        begin_folder(like, part)
        for file in weight_files(like):
            with TensorFile(file) as old:
                new = {name: _stored(state, name, old.get(name)) for name in old.names}
                write_shard(part / file.name, new)


def _save_streamed(model: PreTrainedModel, like: str | Path, out: str | Path) -> None:
    """The same for a model whose blocks stay on disk, with a few million weights in memory."""
    state = model.state_dict(keep_vars=True)
    own = {id(p): name for name, p in model.named_parameters()}
    stream: Any = stream_of(model)
    check_names(like, state)

    def parts(name: str) -> Iterable[Tensor]:
        tensor = state[name]
        if tensor.is_meta:
            return streamed_parts(stream, own[id(tensor)], tensor.dtype)
        held: Tensor = tensor.detach()
        return torch.split(held.reshape(-1), _CHUNK)

    with atomic_folder(out) as part:
        begin_folder(like, part)
        for file in weight_files(like):
            with TensorFile(file) as old:
                shapes = {name: old.shape(name) for name in old.names}
                kinds = {name: old.dtype(name) for name in old.names}
            write_in_parts(part / file.name, shapes, kinds, {"format": "pt"}, parts)


def saved_dtypes(model: nn.Module, like: str | Path) -> dict[str, torch.dtype]:
    """The precision that ``save_model`` writes each parameter in, by the parameter's own name.

    Args:
        model: a live model; tied parameters go by their first name.
        like: the folder whose layout it will take; only the headers of its weight files are read.
    """
    own = {id(p): name for name, p in model.named_parameters()}
    state = model.state_dict(keep_vars=True)
    found = {}
    for file in weight_files(like):
        with TensorFile(file) as old:
            for name in old.names:
                kind, owner = old.dtype(name), own.get(id(state.get(name)))
                if owner is not None and kind.is_floating_point:
                    found[owner] = kind
    return found


def check_names(like: str | Path, names: Container[str]) -> None:
    """Refuse a folder with tensors that are not the model's: ``save_model`` could not write it.

    Args:
        like: the folder; only the headers of its weight files are read.
        names: the names of its model's tensors.
    """
    for file in weight_files(like):
        with TensorFile(file) as old:
            for name in old.names:
                if name not in names:
                    raise WagleError(
                        f"the model has no tensor {name!r} that its folder has; save it again with "
                        "save_pretrained"
                    )


def _stored(state: Mapping[str, Tensor], name: str, old: Tensor) -> Tensor:
    return state[name].detach().to("cpu", old.dtype).contiguous()


# Whatever may hold weights: no copy of the old ones may travel with the new.
_WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|gguf|msgpack|h5|onnx|npz)(\.index\.json)?$")


def copy_other_files(source: str | Path, target: Path) -> None:
    """Copy the files of a model folder that hold no weights, and its shard index."""
    for file in sorted(model_folder(source).iterdir()):
        weights = _WEIGHTS.search(file.name) and file.name != "model.safetensors.index.json"
        if file.name.startswith("."):
            continue
        if file.is_dir():  # for example additional_chat_templates
            shutil.copytree(file, target / file.name, ignore=_weights_among)
        elif file.is_file() and not weights:
            shutil.copyfile(file, target / file.name)


def begin_folder(like: str | Path, target: Path) -> None:
    """The files of a model folder that hold no weights, as a saved model has them.

    Where transformers 4 would misread what transformers 5 wrote, they say it in both ways.
    """
    copy_other_files(like, target)
    _say_in_both_ways(target, "config.json", _config_for_both)
    _say_in_both_ways(target, "tokenizer_config.json", partial(_tokenizer_for_both, target))


def _say_in_both_ways(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a JSON file of a folder if something in it has to be said for transformers 4."""
    try:
        found = read_json(folder / name, finite=False)
    except WagleError:  # there is none, or it is for others to read
        return
    if isinstance(found, dict):
        changed = copy.deepcopy(found)
        change(changed)
        if changed != found:
            (folder / name).write_text(json.dumps(changed, indent=2, sort_keys=True) + "\n")


def _config_for_both(config: dict[str, Any]) -> None:
    """Transformers 4 reads ``rope_theta``, and takes 10,000 where it is not given."""
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope and "rope_theta" not in config:
        config["rope_theta"] = rope["rope_theta"]
        scaled = {k: v for k, v in rope.items() if k not in ("rope_theta", "partial_rotary_factor")}
        if scaled.get("rope_type", "default") != "default" and "rope_scaling" not in config:
            config["rope_scaling"] = scaled
        if "partial_rotary_factor" in rope:
            config.setdefault("partial_rotary_factor", rope["partial_rotary_factor"])


def _tokenizer_for_both(folder: Path, config: dict[str, Any]) -> None:
    """The class that both know, the chat template where version 4 looks, nothing of this machine."""
    if config.get("tokenizer_class") != "TokenizersBackend":
        return
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for local in ("is_local", "local_files_only", "backend"):
        config.pop(local, None)
    config.setdefault("padding_side", "left")  # as whoever lets a causal model write wants it
    template = folder / "chat_template.jinja"
    if template.is_file() and "chat_template" not in config:
        config["chat_template"] = template.read_text(encoding="utf-8")


def _weights_among(_: str, names: list[str]) -> list[str]:
    return [name for name in names if _WEIGHTS.search(name)]


def write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write one weight file as ``save_pretrained`` would; the caller's folder is atomic."""
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
