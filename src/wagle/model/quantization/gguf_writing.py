"""Write a model folder as a GGUF file, with the package ``gguf`` alone.

For the architectures in ARCHITECTURES, whose tensors llama.cpp stores as they are, except that it
pairs the two halves of each head differently where rotary positions are interleaved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wagle.model.gguf_file import need_gguf
from wagle.model.loading import load_tokenizer
from wagle.model.quantization.gguf_tokens import write_tokenizer
from wagle.model.structure import model_folder
from wagle.model.weights import Weights
from wagle.system.errors import WagleError, choose
from wagle.system.files.atomic import atomic_file
from wagle.system.files.reading import read_json


@dataclass(frozen=True)
class Architecture:
    """How a kind of model is stored.

    Attributes:
        name: what llama.cpp calls it.
        interleaved: whether its rotary positions pair neighbouring entries of a head.
    """

    name: str
    interleaved: bool = False


ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "mistral": Architecture("llama", interleaved=True),
    "qwen2": Architecture("qwen2"),
}

KINDS = {  # by our name: the type of a matrix, the file's type (both as the package names them)
    "f32": ("F32", "ALL_F32"),
    "f16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
    "q5_1": ("Q5_1", "MOSTLY_Q5_1"),
    "q5_0": ("Q5_0", "MOSTLY_Q5_0"),
    "q4_1": ("Q4_1", "MOSTLY_Q4_1"),
    "q4_0": ("Q4_0", "MOSTLY_Q4_0"),
}


def check_writable(folder: str | Path, kind: str = "f32") -> None:
    """Refuse, before any work, what ``write_gguf`` would refuse.

    Raises:
        WagleError: the package gguf is missing, or the type or the architecture is unknown.
    """
    need_gguf()
    choose(KINDS, kind, "type of GGUF file")
    _architecture(read_json(model_folder(folder) / "config.json", finite=False))


def write_gguf(folder: str | Path, path: str | Path, kind: str = "f32") -> None:
    """Write a model folder with its tokenizer as one GGUF file, tensor by tensor.

    Matrices get the type ``kind``; vectors, and matrices whose rows its blocks do not divide, stay
    float32. llama.cpp's own mixtures (``q4_k_m``) hold several types; they need its quantiser.

    Args:
        folder: a local model folder with a byte-level BPE tokenizer.
        path: the file; it appears when it is whole.
        kind: a name in KINDS.

    Raises:
        WagleError: the package gguf is missing; type, architecture or tokenizer are unknown to it.
    """
    check_writable(folder, kind)
    import gguf

    config = read_json(model_folder(folder) / "config.json", finite=False)
    architecture = _architecture(config)
    tokenizer = load_tokenizer(folder)
    with atomic_file(path) as part:
        writer = gguf.GGUFWriter(part, architecture.name, use_temp_file=True)
        writer.add_file_type(gguf.LlamaFileType[KINDS[kind][1]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _write_shape(writer, config)
        write_tokenizer(writer, tokenizer, config["vocab_size"])
        _write_weights(writer, Path(folder), config, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _architecture(config: Mapping[str, Any]) -> Architecture:
    found = ARCHITECTURES.get(str(config.get("model_type")))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    if found is None or scaled:
        what = "rotary positions are scaled" if found else f"type is {config.get('model_type')!r}"
        raise WagleError(
            f"cannot write a GGUF file of a model whose {what}; convert it with llama.cpp's "
            f"convert_hf_to_gguf.py and name the file (written here: {', '.join(ARCHITECTURES)})"
        )
    return found


def _write_shape(writer: Any, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    writer.add_name("model")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_vocab_size(config["vocab_size"])


def _write_weights(writer: Any, folder: Path, config: Mapping[str, Any], kind: str) -> None:
    import gguf

    architecture = _architecture(config)
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture.name]
    names = gguf.get_tensor_name_map(known, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    counts = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    asked = gguf.GGMLQuantizationType[KINDS[kind][0]]
    weights = Weights(folder)
    try:
        for name in weights.names():
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if stored is None:
                raise WagleError(
                    f"cannot write {name} to a GGUF file: llama.cpp has no such tensor"
                )
            rows = weights.get(name).float()
            count = counts.get(name.split(".")[-2]) if architecture.interleaved else None
            values = (rows if count is None else paired(rows, count)).contiguous().numpy()
            made = _fitting(values, asked)
            writer.add_tensor(stored, gguf.quants.quantize(values, made), raw_dtype=made)
    finally:
        weights.close()


def _fitting(values: np.ndarray[Any, Any], asked: Any) -> Any:
    """The type that a tensor gets: the one asked for, or float32 where that cannot hold it."""
    import gguf

    block = gguf.GGML_QUANT_SIZES[asked][0]
    fits = values.ndim > 1 and values.shape[-1] % block == 0
    return asked if fits else gguf.GGMLQuantizationType.F32


def paired(rows: Tensor, heads: int) -> Tensor:
    """Rows (or a bias) of a query or key projection, reordered so that rotary pairs are neighbours.

    transformers pairs entry i of a head with entry i + d/2; llama.cpp's ``llama`` pairs 2i with
    2i + 1.

    Args:
        rows: (heads * d, in) or (heads * d,).
        heads: how many heads the rows belong to.
    """
    halves = rows.view(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)
