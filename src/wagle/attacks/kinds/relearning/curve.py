"""The curve: a model's figures while it is taught; afterwards the model is restored."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.records import Source
from wagle.data.tokens import Encoder
from wagle.model.streaming.opening import is_streamed, stream_of
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.system.memory import Spill
from wagle.unlearning.lora import add_lora
from wagle.unlearning.teaching import finetune

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Curve:
    """The figures of a model being relearned, step by step.

    Attributes:
        points: the figures after each requested step, from step 0, the model before.
        losses: per step, from the first, the mean NLL in nats of that step's records, measured
            before it.
        changed: how many weights (with LoRA, of the adapter) differed at the end.
    """

    points: Mapping[int, Mapping[str, float]]
    losses: Sequence[float]
    changed: int

    def rise(self, figure: str) -> dict[int, float]:
        """How far a figure lies above its value at step 0, for every step."""
        if figure not in self.points[0]:
            raise WagleError(
                f"the curve has no figure {figure!r} (it has {', '.join(sorted(self.points[0]))})"
            )
        return {step: found[figure] - self.points[0][figure] for step, found in self.points.items()}


def relearn(
    model: PreTrainedModel,
    encoder: PreTrainedTokenizerBase | Encoder | None,
    records: Source,
    *,
    steps: Sequence[int] = STEPS,
    learning_rate: float = 1e-5,
    batch_size: int = 4,
    lora: bool = False,
    seed: int = 0,
    evaluate: Callable[[nn.Module], Mapping[str, float]],
) -> Curve:
    """Teach a model records and measure it along the way; afterwards it is restored bit for bit.

    AdamW without weight decay and without a mask, at a constant rate, so that a point of the curve
    does not depend on the steps that follow. No copy of the model is in memory: the old values wait
    in a temporary file, and with LoRA the model's own weights do not move. Of a streamed model, the new
    values lie over its folder while this runs.

    Args:
        model: a live causal model without an adapter, its weights not quantised. It is changed in
            place while this runs; all its weights are trained, including frozen ones.
        encoder: an ``Encoder``, or a fast tokenizer; None for pre-tokenised records.
        records: what is taught, such as ``pick_exact(...).records``; repeated as often as the steps
            need. The order is a function of (seed, epoch, record id).
        steps: the steps after which the model is measured: ascending from 0.
        learning_rate: > 0; the same default is gentle for LoRA.
        batch_size: records per step, >= 1.
        lora: train an adapter on all linear layers except the head, with the defaults of
            ``add_lora``.
        seed: for the order of the records and the adapter's initial weights.
        evaluate: measures the live model, which is in evaluation mode; it runs without gradients
            and cannot ask for any.

    Raises:
        WagleError: steps or settings are invalid, the model cannot be trained, records do not fit,
            or a figure is not finite.
        TrainingStopped: a loss is not finite. The model is restored in this case, too.
    """
    check_budget(steps, learning_rate, batch_size, lora)
    _check_plain(model, lora)
    points = {0: _look(model, evaluate, 0)}
    if steps[-1] == 0:
        return Curve(points, [], 0)
    training = Training(
        max_steps=steps[-1], learning_rate=learning_rate, batch_size=batch_size, weight_decay=0.0
    )
    wanted = set(steps)

    def on_step(figures: Mapping[str, Any]) -> None:
        if figures["step"] in wanted:
            points[figures["step"]] = _look(model, evaluate, figures["step"])

    with _restored(model, values=not lora), _adapted(model, lora, seed) as trained:
        result = finetune(trained, encoder, records, seed=seed, on_step=on_step, training=training)
    return Curve(points, [step["retain_nll"] for step in result.history], result.changed)


def check_budget(
    steps: Sequence[int], learning_rate: float, batch_size: int, lora: bool = False
) -> None:
    """Refuse an invalid budget, and an adapter whose package is missing.

    Args:
        steps: ascending from 0.
        learning_rate: > 0, finite.
        batch_size: >= 1.
        lora: train an adapter.
    """
    if lora and importlib.util.find_spec("peft") is None:
        raise WagleError("relearning with lora needs peft: pip install 'wagle[lora]'")
    if not 0 < learning_rate < math.inf or batch_size < 1:
        raise WagleError(
            f"learning_rate is {learning_rate} and batch_size {batch_size}; give a rate above 0 and "
            "a size of at least 1"
        )
    ascending = all(one < other for one, other in pairwise(steps))
    if not steps or steps[0] != 0 or not ascending:
        raise WagleError(f"steps is {list(steps)}; start with 0, the model before, and ascend")


def _check_plain(model: nn.Module, lora: bool) -> None:
    if hasattr(model, "disable_adapter"):
        raise WagleError("relearning needs a model without an adapter; merge it with merge_lora")
    if lora and is_streamed(model):
        raise WagleError(
            "relearning with lora needs the model in memory, but only one block of it is there; leave "
            "lora out, or set evaluation.engine: whole"
        )
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or type(parameter.data) is not Tensor:
            raise WagleError(
                f"{name} is quantised, so it cannot be trained; relearn first, then quantise"
            )


def _look(
    model: nn.Module, evaluate: Callable[[nn.Module], Mapping[str, float]], step: int
) -> dict[str, float]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = dict(evaluate(model))
    finally:
        model.train(training)
    for name, value in found.items():
        if not math.isfinite(value):
            raise WagleError(
                f"{name} is {value} after {step} steps of relearning; lower the learning rate, or "
                "leave the figure out"
            )
    return found


@contextmanager
def _restored(model: nn.Module, *, values: bool) -> Iterator[None]:
    """Let every weight require a gradient; afterwards restore the flags and ``values``.

    The blocks of a streamed model are as they were in their folder once nothing lies over them.
    """
    parameters, stream = dict(model.named_parameters()), stream_of(model)
    laid = None if stream is None else (stream.overlay, stream.trained)
    flags = {name: p.requires_grad for name, p in parameters.items()}
    before = Spill(0)
    try:
        for name, parameter in parameters.items():
            if values and not parameter.is_meta:
                before[name] = parameter
            parameter.requires_grad_(True)
        yield
    finally:
        if stream is not None and laid is not None:
            stream.overlay, stream.trained = laid
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.grad = None
                parameter.requires_grad_(flags[name])
                if name in before:
                    parameter.copy_(before[name])
        before.close()


@contextmanager
def _adapted(model: PreTrainedModel, lora: bool, seed: int) -> Iterator[Any]:
    """What is trained: the model, or an adapter that is temporarily added to it."""
    if not lora:
        yield model
        return
    adapted = add_lora(model, seed=seed)
    try:
        yield adapted
    finally:
        adapted.unload()
