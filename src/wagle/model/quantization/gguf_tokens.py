"""The tokenizer of a GGUF file: byte-level BPE as llama.cpp's ``gpt2`` stores it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NORMAL, _CONTROL, _ADDED, _UNUSED = 1, 3, 4, 5  # types of tokens
_SPLITS = {  # how a text is split before BPE: by the pattern's beginning, what llama.cpp calls it
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}": "llama-bpe",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|": "qwen2",
}


def write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Add a tokenizer to a GGUF file.

    Args:
        writer: a ``gguf.GGUFWriter``.
        tokenizer: a fast tokenizer.
        size: the model's vocabulary; ids that the tokenizer lacks are stored as unused.

    Raises:
        WagleError: it is no byte-level BPE, or splits texts in a way without a name in llama.cpp.
    """
    core = json.loads(_backend(tokenizer))
    model = core["model"]
    if model["type"] != "BPE" or (core.get("decoder") or {}).get("type") != "ByteLevel":
        raise WagleError(
            "cannot write the tokenizer to a GGUF file: it is no byte-level BPE; convert the model "
            "with llama.cpp's convert_hf_to_gguf.py and name the file"
        )
    most = max(model["vocab"].values(), default=-1)
    most = max([most, *(added["id"] for added in core["added_tokens"])])
    if most >= size:
        raise WagleError(
            f"cannot write the tokenizer to a GGUF file: its last token is {most}, the model has "
            f"{size}; give the folder the tokenizer that the model was trained with"
        )
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [_UNUSED] * size
    for token, place in model["vocab"].items():
        tokens[place], types[place] = token, _NORMAL
    for added in core["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _ADDED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(core.get("pre_tokenizer") or {}))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    for name in ("bos", "eos", "unk", "pad"):
        found = getattr(tokenizer, f"{name}_token_id")
        if found is not None:
            getattr(writer, f"add_{name}_token_id")(found)
    first = tokenizer("", add_special_tokens=True)["input_ids"]
    writer.add_add_bos_token(bool(first) and first[0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def split_name(pre: dict[str, Any]) -> str:
    """What llama.cpp calls the way in which a tokenizer splits a text before BPE.

    Args:
        pre: ``pre_tokenizer`` of its ``tokenizer.json``.

    Raises:
        WagleError: llama.cpp has no name for it that is known here.
    """
    steps = pre.get("pretokenizers", [pre])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"].get("Regex", "")
        for begins, name in _SPLITS.items():
            if pattern.startswith(begins):
                return name
    raise WagleError(
        "cannot write the tokenizer to a GGUF file: how it splits texts is unknown here; convert "
        "the model with llama.cpp's convert_hf_to_gguf.py and name the file"
    )


def _backend(tokenizer: PreTrainedTokenizerBase) -> str:
    core: Any = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise WagleError(f"{type(tokenizer).__name__} has no tokenizer.json; use a fast tokenizer")
    return str(core.to_str())
