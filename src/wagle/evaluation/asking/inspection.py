"""Inside an answer: hidden states after every block, and norms of gradients."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wagle.data.batches import collate
from wagle.data.tokens import Tokens
from wagle.evaluation.asking.requests import (
    GradientNorm,
    HiddenStates,
    NormAnswer,
    StatesAnswer,
    not_finite,
)
from wagle.model.scoring import answer_nll
from wagle.model.structure import device_of, find_blocks, to_device


def answer_states(model: PreTrainedModel, requests: Sequence[HiddenStates]) -> list[StatesAnswer]:
    """The residual stream after each block at the asked positions of one batch, in float32."""
    device = device_of(model)
    tokens = [Tokens(r.ids, (False,) * len(r.ids)) for r in requests]
    batch = to_device(collate(tokens, range(len(tokens)), multiple=1), device)
    kept: list[list[Tensor]] = []
    here = threading.get_ident()

    def keep(_: object, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        if threading.get_ident() != here:  # another batch, in step with this one
            return
        states = output if isinstance(output, Tensor) else output[0]  # (B, T, width)
        kept.append(
            [states[row, list(r.positions)].float().cpu() for row, r in enumerate(requests)]
        )

    handles = [block.register_forward_hook(keep) for block in find_blocks(model)[1]]
    try:
        model.base_model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
        )
    finally:
        for handle in handles:
            handle.remove()
    return [StatesAnswer(torch.stack([layer[row] for layer in kept])) for row in range(len(tokens))]


def answer_norm(model: PreTrainedModel, request: GradientNorm) -> NormAnswer:
    """The norms of the gradient of the mean NLL with respect to all weights, one request a pass.

    Each parameter's gradient is squared, added up and freed as soon as it is computed, so at most
    the largest is in memory next to the activations.
    """
    batch = norm_batch(request, device_of(model))
    squares: list[float] = []

    def take(parameter: Tensor) -> None:
        assert parameter.grad is not None
        squares.append(float(parameter.grad.float().square().sum(dtype=torch.float64)))
        parameter.grad = None

    parameters = [p for p in model.parameters() if p.is_floating_point()]
    asked = [p.requires_grad for p in parameters]
    before = [p.grad for p in parameters]
    handles = []
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
            handles.append(parameter.register_post_accumulate_grad_hook(take))
        with torch.enable_grad():
            answer_nll(model, batch).nll_mean.sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter, wanted, old in zip(parameters, asked, before, strict=True):
            parameter.requires_grad_(wanted)
            parameter.grad = old
    return norm_answer(model, request, squares)


def norm_batch(request: GradientNorm, device: torch.device) -> dict[str, Any]:
    """The batch whose loss has the gradient that is asked for."""
    tokens = Tokens(
        (*request.context, *request.continuation),
        (
            *(False,) * len(request.context),
            *(request.scored or (True,) * len(request.continuation)),
        ),
    )
    return to_device(collate([tokens], [0], multiple=1), device)


def norm_answer(
    model: PreTrainedModel, request: GradientNorm, squares: Sequence[float]
) -> NormAnswer:
    """The answer, from the squared norm of every parameter's gradient."""
    total = sum(squares) ** 0.5
    if not total < float("inf"):
        raise not_finite("gradients", model.dtype, model, request.place)
    return NormAnswer(total, sum(s**0.5 for s in squares) / len(squares))
