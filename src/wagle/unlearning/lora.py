"""LoRA: small matrices added to the model's own weights, which stay as they are.

Every target layer with weight W gets ``(alpha / rank) B A`` added; A (rank, in) starts at random, B
(out, rank) at zero, and only these two train. Merging an adapter leaves an ordinary model.

Source: Hu et al. 2021, arXiv 2106.09685; on a four-bit base, Dettmers et al. 2023, arXiv
2305.14314.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wagle.compat.bitsandbytes import never_repack
from wagle.compat.transformers import is_quantized
from wagle.mask.mask import Mask
from wagle.model.loading import reason_for
from wagle.model.saving import write_shard
from wagle.model.structure import DTYPES, model_folder
from wagle.recipe.sections.unlearning import Lora
from wagle.system.errors import WagleError, choose
from wagle.system.files.atomic import atomic_folder
from wagle.unlearning.training.weights.rounding import seeded

logger = logging.getLogger(__name__)
ALL = "all-linear"
_FIRST, _SECOND = ".lora_A.", ".lora_B."  # in the names of an adapter's parameters

# ---------------------------------------------------------------------------------------------
# Making one


def check_lora(model: nn.Module, targets: str | Sequence[str], quantize: str = "none") -> None:
    """Refuse an adapter that cannot be made: a package is missing, or the model lacks the targets.

    Args:
        model: its structure, with or without weights.
        targets: as in ``add_lora``.
        quantize: ``none`` or ``nf4``.
    """
    _require("peft", "LoRA", "lora")
    if quantize != "none":
        _require("bitsandbytes", "QLoRA", "qlora")
    find_targets(model, targets)


def _require(package: str, what: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise WagleError(f"{what} needs {package}: pip install 'wagle[{extra}]'")


def find_targets(model: nn.Module, targets: str | Sequence[str]) -> list[str]:
    """The layers that ``targets`` names, by the last part of their names, sorted.

    Args:
        model: any causal model.
        targets: names such as ``q_proj``, or ``all-linear``: every linear layer except the head.

    Raises:
        WagleError: no linear layer has one of the names; the message lists the names that exist.
    """
    owner: Any = model
    head = owner.get_output_embeddings()
    linear = [(_leaf(name), m) for name, m in model.named_modules() if _is_linear(m)]
    known = {leaf for leaf, _ in linear} - {leaf for leaf, m in linear if m is head}
    if targets == ALL:
        return sorted(known)
    asked = [targets] if isinstance(targets, str) else list(targets)
    if not asked:
        raise WagleError(f"targets is empty; name layers, or write {ALL}")
    for name in asked:
        choose(dict.fromkeys((ALL, *known)), name, "LoRA target")
    if ALL in asked:
        raise WagleError(f"targets names {ALL} in a list; give it alone, or name the layers")
    return sorted(set(asked))


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    targets: str | Sequence[str] = ALL,
    seed: int = 0,
) -> Any:
    """Add an adapter to the linear layers of ``model``, in place; only it requires gradients.

    The defaults are the rank and alpha of UNDIAL's published LoRA runs. All linear layers are
    targets, so that masks are compared with LoRA at its best: masks may select anywhere, and layer
    names differ between architectures. The baseline of arXiv 2410.17509 is ``alpha=32,
    dropout=0.05, targets=["q_proj", "v_proj"]``.

    Args:
        model: a live model without an adapter.
        rank: rows of A, columns of B, > 0.
        alpha: > 0; ``B A`` is scaled by ``alpha / rank``.
        dropout: 0 <= p < 1, on the input of A. Unlearning switches it off unless asked not to.
        targets: names of linear layers, or ``all-linear``: all except the head.
        seed: A is a function of (seed, name of the parameter), uniform within 1 / sqrt(in); no
            global generator is read or moved.

    Returns:
        A ``PeftModel``, which forwards unknown attributes to the model. Its parameters are called
        ``base_model.model.NAME.lora_A.default.weight`` and ``lora_B``, and are float32.

    Raises:
        WagleError: peft is missing, the model has an adapter, or a target is unknown.
    """
    _require("peft", "LoRA", "lora")
    from peft import LoraConfig

    if hasattr(model, "disable_adapter"):
        raise WagleError("the model already has an adapter; merge it first with merge_lora")
    leaves = find_targets(model, targets)
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=leaves,
        fan_in_fan_out=any(
            isinstance(m, Conv1D) and _leaf(name) in leaves for name, m in model.named_modules()
        ),
        task_type="CAUSAL_LM",
    )
    return wrap(model, settings, seed)


def wrap(model: PreTrainedModel, settings: Any, seed: int) -> Any:
    """Add an untrained adapter with a configuration of peft's own, in place.

    Args:
        model: a live model without an adapter.
        settings: a ``PeftConfig``.
        seed: for its initial values; as in ``add_lora`` for LoRA as peft starts it by default.
    """
    from peft import get_peft_model

    training = model.training
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 something by its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        torch.manual_seed(seed)
        adapted: Any = get_peft_model(model, settings)
    if getattr(settings, "init_lora_weights", None) is True:
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if _FIRST in name:
                    parameter.copy_(_start(parameter, (seed, "lora", name)))
    adapted.train(training)
    return adapted


def adapt(model: PreTrainedModel, settings: Lora, seed: int) -> Any:
    """Add the adapter that ``settings`` describe to a model, as ``add_lora`` does.

    Args:
        model: a live model without an adapter.
        settings: its rank, alpha, dropout and targets.
        seed: for the initial values of A.
    """
    return add_lora(
        model,
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=settings.dropout,
        targets=settings.targets,
        seed=seed,
    )


def _start(like: torch.Tensor, key: tuple[object, ...]) -> torch.Tensor:
    """Uniform draws within 1 / sqrt(in), (rank, in) float32: peft's initial values, by key."""
    drawn = torch.rand(like.shape, generator=seeded(key, torch.device("cpu")))
    return (2 * drawn - 1) / math.sqrt(like.shape[1])


def load_quantized(
    path: str | Path,
    dtype: str = "float32",
    attention: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a model with its linear layers, except the head, in four bits (NF4): a base for LoRA.

    Args:
        path: the folder, whose files stay as they are.
        dtype: of all other weights and of the matrix products.
        attention: as in ``load_model``.
        trust_remote_code: as there.

    Returns:
        The model in evaluation mode. It can only be trained through an adapter, which cannot be
            merged
        into it exactly.

    Raises:
        WagleError: bitsandbytes is missing, or the folder cannot be loaded this way.
    """
    _require("bitsandbytes", "QLoRA", "qlora")
    from transformers import BitsAndBytesConfig

    folder, kind = model_folder(path), choose(DTYPES, dtype, "dtype")
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=kind,
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            quantization_config=settings,
            attn_implementation=None if attention == "auto" else attention,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:
        raise WagleError(f"cannot load {path} in four bits: {reason_for(error)}") from error
    for layer in model.modules():
        never_repack(layer)
    loaded: PreTrainedModel = model.eval()
    return loaded


# ---------------------------------------------------------------------------------------------
# Masks on one


def check_adapter_mask(mask: Mask, *, by_gradient: bool) -> None:
    """Check that a mask on an untrained adapter selects weights that can train.

    While B is zero, the gradient of A is zero, and so is every score of A computed from it; in B
    every magnitude is zero.

    Args:
        mask: a mask of one ratio over the weights of an adapter as ``add_lora`` makes it.
        by_gradient: whether its scores were computed from gradients.

    Raises:
        WagleError: the mask selects nothing in B, so the model could never change.
    """
    density = mask.density("parameter")
    if not any(selected for name, (selected, _) in density.items() if _SECOND in name):
        raise WagleError(
            "the mask selects nothing in lora_B, which starts at zero, so the model could not "
            "change; set attribution.exclude: ['*.lora_A.*'], or choose the score random"
        )
    if by_gradient and any(_FIRST in name for name in mask.candidate_names):
        logger.warning(
            "lora_A has no gradient until lora_B has moved, so all its weights score 0 and rank "
            "last; set attribution.exclude: ['*.lora_A.*'] to select within lora_B"
        )


# ---------------------------------------------------------------------------------------------
# Keeping one


def merge_lora(model: Any) -> PreTrainedModel:
    """Merge an adapter into the weights of its layers, in place, and remove it.

    Args:
        model: a ``PeftModel`` with one LoRA adapter, whose base is not quantised.

    Returns:
        The ordinary model inside, with every parameter requiring a gradient again. The sum is
            rounded
        once, to the precision of the weights.

    Raises:
        WagleError: the base is quantised, or the adapter holds a non-finite number; the model is
            then unchanged.
    """
    if is_quantized(model):
        raise WagleError(
            "an adapter cannot be merged exactly into a quantised base; save it with save_adapter, "
            "and merge it into the model's own folder with wagle.model.adapters.merge_adapter"
        )
    for name, parameter in model.named_parameters():
        if ".lora_" in name and not torch.isfinite(parameter).all():
            raise WagleError(f"{name} is not finite; lower the learning rate and train again")
    training = model.training
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    merged.requires_grad_(True)
    merged.train(training)
    return merged


def save_adapter(model: Any, folder: str | Path, base: str | Path) -> None:
    """Write an adapter as a folder that peft loads: ``adapter_config.json`` and its weights.

    Args:
        model: a ``PeftModel`` with one adapter.
        folder: the folder to make.
        base: what the adapter calls its base: the path of its folder, or its name on a hub.
    """
    from peft import get_peft_model_state_dict

    name = model.active_adapter
    settings = copy.copy(model.peft_config[name])
    settings.base_model_name_or_path = str(base)
    settings.inference_mode = True
    settings.target_modules = sorted(settings.target_modules)  # a set, in no fixed order
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    with atomic_folder(folder) as part:
        settings.save_pretrained(str(part))
        found = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        write_shard(part / "adapter_model.safetensors", found)
