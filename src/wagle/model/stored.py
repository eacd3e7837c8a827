"""What a model folder holds, checked against its configuration before anything is computed.

Folders come from strangers. Only ``config.json``, the index and the headers of the weight files are
read here: no weight, and no code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wagle.compat.transformers import ignored_names, splits_tensors, stored_names
from wagle.model.structure import model_folder
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json
from wagle.system.files.tensors import TensorFile

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INDEX = "model.safetensors.index.json"
_MOST_LAYERS = 10_000  # ten times those of the deepest models: building each takes a millisecond
_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_AGAIN = "get the folder again, or save it with save_pretrained"


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors shards of a model folder, as its index names them, in name order.

    Raises:
        WagleError: a file is missing, or the index is none or names files outside the folder.
    """
    home = model_folder(folder)
    index = home / INDEX
    names = _indexed(index).values() if index.is_file() else ["model.safetensors"]
    files = [home / name for name in sorted(set(names))]
    single = home / "model.safetensors"
    if single not in files and single.is_file():  # transformers would read this one
        raise WagleError(f"{folder} holds {single.name} and an index of other files; remove one")
    for file in files:
        if not file.is_file():
            raise WagleError(
                f"{folder} lacks its weight file {file.name}; save the model as safetensors"
            )
    return files


def _indexed(index: Path) -> dict[str, str]:
    """The file of every tensor, by an index: plain names of files beside it.

    A link in the folder may lead elsewhere, as it does in the hub's cache: whoever made the folder
    could have put the file itself there. A name cannot, or a folder would read any file.
    """
    found = read_json(index)
    homes = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(homes, dict) or not homes:
        raise WagleError(f"{index} has no weight_map that names the file of every tensor; {_AGAIN}")
    for tensor, name in homes.items():
        if (
            not isinstance(name, str)
            or not name.endswith(".safetensors")
            or Path(name).name != name
        ):
            raise WagleError(
                f"{index} says that {_short(tensor)} is in {_short(name)}, which is no name of a "
                f"safetensors file in its folder; {_AGAIN}"
            )
    return homes


def check_config(folder: str | Path) -> dict[str, Any]:
    """The configuration of a model folder; one that no model can have is refused unbuilt."""
    home = model_folder(folder)
    config = read_json(home / "config.json", finite=False)
    if not isinstance(config, dict):
        raise WagleError(f"{home / 'config.json'} is no configuration of a model; {_AGAIN}")
    for key, count in _layer_counts(config):
        if count > _MOST_LAYERS or (count < 1 and key in _DEPTHS):
            raise WagleError(
                f"{home / 'config.json'} says {key}: {_short(count)}, but a model has 1 to "
                f"{_MOST_LAYERS} layers; {_AGAIN}"
            )
    if (home / "adapter_config.json").is_file():
        raise WagleError(
            f"{folder} holds a model and an adapter (adapter_config.json); move the adapter into a "
            "folder of its own and name it as model.adapter"
        )
    return config


class Stored(NamedTuple):
    """What the headers of a model folder say.

    Attributes:
        folder: the folder.
        config: its configuration.
        shapes: the shape of every tensor.
        types: the dtype of every tensor.
    """

    folder: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, torch.dtype]


def read_stored(folder: str | Path) -> Stored:
    """Read the configuration and the headers of a folder; what no model can have is refused.

    Every layer has weights of its own, so a configuration with more layers than there are tensors
    is refused here: building it could take all memory.
    """
    stored = Stored(Path(folder), check_config(folder), {}, {})
    for file in weight_files(folder):
        with TensorFile(file, "weight file") as opened:
            for name in opened.names:
                if name in stored.shapes:
                    raise WagleError(f"{folder} stores {_short(name)} in two files; {_AGAIN}")
                stored.shapes[name], stored.types[name] = opened.shape(name), opened.dtype(name)
    for key, layers in _layer_counts(stored.config):
        if key in _DEPTHS and layers > len(stored.shapes):
            raise WagleError(
                f"{Path(folder) / 'config.json'} says {key}: {layers}, but the weight files hold "
                f"{len(stored.shapes)} tensors in all; {_AGAIN}"
            )
    return stored


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any], folder: str | Path
) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Fewer tokens than embeddings are usual: embeddings are often padded to a round number.
    """
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    if type(size) is not int:
        return
    beyond = sorted(
        (number, token) for token, number in tokenizer.get_vocab().items() if number >= size
    )
    if beyond:
        (first, token), (last, _) = beyond[0], beyond[-1]
        which = f"id {first}" if first == last else f"ids {first} to {last}"
        raise WagleError(
            f"the tokenizer in {folder} has {len(beyond)} tokens beyond the model's vocabulary of "
            f"{size} ({which}, first {_short(repr(token))}); use the model's own tokenizer, or "
            "resize_token_embeddings"
        )


def _layer_counts(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The settings that say how many layers a model has, at the top and in its parts."""
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith("config"):
            yield from ((k, n) for k, n in value.items() if _is_count(k, n))
        elif _is_count(key, value):
            yield key, value


def _is_count(key: str, value: Any) -> bool:
    return type(value) is int and key.endswith(("layer", "layers"))


def check_tensors(model: PreTrainedModel, stored: Stored) -> None:
    """Refuse a folder that lacks tensors of its model, or has others, or in other shapes or types.

    A folder of quantised weights is left to transformers.

    Args:
        model: the structure of the folder's model, with or without weights.
        stored: from ``read_stored``.
    """
    folder, config, shapes, types = stored
    if config.get("quantization_config") is not None:
        return
    state = model.state_dict(keep_vars=True)
    sources = {name: [name] for name in shapes if name in state}
    if len(sources) != len(shapes):  # some are stored in another form, under another name, or not
        if splits_tensors(model):  # which headers cannot tell: loading does
            return
        sources = stored_names(model, shapes)
    holders = {id(tensor): name for name, tensor in state.items() if name in sources}
    skipped, surplus = ignored_names(model)
    parameters = {id(tensor) for tensor in model.parameters()}
    missing = [
        name
        for name, tensor in state.items()
        if id(tensor) in parameters and id(tensor) not in holders and not skipped(name)
    ]
    refuse_tensors(folder, missing, [n for n in sources if n not in state and not surplus(n)])
    for name, tensor in state.items():
        found = [shapes[key] for key in sources.get(name, ())]
        joined = sum(map(math.prod, found)) == tensor.numel() and sources[name] != [name]
        if found and found != [tuple(tensor.shape)] and not joined:
            raise WagleError(
                f"{folder} stores {name} as {', '.join(map(str, found[:3]))}, but its config.json "
                f"says {tuple(tensor.shape)}; {_AGAIN}"
            )
    own = {key for name in sources if id(state.get(name)) in parameters for key in sources[name]}
    _check_types(folder, {name: types[name] for name in sorted(own)}, config)


def _check_types(
    folder: str | Path, types: Mapping[str, torch.dtype], config: Mapping[str, Any]
) -> None:
    """Refuse parameters that are no floating-point numbers, or not those of the configuration.

    Some may be in float32 where others are as the configuration says: careful models keep norms so.
    """
    said = config.get("dtype", config.get("torch_dtype"))
    known = isinstance(said, str)
    names = {name: str(dtype).removeprefix("torch.") for name, dtype in types.items()}
    usual = {said, "float32"} if said in names.values() else {said}
    for name, found in names.items():
        if not types[name].is_floating_point or (known and found not in usual):
            wanted = f"says dtype: {_short(said)}" if known else "says nothing of quantised weights"
            raise WagleError(
                f"{folder} stores {_short(name)} in {found}, but its config.json {wanted}; correct "
                f"it, or {_AGAIN}"
            )


def refuse_tensors(folder: str | Path, missing: Sequence[str], surplus: Sequence[str]) -> None:
    """Refuse a folder whose tensors are not those of the model in its configuration."""
    if missing:
        raise WagleError(
            f"{folder} lacks {_first(missing)} of the model in its config.json; {_AGAIN}"
        )
    if surplus:
        raise WagleError(
            f"{folder} holds {_first(surplus)}, which the model in its config.json does not have; "
            f"{_AGAIN}"
        )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    return f"{_short(sorted(names)[0])}{more}"


def _short(value: Any) -> str:
    """A value of a stranger's file, in a part of a line."""
    text = "".join(c if c.isprintable() else "?" for c in str(value)[:80])
    return text if len(str(value)) <= 80 else f"{text}..."
