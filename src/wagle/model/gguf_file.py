"""GGUF files as transformers reads them: weights as the file rounds them, in float32."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MAGIC = b"GGUF"


def is_gguf(path: str | Path) -> bool:
    """Whether a path names a GGUF file, by its first bytes."""
    file = Path(path)
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        return handle.read(len(_MAGIC)) == _MAGIC


def need_gguf() -> None:
    """Refuse to go on without the package ``gguf``, which reads and writes the files."""
    if importlib.util.find_spec("gguf") is None:
        raise WagleError("GGUF files need the package gguf: pip install gguf")


def read_gguf(
    path: str | Path, attention: str | None = None, *, called: str = ""
) -> PreTrainedModel:
    """Load a GGUF file as an ordinary model, in evaluation mode.

    Args:
        path: the file.
        attention: an implementation by its name in transformers; None: its default.
        called: what messages call the file; "": by its name.

    Raises:
        WagleError: the package gguf is missing, or transformers cannot read the file.
    """
    need_gguf()
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    file = Path(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:
        what = called or file.name
        raise WagleError(f"transformers cannot read {what}: {_reason(error)}") from error
    loaded: PreTrainedModel = model.eval()
    return loaded


def read_gguf_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a GGUF file, with its chat template.

    Raises:
        WagleError: the package gguf is missing, or transformers cannot read the tokenizer.
    """
    need_gguf()
    from transformers import AutoTokenizer

    file = Path(path)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise WagleError(
            f"transformers cannot read the tokenizer in {file.name}: {_reason(error)}; give the "
            "folder of the model's tokenizer with --tokenizer"
        ) from error
    return tokenizer


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
