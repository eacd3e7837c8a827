"""What wagle needs from transformers beyond its public names. Tested with transformers 5.23.0."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments
    from transformers.cache_utils import DynamicLayer as DynamicLayer


def __getattr__(name: str) -> Any:
    """``DynamicLayer``, imported on first use: one block's keys and values, which grow per token.

    ``DynamicCache`` is public, how it stores its contents is not, and only this kind keeps every
    token.
    Source: https://github.com/huggingface/transformers/blob/main/src/transformers/cache_utils.py
    """
    if name != "DynamicLayer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers.cache_utils import DynamicLayer

    return DynamicLayer


def window_of(layer: Any) -> float:
    """How many tokens a block sees, by its layer of a ``DynamicCache``: infinity if all of them.

    A block whose state is of another kind gives 0. The window counts the token that looks.
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    if type(layer) is DynamicLayer:
        return math.inf
    return layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else 0


# ---------------------------------------------------------------------------------------------
# Weights that a folder stores in another form than the model holds
#
# ``from_pretrained`` converts whole models only. Source:
# https://github.com/huggingface/transformers/blob/main/src/transformers/core_model_loading.py and
# https://github.com/huggingface/transformers/blob/main/src/transformers/conversion_mapping.py


def has_conversion(kind: str | None) -> bool:
    """Whether folders of a model type or architecture hold tensors other than the model's own."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    return get_checkpoint_conversion_mapping(kind) is not None


def stored_names(model: PreTrainedModel, keys: Iterable[str]) -> dict[str, list[str]]:
    """Which tensors of a folder each tensor of the model is made from.

    Args:
        model: the folder's model, with or without weights.
        keys: the names of all tensors in the folder.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(model)
    renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
    converters = [m for m in mapping if isinstance(m, WeightConverter)]
    state = model.state_dict()
    found: dict[str, list[str]] = {}
    for key in keys:
        name, _ = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
        found.setdefault(name, []).append(key)
    return found


def splits_tensors(model: PreTrainedModel) -> bool:
    """Whether some tensor in folders of such a model becomes several of its own."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    mapping = get_model_conversion_mapping(model)
    return any(isinstance(m, WeightConverter) and len(m.target_patterns) > 1 for m in mapping)


def load_converted(model: PreTrainedModel, state: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Convert tensors of a folder and put them into a model; other parameters stay as they are.

    Args:
        model: a model without weights in the places to fill.
        state: all tensors that some of its parameters are made from.
        dtype: the dtype of those parameters.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    mapping: list[Any] = get_model_conversion_mapping(model)
    settings = LoadStateDictConfig(dtype=dtype, weight_mapping=mapping)
    convert_and_load_state_dict_in_model(model, state, settings)


def ignored_names(
    model: PreTrainedModel,
) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """Which tensors a folder may lack, and which it may have besides those of its model.

    Source: ``_adjust_missing_and_unexpected_keys`` in
    https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py
    """
    buffers = {name for name, _ in model.named_buffers()}  # which older versions stored
    surplus = [*(model._keys_to_ignore_on_load_unexpected or ())]
    for end in ("rotary_emb.inv_freq", "position_ids"):
        if any(name.endswith(end) for name in buffers):
            surplus.append(rf"(^|\.){re.escape(end)}$")
    return _matches(model._keys_to_ignore_on_load_missing or (), ()), _matches(surplus, buffers)


def _matches(patterns: Iterable[str], names: Container[str]) -> Callable[[str], bool]:
    every = [re.compile(pattern) for pattern in patterns]
    return lambda name: name in names or any(pattern.search(name) for pattern in every)


# ---------------------------------------------------------------------------------------------
# Properties of a model


def attention_of(config: PreTrainedConfig) -> str | None:
    """The attention code of a live model: ``eager``, ``sdpa``, ...

    Setting it, ``set_attn_implementation``, is public; reading it is not.
    Source: https://github.com/huggingface/transformers/blob/main/src/transformers/configuration_utils.py
    """
    found: str | None = config._attn_implementation
    return found


def is_quantized(model: Any) -> bool:
    """Whether a model was loaded with quantised weights.

    Source: https://github.com/huggingface/transformers/blob/main/src/transformers/quantizers/base.py
    """
    return bool(getattr(model, "is_quantized", False))


def forget_ties(model: Any) -> None:
    """Make a model forget which of its weights it ties, in place.

    It records them when it is built. ``tie_word_embeddings`` in its configuration is the public
    half: ``tie_weights`` goes by that; what transformers does on its own goes by the record.
    Source: https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py
    """
    model.all_tied_weights_keys = {}


# ---------------------------------------------------------------------------------------------
# The Trainer


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Make a Trainer compute on one GPU, however many there are, in place.

    The public property ``n_gpu`` cannot be set, and only the environment can hide the other GPUs.
    Source: https://github.com/huggingface/transformers/blob/main/src/transformers/training_args.py
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)


def prepared_inputs(trainer: Trainer, inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch where the Trainer's own ``training_step`` would put it: on the model's device.

    Source: https://github.com/huggingface/transformers/blob/main/src/transformers/trainer.py
    """
    made: dict[str, Any] = trainer._prepare_inputs(inputs)
    return made


# ---------------------------------------------------------------------------------------------
# Trackers
#
# ``report_to`` is public; listing the names it takes and sending your own figures are not. Source:
# https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/integration_utils.py


def known_trackers() -> Mapping[str, type]:
    """The classes of all trackers, by the names that ``report_to`` accepts."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return INTEGRATION_TO_CALLBACK


def installed_trackers() -> Sequence[str]:
    """The names of the trackers that are installed."""
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    names: Sequence[str] = get_available_reporting_integrations()
    return names


def place_tensorboard(trainer: Trainer, folder: str | None) -> None:
    """Set where tensorboard writes, unless it is set already.

    Args:
        trainer: a trainer with its callbacks created, not yet started.
        folder: None keeps tensorboard's default, a name of time and machine in ``runs/``.
    """
    from transformers.integrations.integration_utils import TensorBoardCallback, default_logdir

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = folder or default_logdir()


def tell_trackers(trainer: Trainer, logs: dict[str, Any]) -> None:
    """Send figures to the trackers, under the step in the trainer's state.

    ``Trainer.log`` would add figures of its own.
    """
    trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, logs)
