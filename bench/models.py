"""Randomly initialised Llama folders, written tensor by tensor: no model is ever in memory.

    python -m bench.models llama-2-7b FOLDER [--seed 0]

Weights are bfloat16, normal(0, 0.02), norms are 1; there is no tokenizer. One shard per block,
one for the stem, one for the head. Equal names and seeds give equal files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from wagle.model.structure import place
from wagle.system.errors import choose
from wagle.system.files.atomic import atomic_folder, write_json

Shape = tuple[int, ...]
_CHUNK = 1 << 22  # weights drawn at a time
_DEPTH = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 8000,
}
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
}
SHAPES: dict[str, dict[str, int]] = {
    "tinyllama-1.1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "num_hidden_layers": 22,
    },
    "llama-1.5b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "num_hidden_layers": 32,
    },
    "llama-2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "num_hidden_layers": 32,
    },
    "tiny": {**_TINY, "num_hidden_layers": 2},
}


def settings_of(shape: str) -> dict[str, int]:
    """The Llama settings of a shape; ``depth-N`` and ``tiny-N`` are N blocks of a small width."""
    family, _, blocks = shape.rpartition("-")
    width = {"depth": _DEPTH, "tiny": _TINY}.get(family)
    if width is not None and blocks.isdigit():
        return {**width, "num_hidden_layers": int(blocks)}
    return choose(SHAPES, shape, "shape of model")


def make_folder(shape: str, folder: Path, seed: int = 0) -> Path:
    """Write the model folder of ``shape``; it appears only when complete.

    Args:
        shape: a name in SHAPES, or ``depth-N``.
        folder: where to write it.
        seed: of the weights.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama",
        **settings_of(shape),
        tie_word_embeddings=False,
        max_position_embeddings=2048,
        dtype=torch.bfloat16,
        architectures=["LlamaForCausalLM"],
    )
    with atomic_folder(folder) as part:
        config.save_pretrained(part)
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(config)
        shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
        groups = _shards(shapes)
        homes: dict[str, str] = {}
        for number, names in enumerate(groups, 1):
            file = f"model-{number:05}-of-{len(groups):05}.safetensors"
            with (part / file).open("wb") as out:
                _write_shard(out, {name: shapes[name] for name in names}, seed)
            homes.update(dict.fromkeys(names, file))
        size = 2 * sum(math.prod(s) for s in shapes.values())
        index = {"metadata": {"total_size": size}, "weight_map": homes}
        write_json(part / "model.safetensors.index.json", index)
    return folder


def _shards(shapes: dict[str, Shape]) -> list[list[str]]:
    """Names by place: the stem, each block, the head; parameters come in that order."""
    groups: list[list[str]] = []
    last: str | None = None
    for name in shapes:
        block, _ = place(name)
        if not groups or block != last:
            groups.append([])
        groups[-1].append(name)
        last = block
    return groups


def _write_shard(out: BinaryIO, shapes: dict[str, Shape], seed: int) -> None:
    """A safetensors file with tensors drawn as they are written (save_file would copy them all)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data starts aligned
    out.write(struct.pack("<Q", len(text)) + text)
    for name, shape in shapes.items():
        for chunk in _draw(name, shape, seed):
            out.write(chunk.view(torch.uint8).numpy().data)


def _draw(name: str, shape: Shape, seed: int) -> Iterator[torch.Tensor]:
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    left = math.prod(shape)
    while left:
        chunk = torch.ones(min(left, _CHUNK), dtype=torch.bfloat16)
        if len(shape) > 1:
            chunk.normal_(0.0, 0.02, generator=generator)
        yield chunk
        left -= len(chunk)


def weights_of(shape: str) -> int:
    """N: how many weights a shape has, before anything is made."""
    s = settings_of(shape)
    hidden, wide = s["hidden_size"], s["intermediate_size"]
    keys = hidden * s["num_key_value_heads"] // s["num_attention_heads"]
    block = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * wide + 2 * hidden
    return s["num_hidden_layers"] * block + 2 * s["vocab_size"] * hidden + hidden


def main() -> None:
    """Make one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", help=f"{', '.join(SHAPES)}, or depth-N")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    make_folder(asked.shape, asked.folder, asked.seed)


if __name__ == "__main__":
    main()
