"""Load a model or its tokenizer from a local folder, or build its structure without weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wagle.model.demo import demo_model
from wagle.model.structure import DTYPES, model_folder
from wagle.system.errors import WagleError, choose

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = "bundled:"  # before the name of a model that comes with a package
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def load_model(
    path: str | Path, dtype: str = "float32", attention: str = "auto"
) -> PreTrainedModel:
    """Load a causal language model from a local folder, in evaluation mode.

    Args:
        path: the folder.
        dtype: the dtype of the weights.
        attention: ``eager``, ``sdpa``, or ``auto``: what transformers prefers for the model.
    """
    folder, kind = model_folder(path), choose(DTYPES, dtype, "dtype")
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            attn_implementation=None if attention == "auto" else attention,
            local_files_only=True,
        )
    except WagleError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot load the model in {path}: {reason[0]}") from error
    loaded: PreTrainedModel = model.eval()
    return loaded


def empty_model(
    path: str | Path, attention: str = "auto", dtype: str = "float32"
) -> PreTrainedModel:
    """The model in a folder with every parameter on the meta device: its structure, no weights.

    Buffers (rotary frequencies) are real. The arguments are those of ``load_model``.
    """
    folder = model_folder(path)
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=choose(DTYPES, dtype, "dtype"),
                attn_implementation=None if attention == "auto" else attention,
            )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot build the model in {path}: {reason[0]}") from error
    model.tie_weights()
    empty: PreTrainedModel = model.eval()
    return empty


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local model folder."""
    folder = model_folder(path)
    if not any(
        (folder / name).is_file() for name in _TOKENIZERS
    ):  # transformers would make an empty one
        raise WagleError(f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained")
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot load the tokenizer in {path}: {reason[0]}") from error
    return tokenizer


def resolve_model(path: str) -> Path:
    """The model folder that a path names, checked; ``demo`` or ``bundled:demo`` is the demo model.

    Raises:
        WagleError: there is no such model, or the name means two.
    """
    check_name(path)
    if not is_bundled(path):
        return model_folder(path)
    if path.removeprefix(BUNDLED) != "demo":
        raise WagleError(f"{path} is no bundled model; write bundled:demo, or name a folder")
    return demo_model()


def is_bundled(path: str) -> bool:
    """Whether a name is that of a model that comes with a package."""
    return path == "demo" or path.startswith(BUNDLED)


def check_name(path: str) -> None:
    """Refuse a name that is both the bundled model's and that of something in this folder."""
    if path == "demo" and Path(path).exists():
        raise WagleError(
            "demo is both the bundled model and a folder or file here; write bundled:demo for the "
            "model, ./demo for what is here"
        )
