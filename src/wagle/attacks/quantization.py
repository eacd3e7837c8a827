"""Quantisation: rounding the weights to few bits can bring back what was to be forgotten.

Unlearning moves weights by little. Where an update stays below half a quantisation step, the
quantised model has the code that the quantised original has, and so its knowledge.

Weights alone are quantised, without calibration: those of the linear layers, the head among them.
A tied head is untied by it; embeddings, norms and biases stay. ``gguf`` is what llama.cpp makes of
the whole model.

Source: Zhang et al. 2024, arXiv 2410.16454 (there FP4, and LLM.int8).
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wagle.compat.bitsandbytes import never_repack
from wagle.compat.torchao import codes_and_steps
from wagle.compat.transformers import attention_of, forget_ties
from wagle.mask.mask import Mask
from wagle.model.saving import save_model
from wagle.model.structure import model_folder
from wagle.model.weights import Weights
from wagle.system.errors import WagleError, choose

logger = logging.getLogger(__name__)
GGUF = "gguf"
_LARGE = 1_000_000_000  # parameters from which a model's groups are the large ones
_CHUNK = 1 << 22  # weights whose codes are made at once
_TOOLS = ("convert_hf_to_gguf.py", "llama-quantize")  # of llama.cpp

# ---------------------------------------------------------------------------------------------
# Ways to quantise a layer


def nf4(layer: nn.Linear, group: int) -> nn.Linear:
    """Four bits for normally distributed weights, in blocks of 64 with a float32 maximum each.

    ``group`` does not matter.

    Source: Dettmers et al. 2023, arXiv 2305.14314, without double quantisation; bitsandbytes.
    """
    del group
    return _four_bits(layer, "nf4")


def fp4(layer: nn.Linear, group: int) -> nn.Linear:
    """Four-bit floating point, blocks as in ``nf4``: what ``load_in_4bit`` does unless told more.

    ``group`` does not matter.
    """
    del group
    return _four_bits(layer, "fp4")


def int8(layer: nn.Linear, group: int) -> nn.Linear:
    """Eight bits, symmetric, a step of ``max|w| / 127.5`` per row; the largest weight is clipped.

    ``group`` does not matter.
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
    # gives the layer a new weight, and leaves the old one alone
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
WAYS: dict[str, Method | None] = {**METHODS, GGUF: None}  # None: not layer by layer
_CODED: dict[str, Method] = {"int4": int4, "int8": int8}  # steps of one size within a row or group


# ---------------------------------------------------------------------------------------------
# A model


def check_way(how: str, group_size: int | None = None, model: nn.Module | None = None) -> None:
    """Refuse, before any work, what ``quantize`` would refuse.

    Args:
        how: as in ``quantize``.
        group_size: as there.
        model: of the same shape, with or without weights; None leaves the groups unchecked.

    Raises:
        WagleError: an unknown name, a missing package or tool, a group size that does not fit.
    """
    method = choose(WAYS, how, "quantisation")
    if method is None:
        _llama_cpp()
    else:
        method(nn.Linear(64, 1, bias=False), 64)  # a layer shows whether its library is there
    if how == "int4":
        _check_groups(nn.Module() if model is None else model, group_size)


def quantize(model: PreTrainedModel, how: str, *, group_size: int | None = None) -> PreTrainedModel:
    """Make a quantised copy of a model; the given one is untouched and shares no memory with it.

    Args:
        model: a live model without an adapter, on any device; for ``gguf``, from a local folder.
        how: a name in WAYS.
        group_size: of ``int4``; None is 128 from a billion parameters on, else 32. It must divide
            the inputs of every linear layer.

    Returns:
        The copy, in evaluation mode, which can be asked but not trained. Linear layers (``Conv1D``
        ones too, then as ``nn.Linear``) compute in the model's precision. Of ``gguf`` it is an
        ordinary model with the rounded weights.

    Raises:
        WagleError: an unknown name, a missing package or tool, an adapter, weights that are
            quantised already or not finite, a group size that does not fit.
    """
    method = choose(WAYS, how, "quantisation")
    if hasattr(model, "disable_adapter"):
        raise WagleError("quantisation needs a model without an adapter; merge it with merge_lora")
    if method is None:
        return _through_gguf(model)
    group = _check_groups(model, group_size) if how == "int4" else 0
    made: dict[int, Any] = {}
    for name, layer in model.named_modules():
        if _is_linear(layer):
            made[id(layer)] = method(_loose(name, layer), group)
    _tell_rest(model)
    quantized: Any = copy.deepcopy(
        model, made
    )  # puts what was made in the place of the linear layers
    for config in (quantized.config, quantized.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = False
    forget_ties(quantized)
    quantized.requires_grad_(False)
    finished: PreTrainedModel = quantized.eval()
    return finished


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """A linear layer's weight as (out, in)."""
    return weight.T if isinstance(layer, Conv1D) else weight


def _loose(name: str, layer: Any) -> nn.Linear:
    """A layer of its own with the weight of another one and a copy of its bias."""
    weight = layer.weight.data
    if not weight.is_floating_point() or type(weight) is not Tensor:
        raise WagleError(f"{name} is quantised already; give the model in its own precision")
    if not torch.isfinite(weight).all():
        raise WagleError(f"the weights of {name} are not finite; the model is not usable")
    loose = _linear(_rows(layer, weight).contiguous())
    if layer.bias is not None:
        loose.bias = nn.Parameter(layer.bias.data.clone(), requires_grad=False)
    return loose


def _linear(rows: Tensor) -> nn.Linear:
    """A layer with the weight ``rows`` (out, in) and no bias."""
    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(rows, requires_grad=False)
    return layer


def _group(model: nn.Module, asked: int | None) -> int:
    if asked is None:
        return 128 if sum(p.numel() for p in model.parameters()) >= _LARGE else 32
    if asked < 1:
        raise WagleError(f"group_size is {asked}; give a number of weights, at least 1")
    return asked


def _check_groups(model: nn.Module, asked: int | None) -> int:
    """The size of the groups, which divides the inputs of every linear layer."""
    group = _group(model, asked)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            _check_group(name, _rows(layer, layer.weight).shape[1], group)
    return group


def _check_group(name: str, inputs: int, group: int) -> None:
    if inputs % group:
        raise WagleError(
            f"{name} has {inputs} inputs, which groups of {group} do not divide; give another "
            "group_size"
        )


def _tell_rest(model: nn.Module) -> None:
    """Say aloud that matrices lie in no linear layer, as the experts of a mixture may."""
    rest = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 2}
    if rest:
        logger.warning(
            "%d weights (%s, ...) are in no linear layer and are not quantised: what comes back is "
            "a lower bound",
            sum(rest.values()),
            next(iter(rest)),
        )


# ---------------------------------------------------------------------------------------------
# llama.cpp


def _through_gguf(model: PreTrainedModel) -> PreTrainedModel:
    """What llama.cpp leaves of a live model, which lies in a private folder for that while."""
    home = Path(model.name_or_path or "")
    if not model.name_or_path or not (home / "config.json").is_file():
        raise WagleError(
            f"{GGUF} needs a model that was loaded from a local folder, whose tokenizer and "
            "configuration llama.cpp reads; load it with load_model"
        )
    with tempfile.TemporaryDirectory(prefix="wagle-") as place:  # nobody else can read it
        save_model(model, home, Path(place) / "model")
        made: Any = load_gguf(Path(place) / "model", attention=attention_of(model.config))
    made.generation_config = model.generation_config  # which says what ends an answer
    made.requires_grad_(False)
    finished: PreTrainedModel = made.to(device=model.device, dtype=model.dtype)
    return finished


def load_gguf(
    folder: str | Path, kind: str = "Q4_K_M", attention: str | None = None
) -> PreTrainedModel:
    """Take a model folder through llama.cpp's quantisation and load what is left, in float32.

    Args:
        folder: a local model folder with its tokenizer; it is not changed.
        kind: a type of ``llama-quantize``, such as ``Q8_0`` or ``Q4_0``.
        attention: as transformers names it; None is what it prefers.

    Raises:
        WagleError: llama.cpp's tools are not on the PATH, or one of them fails; transformers cannot
            read what they made.
    """
    home, (convert, quantizer) = model_folder(folder), _llama_cpp()
    with tempfile.TemporaryDirectory(prefix="wagle-") as place:
        whole, small = f"{place}/whole.gguf", f"{place}/small.gguf"
        _call(convert, str(home), "--outtype", "f32", "--outfile", whole)
        _call(quantizer, whole, small, kind)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                place,
                gguf_file=Path(small).name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                attn_implementation=attention,
                local_files_only=True,
            )
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise WagleError(
                f"transformers cannot read the {GGUF} that llama.cpp made: {reason[0]}"
            ) from error
    loaded: PreTrainedModel = model.eval()
    return loaded


def _llama_cpp() -> list[str]:
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


def _call(tool: str, *arguments: str) -> None:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise WagleError(f"{Path(tool).name} failed with {done.returncode}: {said[-1]}")


# ---------------------------------------------------------------------------------------------
# What quantisation undoes, from the weights alone


def changed_codes(
    base: nn.Module | str | Path,
    after: nn.Module | str | Path,
    how: str,
    mask: Mask | None = None,
    *,
    group_size: int | None = None,
) -> dict[str, int | float | None]:
    """How much of an unlearning is still there once the weights are rounded.

    The codes are those that ``quantize`` would give, in the precision in which ``after`` holds its
    weights. Nothing is run. At most one tensor of a folder is in memory, and of most a few million
    weights at a time. A weight that is shared by embedding and head counts as the head's.

    Args:
        base: the original model, live or a folder.
        after: the unlearned one, of the same names and shapes.
        how: ``int8`` or ``int4``.
        mask: a single ratio of these models: the weights to look at. None looks at those that
            changed.
        group_size: as in ``quantize``.

    Returns:
        ``weights``: how many of the selected (or changed) weights are quantised; ``changed``: how
        many of these differ; ``code_changed``: the share of ``weights`` that have another code
        than the original's; ``below_half_step``: the share of ``changed`` that moved by less than
        half a step of the original; ``not_quantized``: selected (or changed) weights that
        quantisation leaves alone. A share of nothing is None.

    Raises:
        WagleError: an unknown name, two models that do not fit each other or the mask, weights that
            are not finite.
    """
    method = choose(_CODED, how, "quantisation with codes")
    with _opened(base) as (old, old_weight), _opened(after) as (new, new_weight):
        _check_fit(old, new, mask)
        group = _group(new, group_size)
        layers = {id(m.weight): m for m in new.modules() if isinstance(m, nn.Linear | Conv1D)}
        total, rest = torch.zeros(4, dtype=torch.int64), 0
        for name, parameter in new.named_parameters():
            if mask is not None and name not in mask:
                continue
            picked = None if mask is None else mask[name]
            before, now = old_weight(name), new_weight(name)
            layer = layers.get(id(parameter))
            if layer is None:
                rest += int((before.to(now.dtype) != now if picked is None else picked).sum())
                continue
            if how == "int4":
                _check_group(name, _rows(layer, now).shape[1], group)
            chosen = None if picked is None else _rows(layer, picked)
            total += _counts(name, _rows(layer, before), _rows(layer, now), chosen, method, group)
    weights, changed, codes, below = total.tolist()
    return {
        "weights": weights,
        "changed": changed,
        "code_changed": codes / weights if weights else None,
        "below_half_step": below / changed if changed else None,
        "not_quantized": rest,
    }


def _counts(
    name: str, old: Tensor, new: Tensor, picked: Tensor | None, method: Method, group: int
) -> Tensor:
    """Of one weight (out, in), some rows at a time, (4,) int64.

    How many entries are looked at; of these, how many moved, have another code, moved by less than
    half a step.
    """
    total = torch.zeros(4, dtype=torch.int64)
    step = max(1, _CHUNK // old.shape[1])
    for start in range(0, len(old), step):
        part = slice(start, start + step)
        now = new[part].contiguous()
        before = old[part].to(now.dtype).contiguous()
        if not (torch.isfinite(before).all() and torch.isfinite(now).all()):
            raise WagleError(f"the weights of {name} are not finite; the model is not usable")
        moved = before != now
        looked = moved if picked is None else picked[part].to(moved.device)
        if not looked.any():
            continue
        first, steps = _codes(before, method, group)
        second, _ = _codes(now, method, group)
        small = (now.float() - before.float()).abs() < steps / 2
        parts = (looked, looked & moved, looked & (first != second), looked & moved & small)
        total += torch.stack([part.sum().cpu() for part in parts])
    return total


def _codes(rows: Tensor, method: Method, group: int) -> tuple[Tensor, Tensor]:
    """The codes of a weight (out, in), int8, and for each the size of a step, float32."""
    weight: Any = method(_linear(rows), group).weight
    codes, steps = codes_and_steps(weight)
    scale = steps.float()  # (out, groups of a row)
    return codes, scale.repeat_interleave(rows.shape[1] // scale.shape[1], 1)


@contextmanager
def _opened(
    source: nn.Module | str | Path,
) -> Iterator[tuple[nn.Module, Callable[[str], Tensor]]]:
    """A model's structure, and its weights by name, one at a time."""
    if isinstance(source, nn.Module):
        live = {name: p.detach() for name, p in source.named_parameters()}
        yield source, live.__getitem__
        return
    weights = Weights(source)
    try:
        yield weights.model, weights.get
    finally:
        weights.close()


def _check_fit(old: nn.Module, new: nn.Module, mask: Mask | None) -> None:
    have = {name: tuple(p.shape) for name, p in new.named_parameters()}
    others = {"base": {name: tuple(p.shape) for name, p in old.named_parameters()}}
    if mask is not None:
        # what a mask does not know was not trainable; what it knows has to be there
        others["mask"] = {**have, **mask.shapes}
    for what, shapes in others.items():
        differ = sorted(n for n in {*have, *shapes} if have.get(n) != shapes.get(n))
        if differ:
            raise WagleError(
                f"{what} and after do not fit: {differ[0]} is {shapes.get(differ[0])} in one and "
                f"{have.get(differ[0])} in the other; give models of the same architecture"
            )
