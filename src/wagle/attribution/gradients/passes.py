"""Passes: one sweep over a set of records, and the quantities that it yields.

A pass says what to sum, a job how to compute; the engines decide how to run the model over the
records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wagle.attribution.quantities import COLLECTED
from wagle.data.batches import collate, token_batches
from wagle.data.tokens import Tokens
from wagle.model.structure import find_blocks
from wagle.system.errors import WagleError, choose


@dataclass(frozen=True)
class Job:
    """How to compute.

    Attributes:
        batch_tokens: padded tokens per backward pass.
        precision: for matrix products, a name in DTYPES.
        dtype: how the weights are held, a name in DTYPES.
        device: where to compute.
        attention: which attention code to use, as in ``load_model``.
        trust: whether the code of a model folder may run.
    """

    batch_tokens: int = 512
    precision: str = "float32"
    dtype: str = "float32"
    device: str = "cpu"
    attention: str = "auto"
    trust: bool = False


@dataclass(frozen=True)
class Pass:
    """One sweep over the records of a set.

    Attributes:
        set: its name.
        tokens: its records.
        kinds: what is summed, and the name of the resulting quantity.
        group: records per backward pass, in record order; 0 takes as many as the budget allows.
    """

    set: str
    tokens: Sequence[Tokens]
    kinds: Mapping[str, str]
    group: int = 0

    def batches(self, batch_tokens: int) -> list[dict[str, Tensor]]:
        """The records as padded batches; a group is one batch, whatever its size."""
        if not self.group:
            return token_batches(self.tokens, batch_tokens, multiple=1)
        every = range(len(self.tokens))
        groups = [every[i : i + self.group] for i in every[:: self.group]]
        return [collate([self.tokens[i] for i in group], group, multiple=1) for group in groups]

    @property
    def backward(self) -> bool:
        """Whether gradients are needed at all."""
        return bool({"mean", "square"} & set(self.kinds))

    def groups(self) -> int:
        """How many groups a mean of squares covers."""
        return -(-len(self.tokens) // self.group)


def plan_passes(quantities: Sequence[str], sets: Mapping[str, Sequence[Tokens]]) -> list[Pass]:
    """The fewest passes that collect ``quantities``: those with one set and grouping share a pass.

    A mean gradient does not depend on groups, so it comes from a grouped pass over its set if there
    is one.
    """
    plan: dict[tuple[str, int], dict[str, str]] = {}
    origins = {q: choose(COLLECTED, q, "quantity") for q in quantities}
    for quantity, origin in sorted(origins.items(), key=lambda item: -item[1].group):
        fitting = [key for key in plan if key[0] == origin.set]
        key = (origin.set, origin.group)
        if not origin.group and fitting:  # the smallest groups: that pass is slow anyway
            key = fitting[-1]
        plan.setdefault(key, {})[origin.kind] = quantity
    return [Pass(name, sets[name], kinds, group) for (name, group), kinds in sorted(plan.items())]


@contextlib.contextmanager
def _attached(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Register hooks as they come, and remove them at the end."""
    handles = list(hooks)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Sums:
    """The float32 sums of one pass over some parameters; a hook adds each gradient as it comes.

    A gradient is freed as soon as it is added, so only one dense gradient is alive besides the
    sums. Every backward pass is of the mean over a batch; set its share of the records with
    ``share`` beforehand.
    """

    def __init__(self, which: Pass, parameters: Mapping[str, nn.Parameter]) -> None:
        self.which = which
        self.parameters = dict(parameters)
        self.share = 1.0
        self.found: dict[str, dict[str, Tensor]] = {
            quantity: {} for kind, quantity in which.kinds.items() if kind != "inputs"
        }
        # one piece of memory per quantity: sums allocated one by one would be scattered among
        # activations, whose memory could then not be returned
        self._room = {quantity: self._arena() for quantity in self.found}

    def _arena(self) -> dict[str, Tensor]:
        sizes = [p.numel() for p in self.parameters.values()]
        device = next(iter(self.parameters.values())).device
        whole = torch.empty(sum(sizes), device=device)  # resident only once it is written
        parts = zip(self.parameters.items(), whole.split(sizes), strict=True)
        return {name: part.view(p.shape) for (name, p), part in parts}

    def hooked(self) -> AbstractContextManager[None]:
        """Take every gradient as soon as it is complete."""
        return _attached(
            p.register_post_accumulate_grad_hook(lambda p, name=name: self.take(name, p))
            for name, p in self.parameters.items()
        )

    def take(self, name: str, parameter: Tensor) -> None:
        """Add the gradient of one parameter to the sums, in float32, and free it."""
        gradient = parameter.grad
        parameter.grad = None
        if gradient is None:
            return
        if "square" in self.which.kinds:
            self._add(
                self.which.kinds["square"], name, gradient.float() ** 2, 1 / self.which.groups()
            )
        if "mean" in self.which.kinds:
            self._add(self.which.kinds["mean"], name, gradient, self.share)

    def _add(self, quantity: str, name: str, value: Tensor, share: float) -> None:
        sums = self.found[quantity]
        if name in sums:
            sums[name].add_(value, alpha=share)
        else:
            sums[name] = self._room[quantity][name].copy_(value)
            if share != 1:
                sums[name].mul_(share)

    def start(self, found: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Resume from sums that an earlier part of the pass left."""
        for quantity, tensors in found.items():
            for name, tensor in tensors.items():
                self.found[quantity][name] = self._room[quantity][name].copy_(tensor)

    def finish(self, names: Iterable[str] | None = None) -> dict[str, dict[str, Tensor]]:
        """The finished quantities by parameter, on the CPU; an unused parameter has zeros.

        ``names`` are the parameters that are finished; None means all.
        """
        done: dict[str, dict[str, Tensor]] = {}
        for quantity, sums in self.found.items():
            done[quantity] = {}
            for name in self.parameters if names is None else names:
                total = sums.pop(name, None)
                if total is None:  # its hook never fired
                    total = torch.zeros(self.parameters[name].shape)
                elif not torch.isfinite(total.sum()) and not torch.isfinite(total).all():
                    raise WagleError(
                        f"the gradient of {name} on the {self.which.set} set is not finite; "
                        "try float32"
                    )
                done[quantity][name] = total.cpu()
        return done


# ---------------------------------------------------------------------------------------------
# Inputs of linear layers


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers (``nn.Linear``, ``Conv1D``) in the blocks, by the name of their weight."""
    _, blocks = find_blocks(model)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(module.weight)]: module
        for module in blocks.modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) in names
    }


def transposed(model: nn.Module) -> list[str]:
    """Parameters with outputs in the last dimension: weights of ``Conv1D``, (in, out)."""
    layers = {id(m.weight) for m in model.modules() if isinstance(m, Conv1D)}
    return [name for name, p in model.named_parameters() if id(p) in layers]


class Inputs:
    """Mean over records of the squared inputs of linear layers, summed over real tokens.

    Source: Sun et al. 2023, arXiv 2306.11695 (Wanda), there without padding.
    """

    def __init__(self, which: Pass, layers: Mapping[str, nn.Module]) -> None:
        self.which, self.layers = which, dict(layers)
        self.quantity = which.kinds["inputs"]
        self.real: Tensor | None = None  # (B, T) of the current batch
        self.found: dict[str, Tensor] = {}

    def hooked(self) -> AbstractContextManager[None]:
        """Observe the input of each layer."""
        return _attached(
            layer.register_forward_pre_hook(lambda _, args, name=name: self._look(name, args[0]))
            for name, layer in self.layers.items()
        )

    def _look(self, name: str, entered: Tensor) -> None:
        assert self.real is not None
        rows = entered.detach().reshape(-1, entered.shape[-1])  # (B T, in)
        real = self.real.reshape(-1)
        if len(rows) != len(real):
            raise WagleError(
                f"{name} sees {len(rows)} positions instead of {len(real)}, so padding cannot be "
                "recognised; leave input_square out for this model"
            )
        total = rows[real.bool()].float().square().sum(0) / len(self.which.tokens)
        self.found[name] = self.found[name] + total if name in self.found else total

    def finish(self) -> dict[str, dict[str, Tensor]]:
        """``(1, in)`` for a Linear, ``(in, 1)`` for a Conv1D, so that it broadcasts to the weight."""
        done = {
            name: self.found.pop(name).cpu().unsqueeze(-1 if isinstance(layer, Conv1D) else 0)
            for name, layer in self.layers.items()
            if name in self.found
        }
        return {self.quantity: done}


def check_loss(nll: Tensor, batch: Mapping[str, Any], tokens: Sequence[Tokens]) -> None:
    """Refuse to continue after a record whose loss is not finite."""
    if not torch.isfinite(nll).all():
        bad = int(batch["index"][~torch.isfinite(nll.cpu())][0])
        raise WagleError(f"the loss of {tokens[bad].place} is not finite; check the model")
