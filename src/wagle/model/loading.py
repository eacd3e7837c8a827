"""Load a model or its tokenizer from a local folder, or build its structure without weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.model.demo import demo_model
from wagle.model.stored import (
    check_config,
    check_tensors,
    check_vocabulary,
    read_stored,
    refuse_tensors,
)
from wagle.model.structure import DTYPES, model_folder
from wagle.system.errors import WagleError, choose

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = "bundled:"  # before the name of a model that comes with a package
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def load_model(
    path: str | Path,
    dtype: str = "float32",
    attention: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a causal language model from a local folder, in evaluation mode.

    Args:
        path: the folder.
        dtype: the dtype of the weights.
        attention: ``eager``, ``sdpa``, or ``auto``: what transformers prefers for the model.
        trust_remote_code: whether Python code that lies in the folder may run. Nothing ever asks.

    Raises:
        WagleError: the folder cannot be read, needs code that may not run, or its weights are not
            those of the model in its configuration.
    """
    folder, kind = model_folder(path), choose(DTYPES, dtype, "dtype")
    stored = read_stored(folder)
    from transformers import AutoModelForCausalLM

    try:
        made: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            output_loading_info=True,
            dtype=kind,
            attn_implementation=None if attention == "auto" else attention,
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            trust_remote_code=trust_remote_code,
        )
    except WagleError:
        raise
    except Exception as error:
        raise WagleError(f"cannot load the model in {path}: {reason_for(error)}") from error
    model, found = made
    refuse_tensors(folder, [*found["missing_keys"]], [*found["unexpected_keys"]])
    check_tensors(model, stored)
    loaded: PreTrainedModel = model.eval()
    return loaded


def empty_model(
    path: str | Path,
    attention: str = "auto",
    dtype: str = "float32",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model in a folder with every parameter on the meta device: its structure, no weights.

    Buffers (rotary frequencies) are real. The arguments are those of ``load_model``, and so is
    what is refused, as far as headers tell.
    """
    folder = model_folder(path)
    stored = read_stored(folder)
    model = structure_of(folder, attention, dtype, trust_remote_code=trust_remote_code)
    check_tensors(model, stored)
    return model


def structure_of(
    path: str | Path,
    attention: str = "auto",
    dtype: str = "float32",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """What ``empty_model`` gives, from ``config.json`` alone: the folder need hold no weights."""
    folder = model_folder(path)
    check_config(folder)
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=choose(DTYPES, dtype, "dtype"),
                attn_implementation=None if attention == "auto" else attention,
                trust_remote_code=trust_remote_code,
            )
    except Exception as error:
        raise WagleError(f"cannot build the model in {path}: {reason_for(error)}") from error
    model.tie_weights()
    empty: PreTrainedModel = model.eval()
    return empty


def load_tokenizer(path: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local model folder.

    Args:
        path: the folder.
        trust_remote_code: as in ``load_model``.

    Raises:
        WagleError: the folder holds none, needs code that may not run, or has tokens without a
            place in the vocabulary of its model.
    """
    folder = model_folder(path)
    if not any(
        (folder / name).is_file() for name in _TOKENIZERS
    ):  # transformers would make an empty one
        raise WagleError(f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained")
    config = check_config(folder)
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise WagleError(f"cannot load the tokenizer in {path}: {reason_for(error)}") from error
    check_vocabulary(tokenizer, config, folder)
    return tokenizer


def reason_for(error: Exception) -> str:
    """The first line of what transformers says, or what to do about code in a folder."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if "trust_remote_code" not in str(error):
        return lines[0]
    return (
        "it needs Python code that lies in the folder, and code by strangers can do anything; read "
        "it, then set model.trust_remote_code: true in the recipe, or trust_remote_code=True in "
        "Python"
    )


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
