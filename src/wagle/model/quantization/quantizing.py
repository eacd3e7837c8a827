"""A quantised copy of a model: linear layers are rounded one by one, or by llama.cpp."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wagle.compat.transformers import forget_ties
from wagle.model.quantization.layers import (
    METHODS,
    Method,
    as_layer,
    as_rows,
    check_group,
    group_of,
)
from wagle.model.quantization.llama_cpp import GGUF, llama_cpp, through_gguf
from wagle.system.errors import WagleError, choose

logger = logging.getLogger(__name__)
WAYS: dict[str, Method | None] = {**METHODS, GGUF: None}  # None: not layer by layer


def check_way(how: str, group_size: int | None = None, model: nn.Module | None = None) -> None:
    """Refuse, before any work, what ``quantize`` would refuse.

    Args:
        how: as in ``quantize``.
        group_size: as in ``quantize``.
        model: a model of the same shape, with or without weights; None leaves the groups unchecked.

    Raises:
        WagleError: the name is unknown, a package or tool is missing, or the group size does not
            fit.
    """
    method = choose(WAYS, how, "quantisation")
    if method is None:
        llama_cpp()
    else:
        method(nn.Linear(64, 1, bias=False), 64)  # one layer shows whether its library is there
    if how == "int4":
        _check_groups(nn.Module() if model is None else model, group_size)


def quantize(model: PreTrainedModel, how: str, *, group_size: int | None = None) -> PreTrainedModel:
    """Make a quantised copy of a model; the given one is untouched and shares no memory with it.

    Args:
        model: a live model without an adapter, on any device; for ``gguf``, from a local folder.
        how: a name in WAYS.
        group_size: for ``int4``; None: 128 for a billion parameters or more, else 32. It must
            divide the inputs of every linear layer.

    Returns:
        The copy, in evaluation mode, which can be asked but not trained. Linear layers (including
        ``Conv1D``, as ``nn.Linear``) compute in the model's precision. With ``gguf`` it is an
        ordinary model with the rounded weights.

    Raises:
        WagleError: the name is unknown, a package or tool is missing, the model has an adapter,
            weights are already quantised or not finite, or the group size does not fit.
    """
    method = choose(WAYS, how, "quantisation")
    if hasattr(model, "disable_adapter"):
        raise WagleError("quantisation needs a model without an adapter; merge it with merge_lora")
    if method is None:
        return through_gguf(model)
    group = _check_groups(model, group_size) if how == "int4" else 0
    made: dict[int, Any] = {}
    for name, layer in model.named_modules():
        if _is_linear(layer):
            made[id(layer)] = method(_loose(name, layer), group)
    _tell_rest(model)
    quantized: Any = copy.deepcopy(model, made)  # replaces the linear layers
    for config in (quantized.config, quantized.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = False
    forget_ties(quantized)
    quantized.requires_grad_(False)
    finished: PreTrainedModel = quantized.eval()
    return finished


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _loose(name: str, layer: Any) -> nn.Linear:
    """A separate layer with the weight of another and a copy of its bias."""
    weight = layer.weight.data
    if not weight.is_floating_point() or type(weight) is not Tensor:
        raise WagleError(f"{name} is already quantised; give the model in its own precision")
    if not torch.isfinite(weight).all():
        raise WagleError(f"the weights of {name} are not finite; the model is unusable")
    loose = as_layer(as_rows(layer, weight).contiguous())
    if layer.bias is not None:
        loose.bias = nn.Parameter(layer.bias.data.clone(), requires_grad=False)
    return loose


def _check_groups(model: nn.Module, asked: int | None) -> int:
    """The size of the groups, which divides the inputs of every linear layer."""
    group = group_of(model, asked)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            check_group(name, as_rows(layer, layer.weight).shape[1], group)
    return group


def _tell_rest(model: nn.Module) -> None:
    """Warn that matrices lie outside linear layers, as the experts of a mixture may."""
    rest = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 2}
    if rest:
        logger.warning(
            "%d weights (%s, ...) are in no linear layer and are not quantised: what comes back "
            "is a lower bound",
            sum(rest.values()),
            next(iter(rest)),
        )
