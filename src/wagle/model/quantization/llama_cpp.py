"""Quantisation by llama.cpp: its tools are called, and transformers reads the result back."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from wagle.compat.transformers import attention_of
from wagle.model.gguf_file import read_gguf
from wagle.model.quantization.layers import METHODS
from wagle.model.saving import save_model
from wagle.model.structure import model_folder
from wagle.system.errors import WagleError

GGUF = "gguf"
_TOOLS = ("convert_hf_to_gguf.py", "llama-quantize")  # of llama.cpp


def through_gguf(model: PreTrainedModel) -> PreTrainedModel:
    """What llama.cpp makes of a live model, saved to a private folder for the time being."""
    home = Path(model.name_or_path or "")
    if not model.name_or_path or not (home / "config.json").is_file():
        raise WagleError(
            f"{GGUF} needs a model that was loaded from a local folder, whose tokenizer and "
            "configuration llama.cpp reads; load it with load_model"
        )
    with tempfile.TemporaryDirectory(prefix="wagle-") as place:  # nobody else can read it
        save_model(model, home, Path(place) / "model")
        made: Any = load_gguf(Path(place) / "model", attention=attention_of(model.config))
    made.generation_config = model.generation_config  # it says what ends an answer
    made.requires_grad_(False)
    finished: PreTrainedModel = made.to(device=model.device, dtype=model.dtype)
    return finished


def load_gguf(
    folder: str | Path, kind: str = "Q4_K_M", attention: str | None = None
) -> PreTrainedModel:
    """Take a model folder through llama.cpp's quantisation and load the result, in float32.

    Args:
        folder: a local model folder with its tokenizer; it is not changed.
        kind: a type of ``llama-quantize``, such as ``Q8_0`` or ``Q4_0``.
        attention: an implementation by its name in transformers; None: its default.

    Raises:
        WagleError: llama.cpp's tools are not on the PATH, or one of them fails; transformers cannot
            read the result.
    """
    home, (convert, quantizer) = model_folder(folder), llama_cpp()
    with tempfile.TemporaryDirectory(prefix="wagle-") as place:
        whole, small = f"{place}/whole.gguf", f"{place}/small.gguf"
        call(convert, str(home), "--outtype", "f32", "--outfile", whole)
        call(quantizer, whole, small, kind)
        return read_gguf(small, attention, called=f"the {GGUF} that llama.cpp made")


def llama_cpp() -> list[str]:
    """Where llama.cpp's tools are: the converter, the quantiser."""
    found = {tool: shutil.which(tool) for tool in _TOOLS}
    missing = [tool for tool, path in found.items() if path is None]
    if missing:
        raise WagleError(
            f"{GGUF} needs {' and '.join(missing)} of llama.cpp on the PATH; install it, or choose "
            f"among {', '.join(METHODS)}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise WagleError(f"{GGUF} needs the package gguf: pip install gguf")
    return [str(path) for path in found.values()]


def call(tool: str, *arguments: str) -> None:
    """Run a tool of llama.cpp.

    Raises:
        WagleError: it fails; with the last line of what it said.
    """
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise WagleError(f"{Path(tool).name} failed with {done.returncode}: {said[-1]}")
