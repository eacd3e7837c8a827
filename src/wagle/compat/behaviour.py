"""Checks for the table of contracts: what must hold for a private name beyond its existence.

Each gets the holder of the name, says whether it is still what wagle assumes, and may raise.
"""

from __future__ import annotations

from typing import Any

# ---------------------------------------------------------------------------------------------
# transformers


def layer_grows(module: Any) -> bool:
    """A ``DynamicLayer`` holds keys and values of (B, heads, T, size), which ``update`` lengthens."""
    import torch

    layer, part = module.DynamicLayer(), torch.ones(2, 1, 3, 4)
    layer.lazy_initialization(part, part)
    layer.update(part, part)
    keys, values = layer.update(part[:, :, :1], part[:, :, :1])
    layer.batch_select_indices(torch.tensor([1]))
    long, left = [keys.shape, values.shape], [layer.keys.shape, layer.values.shape]
    kept = bool(layer.get_seq_length() == 4)
    return kept and long == [(2, 1, 4, 4)] * 2 and left == [(1, 1, 4, 4)] * 2


def window_slides(module: Any) -> bool:
    """A layer with a window of 3 shows a token the 2 before it, and gives the mask's sizes."""
    import torch

    layer, part = module.DynamicSlidingWindowLayer(sliding_window=3), torch.ones(2, 1, 4, 4)
    sizes = [layer.get_mask_sizes(4)]
    whole, _ = layer.update(part, part)
    sizes.append(layer.get_mask_sizes(1))
    keys, _ = layer.update(part[:, :, :1], part[:, :, :1])
    lengths = [whole.shape[2], keys.shape[2], layer.get_seq_length()]
    return layer.sliding_window == 3 and lengths == [4, 3, 5] and sizes == [(4, 0), (3, 2)]


def cache_has_layers(cache: Any) -> bool:
    """A ``DynamicCache`` has a list of layers, of the plain kind unless the model needs another."""
    import torch
    from transformers.cache_utils import DynamicLayer

    made, part = cache(), torch.ones(1, 1, 1, 4)
    made.update(part, part, 0)
    return type(made.layers) is list and [type(layer) for layer in made.layers] == [DynamicLayer]


def attention_is_told(config: Any) -> bool:
    """A configuration records which attention code was requested."""
    return bool(config(attn_implementation="sdpa")._attn_implementation == "sdpa")


def quantizer_says_so(quantizer: Any) -> bool:
    """Loading in few bits sets ``is_quantized`` on the model."""
    return "is_quantized" in quantizer.preprocess_model.__code__.co_consts


def count_is_kept(arguments: Any) -> bool:
    """``TrainingArguments.n_gpu`` returns what ``_n_gpu`` was set to."""

    class Bare(arguments):  # type: ignore[misc]
        _setup_devices = None

        def __init__(self) -> None:
            self._n_gpu = 3

    return bool(Bare().n_gpu == 3)


def callbacks_are_listed(handler: Any) -> bool:
    """A ``CallbackHandler`` lists what it calls."""
    from transformers import DefaultFlowCallback, TrainerCallback

    mine = TrainerCallback()
    return mine in handler([DefaultFlowCallback(), mine], None, None, None, None).callbacks


# ---------------------------------------------------------------------------------------------
# accelerate and torch


def model_is_noted(accelerator: Any) -> bool:
    """``Accelerator.prepare_model`` sets one attribute on the model."""
    import torch

    model = torch.nn.Identity()
    before = set(vars(model))
    accelerator().prepare_model(model, device_placement=False)
    return set(vars(model)) - before == {"_is_accelerate_prepared"}


def leaf_is_told(_: Any) -> bool:
    """The node that accumulates a leaf's gradient has that leaf, and no other node has one."""
    import torch

    leaf = torch.ones(1, requires_grad=True)
    node: Any = leaf.exp().grad_fn
    return node.next_functions[0][0].variable is leaf and not hasattr(node, "variable")


def logger_is_named(module: Any) -> bool:
    """Torch's logger of registered types is named after its module."""
    return bool(module.log.name == module.__name__)


# ---------------------------------------------------------------------------------------------
# torchao and lm-eval


def int8_has_codes(module: Any) -> bool:
    """An eight-bit weight has ``qdata`` and ``scale``."""
    return _has_codes(module.Int8WeightOnlyConfig())


def int4_has_codes(module: Any) -> bool:
    """A four-bit weight has ``qdata`` and ``scale``."""
    import torch

    kind = torch.int4  # type: ignore[attr-defined]
    groups = module.PerGroup(32)
    return _has_codes(module.IntxWeightOnlyConfig(weight_dtype=kind, granularity=groups))


def _has_codes(config: Any) -> bool:
    """Codes times steps is the value of the weight."""
    import torch
    from torchao.quantization import quantize_

    layer = torch.nn.Linear(64, 2, bias=False)
    quantize_(layer, config)
    weight: Any = layer.weight
    steps = weight.scale.repeat_interleave(64 // weight.scale.shape[1], 1)
    same = torch.allclose(weight.qdata * steps, weight.dequantize(), atol=1e-6)
    return weight.qdata.dtype == torch.int8 and same


def index_is_one(manager: Any) -> bool:
    """A ``TaskManager`` has a single index, which can be written to."""
    made = manager(include_defaults=False)
    return type(made.task_index) is dict and made.task_index is made.task_index


def entry_is_whole(module: Any) -> bool:
    """An ``Entry`` is a dataclass with the settings, tags and file of a task."""
    import dataclasses

    names = {field.name for field in dataclasses.fields(module.Entry)}
    return {"cfg", "tags", "yaml_path"} <= names


def task_says_so(task: Any) -> bool:
    """A task that runs code written by the model has ``UNSAFE_CODE``."""
    return "UNSAFE_CODE" in task.__init__.__code__.co_names
