"""Optimisers of the selected weights: torch's element-wise ones, Sophia-G, and 8-bit AdamW.

An optimiser sees compact float32 vectors, one per parameter, of its selected entries only; so any
element-wise optimiser works unmodified. To add one: its class in OPTIMIZERS.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError, choose, no_setting

# They mix the entries of a tensor (or need closures), so compact vectors would give other results.
_NOT_ELEMENTWISE = {"LBFGS", "Adafactor", "Muon", "SparseAdam", "Optimizer"}
_ELSEWHERE = {"lr": "learning_rate", "weight_decay": "weight_decay"}  # with settings of their own


class SophiaG(Optimizer):
    """Sophia-G: steps along the momentum over the curvature, each entry clipped to ``lr``.

    Per entry ``theta <- theta (1 - lr weight_decay)``, ``m <- b1 m + (1 - b1) g``, then
    ``theta <- theta - lr sign(m) min(1, |m| / (rho h + eps))``, with no bias correction. The
    curvature h is 0 until ``update_curvature`` is called; where it is 0 an entry moves by ``lr``.

    Args:
        params: float32 vectors, or groups of them.
        lr: >= 0, the longest step of an entry.
        betas: of the momentum and of the curvature, each in [0, 1).
        rho: > 0; an entry is clipped where ``|m| > rho h``. Smaller clips more.
        eps: > 0, in units of a gradient.
        weight_decay: >= 0, decoupled.

    Raises:
        ValueError: a setting is out of its range.

    Source: Liu et al. 2023, arXiv 2305.14342, algorithms 2 and 3; used for unlearning by Jia et al.
    2024, arXiv 2404.18239, whose code defines h by the objective's own gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        eps: float = 1e-15,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise ValueError("lr and weight_decay must be at least 0")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas is {betas}; give two numbers in [0, 1)")
        if not (rho > 0 and eps > 0):
            raise ValueError("rho and eps must be above 0")
        settings = {
            "lr": lr,
            "betas": betas,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, settings)

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["curvature"] = torch.zeros_like(parameter)
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, beta = group["lr"], group["betas"][0]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state(parameter)
                momentum = state["exp_avg"].lerp_(parameter.grad, 1 - beta)
                parameter.mul_(1 - lr * group["weight_decay"])
                # sign(m) min(1, |m| / d) is m / d clipped, for d > 0
                update = state["curvature"].mul(group["rho"]).add_(group["eps"])
                update = torch.div(momentum, update, out=update).clamp_(-1, 1)
                parameter.add_(update, alpha=-lr)
        return loss

    @torch.no_grad()
    def update_curvature(self, gradients: Mapping[nn.Parameter, Tensor], count: int) -> None:
        """Take in an estimate of the Gauss-Newton diagonal: ``h <- b2 h + (1 - b2) count g g``.

        Args:
            gradients: of the mean NLL over ``count`` records of labels drawn from the model's own
                softmax (Gauss-Newton-Bartlett), by parameter; absent parameters keep their h.
            count: B, how many records the mean is over.
        """
        for group in self.param_groups:
            beta = group["betas"][1]
            for parameter in group["params"]:
                if parameter in gradients:
                    found = gradients[parameter]
                    curvature = self._state(parameter)["curvature"]
                    curvature.mul_(beta).addcmul_(found, found, value=(1 - beta) * count)


OPTIMIZERS: dict[str, type[Optimizer] | str] = {
    **{
        name: value
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, Optimizer) and name not in _NOT_ELEMENTWISE
    },
    "SophiaG": SophiaG,
    # State is kept in 8 bits, scaled per 256 entries, only for vectors of 4096 or more entries
    # (``min_8bit_size``); smaller ones keep 32 bits. Without a GPU, paged ones are not paged.
    "AdamW8bit": "bitsandbytes.optim:AdamW8bit",
    "PagedAdamW": "bitsandbytes.optim:PagedAdamW",
    "PagedAdamW8bit": "bitsandbytes.optim:PagedAdamW8bit",
    "PagedAdamW32bit": "bitsandbytes.optim:PagedAdamW32bit",
}
"""Optimisers by name; ``module:object`` is imported when used."""


# ---------------------------------------------------------------------------------------------
# From settings to an optimiser


def _find(name: str) -> type[Optimizer]:
    found = choose(OPTIMIZERS, name, "element-wise optimizer")
    if not isinstance(found, str):
        return found
    module, attribute = found.split(":")
    try:
        kind: type[Optimizer] = getattr(import_module(module), attribute)
    except ImportError:
        raise WagleError(f"{name} needs bitsandbytes: pip install 'wagle[8bit]'") from None
    return kind


def _check_settings(training: Training, known: Mapping[str, Any]) -> None:
    name = training.optimizer
    for key in training.optimizer_settings:
        if key in _ELSEWHERE:
            raise WagleError(f"optimizer_settings.{key} is not a setting; set {_ELSEWHERE[key]}")
        if key not in known or key == "params":
            raise no_setting(f"cannot make {name}: it", key, known, listed="")
    if training.weight_decay and "weight_decay" not in known:
        raise WagleError(f"{name} has no weight decay; set weight_decay: 0")


def make_optimizer(groups: list[dict[str, Any]], training: Training) -> Optimizer:
    """Build the optimiser of a run.

    Args:
        groups: each with ``params``, float32 vectors, and ``decay``, whether weight decay applies
            to them; a group without parameters is skipped.
        training: the optimiser's name and settings.

    Raises:
        WagleError: the name or a setting is unknown or out of range, or a library is missing.
    """
    kind = _find(training.optimizer)
    known = inspect.signature(kind).parameters
    _check_settings(training, known)
    fused = {"fused": True} if "fused" in known else {}  # one pass over memory instead of ten
    settings = {"lr": training.learning_rate, **fused, **training.optimizer_settings}
    made = []
    for group in groups:
        decay = training.weight_decay if group["decay"] else 0.0
        if group["params"]:
            extra = {"weight_decay": decay} if "weight_decay" in known else {}
            made.append({"params": group["params"], **extra})
    try:
        return kind(made, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WagleError(f"cannot make {training.optimizer} with {settings}: {error}") from None


def check_optimizer(training: Training) -> None:
    """Refuse an optimiser or settings that cannot be made, before anything is computed."""
    probe = nn.Parameter(torch.zeros(1))
    make_optimizer([{"params": [probe], "decay": True}], training)


# ---------------------------------------------------------------------------------------------
# The state of an optimiser, without a pickle


def save_optimizer(
    optimizer: Optimizer, sizes: list[list[int]] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimiser as tensors, and the rest in a form that JSON can hold.

    Args:
        optimizer: one of OPTIMIZERS, not wrapped.
        sizes: of its parameters, by group, if it holds only parts of them; None: their own.

    Returns:
        The tensors by ``NUMBER::NAME``, such as ``0::exp_avg``, with NUMBER counting the parameters
        across all groups. They are the optimiser's own, not copies (it holds up to two numbers per
        selected weight): write them out before the next step. And the rest: the optimiser's name,
        the sizes of its parameters, the settings of each group, the values that are not tensors.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        # ``state.get``: indexing the defaultdict would create a state for a parameter without one
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{number}::{name}"] = value.detach()
            else:
                values.setdefault(str(number), {})[name] = value
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return tensors, {**_layout(optimizer, sizes), "groups": groups, "values": values}


def load_optimizer(
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    rest: Mapping[str, Any],
    sizes: list[list[int]] | None = None,
) -> None:
    """Restore the state that ``save_optimizer`` took; the optimiser then continues bit for bit.

    Args:
        optimizer: of the same kind, over parameters of the same sizes in the same order.
        tensors: as saved; those already on their parameter's device are used directly, not copied.
        rest: as saved, with or without a round trip through JSON.
        sizes: as for ``save_optimizer``.

    Raises:
        WagleError: the state is another optimiser's, or is for other parameters.
    """
    layout = _layout(optimizer, sizes)
    if any(rest.get(key) != value for key, value in layout.items()):
        raise WagleError(
            f"the saved optimizer state is for {_described(rest)}, but this run has "
            f"{_described(layout)}; resume with the settings and the mask that it was saved with"
        )
    state: dict[int, dict[str, Any]] = {}
    for number, values in rest["values"].items():
        state.setdefault(int(number), {}).update(values)
    for key, tensor in tensors.items():
        number, name = key.split("::", 1)
        state.setdefault(int(number), {})[name] = tensor
    groups, start = [], 0
    for group, sizes in zip(rest["groups"], rest["sizes"], strict=True):
        # JSON has no tuples; every setting that is a sequence (betas, etas) is one
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in group.items()}
        groups.append({**settings, "params": list(range(start, start + len(sizes)))})
        start += len(sizes)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _layout(optimizer: Optimizer, sizes: list[list[int]] | None) -> dict[str, Any]:
    if sizes is None:
        sizes = [[p.numel() for p in group["params"]] for group in optimizer.param_groups]
    return {"optimizer": type(optimizer).__name__, "sizes": sizes}


def _described(layout: Mapping[str, Any]) -> str:
    sizes = [size for group in layout.get("sizes", []) for size in group]
    return f"{layout.get('optimizer')} on {sum(sizes)} weights in {len(sizes)} tensors"
