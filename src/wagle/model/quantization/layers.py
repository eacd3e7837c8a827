"""Ways to quantise a layer: each takes over a linear layer and rounds its weight."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from wagle.compat.bitsandbytes import never_repack
from wagle.system.errors import WagleError

_LARGE = 1_000_000_000  # parameters from which a model gets the larger groups


def nf4(layer: nn.Linear, group: int) -> nn.Linear:
    """Four bits for normally distributed weights, in blocks of 64 with a float32 maximum each.

    ``group`` is ignored.

    Source: Dettmers et al. 2023, arXiv 2305.14314, without double quantisation; bitsandbytes.
    """
    del group
    return _four_bits(layer, "nf4")


def fp4(layer: nn.Linear, group: int) -> nn.Linear:
    """Four-bit floating point, blocks as in ``nf4``: what ``load_in_4bit`` does by default.

    ``group`` is ignored.
    """
    del group
    return _four_bits(layer, "fp4")


def int8(layer: nn.Linear, group: int) -> nn.Linear:
    """Eight bits, symmetric, a step of ``max|w| / 127.5`` per row; the largest weight is clipped.

    ``group`` is ignored.
    """
    del group
    return _integers(layer, _library("torchao.quantization").Int8WeightOnlyConfig())


def int4(layer: nn.Linear, group: int) -> nn.Linear:
    """Four bits, symmetric, a step of ``max|w| / 7.5`` per ``group`` of weights along a row."""
    torchao = _library("torchao.quantization")
    kind = torch.int4  # type: ignore[attr-defined]
    return _integers(
        layer,
        torchao.IntxWeightOnlyConfig(weight_dtype=kind, granularity=torchao.PerGroup(group)),
    )


def _integers(layer: nn.Linear, config: Any) -> nn.Linear:
    # gives the layer a new weight and leaves the old one alone
    _library("torchao.quantization").quantize_(layer, config)
    return layer


def _four_bits(layer: nn.Linear, kind: str) -> nn.Linear:
    layers = _library("bitsandbytes.nn")
    weight = layer.weight.data
    made = layers.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=weight.dtype,
        compress_statistics=False,
        quant_type=kind,
        device="meta",
    )
    packed = layers.Params4bit(
        weight, requires_grad=False, compress_statistics=False, quant_type=kind, module=made
    )
    made.weight = packed.to(weight.device)  # this is what quantises
    made.bias = layer.bias
    never_repack(made)
    quantized: nn.Linear = made
    return quantized


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise WagleError(f"quantisation needs {package}: pip install 'wagle[attacks]'") from None


Method = Callable[[nn.Linear, int], nn.Linear]  # takes the layer over

METHODS: dict[str, Method] = {"fp4": fp4, "int4": int4, "int8": int8, "nf4": nf4}


def as_rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """A linear layer's weight as (out, in)."""
    return weight.T if isinstance(layer, Conv1D) else weight


def as_layer(rows: Tensor) -> nn.Linear:
    """A layer with the weight ``rows`` (out, in) and no bias."""
    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(rows, requires_grad=False)
    return layer


def group_of(model: nn.Module, asked: int | None) -> int:
    if asked is None:
        return 128 if sum(p.numel() for p in model.parameters()) >= _LARGE else 32
    if asked < 1:
        raise WagleError(f"group_size is {asked}; give a number of weights, at least 1")
    return asked


def check_group(name: str, inputs: int, group: int) -> None:
    if inputs % group:
        raise WagleError(
            f"{name} has {inputs} inputs, which groups of {group} do not divide; give another "
            "group_size"
        )
