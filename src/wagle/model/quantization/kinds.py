"""The forms in which a model is served, by name, and how each is made of a model folder.

``nf4``, ``fp4``, ``int8`` and ``int4`` are loads: nothing is written. All others are GGUF files, by
llama.cpp's names in lower case; its quantiser makes them where there is one, else the package
``gguf`` makes those that it can.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wagle.model.quantization.gguf_writing import KINDS, check_writable, write_gguf
from wagle.model.quantization.layers import METHODS
from wagle.model.quantization.llama_cpp import call
from wagle.model.quantization.quantizing import check_way
from wagle.model.structure import model_folder
from wagle.system.errors import WagleError, choose
from wagle.system.files.atomic import atomic_file

LOADS = tuple(METHODS)
MIXED = ("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k")
"""Mixtures of types, which only llama.cpp's quantiser makes."""

FILES = (*KINDS, *MIXED)
FORMS: dict[str, str] = {**dict.fromkeys(LOADS, "load"), **dict.fromkeys(FILES, "file")}
_PLAIN = ("f32", "f16", "bf16")  # which need no quantiser


def check_form(
    name: str, folder: str | Path | None = None, *, trust_remote_code: bool = False
) -> None:
    """Refuse, before any work, a form that cannot be made here.

    Args:
        name: a name in FORMS.
        folder: the model's folder, or one of the same shape; None leaves the model unchecked.
        trust_remote_code: as in ``load_model``.

    Raises:
        WagleError: the name is unknown, a package or tool is missing, or the model cannot be
            written as a GGUF file.
    """
    if choose(FORMS, name, "form") == "load":
        from wagle.model.loading import empty_model

        trust = trust_remote_code
        model = None if folder is None else empty_model(folder, trust_remote_code=trust)
        check_way(name, model=model)
        return
    if name in MIXED and _quantizer() is None:
        raise WagleError(
            f"{name} needs llama.cpp's quantiser: pip install llama-cpp-python, put llama-quantize "
            f"on the PATH, or choose among {', '.join((*LOADS, *KINDS))}"
        )
    if folder is not None:
        check_writable(folder)


def make_file(folder: str | Path, path: str | Path, name: str) -> str:
    """Write a model folder as a GGUF file of a form.

    Args:
        folder: a local model folder with its tokenizer; it is not changed.
        path: the file; it appears when it is whole.
        name: a name in FILES.

    Returns:
        What rounded the weights: ``llama-cpp-python``, ``llama-quantize`` or ``gguf``.

    Raises:
        WagleError: the form cannot be made here, or llama.cpp fails.
    """
    check_form(name, model_folder(folder))
    found = None if name in _PLAIN else _quantizer()
    if found is None:
        write_gguf(folder, path, name)
        return "gguf"
    by, quantize = found
    with _beside(Path(path)) as place:
        write_gguf(folder, place / "whole.gguf", "f32")
        with atomic_file(path) as part:
            quantize(place / "whole.gguf", part, name)
    return by


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A private folder for the time being, on the disk that will hold the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wagle-", dir=path.parent) as place:
        yield Path(place)


def _quantizer() -> tuple[str, Callable[[Path, Path, str], None]] | None:
    """llama.cpp's quantiser: its name, and a function of the file, the new file and the form."""
    if importlib.util.find_spec("llama_cpp") is not None:
        return "llama-cpp-python", _by_library
    tool = shutil.which("llama-quantize")
    if tool is None:
        return None
    return "llama-quantize", lambda whole, small, name: call(
        tool, str(whole), str(small), name.upper()
    )


def _by_library(whole: Path, small: Path, name: str) -> None:
    llama_cpp: Any = importlib.import_module("llama_cpp")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name.upper()}")
    settings.nthread = len(os.sched_getaffinity(0))
    with quiet():
        failed = llama_cpp.llama_model_quantize(str(whole).encode(), str(small).encode(), settings)
    if failed:
        raise WagleError(f"llama.cpp's quantiser failed with {failed} on {name}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what a C library prints off the screen."""
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
