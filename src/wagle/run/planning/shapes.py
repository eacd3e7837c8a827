"""The shape of a model in numbers, from its configuration and the headers of its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.model.loading import structure_of
from wagle.model.stored import read_stored, weight_files
from wagle.model.structure import find_blocks, model_folder
from wagle.run.planning.terms import Shape
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shape_of(folder: str | Path, *, trust_remote_code: bool = False) -> Shape:
    """The shape of the model in a folder, of which only ``config.json`` is needed."""
    home = model_folder(folder)
    model = structure_of(home, trust_remote_code=trust_remote_code)
    return measure_shape(model, stored_width(home))


def measure_shape(model: PreTrainedModel, stored: int) -> Shape:
    """The shape of a model's structure.

    Args:
        model: on any device, the meta device included.
        stored: bytes per weight in its folder.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config: Any = model.config.get_text_config(decoder=True)
    where, blocks = find_blocks(model)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    inside = {n: size for n, size in sizes.items() if n.startswith(f"{where}.")}
    per_block = [
        sum(size for n, size in inside.items() if n.startswith(f"{where}.{i}."))
        for i in range(len(blocks))
    ]
    head_module: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    tied = head_module is not None and head_module.weight is embedding.weight
    stem = embedding.weight.numel()
    linear = [m for m in blocks.modules() if isinstance(m, nn.Linear | Conv1D)]
    heads = int(config.num_attention_heads)
    hidden = int(config.hidden_size)
    return Shape(
        stem=stem,
        blocks=len(blocks),
        block=max(per_block),
        head=sum(sizes.values()) - sum(inside.values()) - stem,
        total=sum(sizes.values()),
        largest=max(sizes.values()),
        largest_in_block=max(inside.values()),
        tied=bool(tied),
        hidden=hidden,
        inner=int(getattr(config, "intermediate_size", None) or 4 * hidden),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
        vocabulary=int(config.vocab_size),
        stored=stored,
        linear=sum(m.weight.numel() for m in linear),
        ends=sum(sum(m.weight.shape) for m in linear),
    )


def has_weights(folder: str | Path) -> bool:
    """Whether a model folder holds weights, and not just a configuration."""
    try:
        weight_files(folder)
    except WagleError:
        return False
    return True


def stored_width(home: Path) -> int:
    """Bytes per weight in a folder, by its headers or, without weights, by its configuration."""
    if has_weights(home):
        return max((kind.itemsize for kind in read_stored(home).types.values()), default=4)
    config = read_json(home / "config.json", finite=False)
    said = str(config.get("dtype", config.get("torch_dtype")))
    return {"float32": 4, "bfloat16": 2, "float16": 2}.get(said, 2)
