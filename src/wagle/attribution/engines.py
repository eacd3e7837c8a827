"""Engines: how the gradients of a model are made.

An engine takes the model and the tokens of each set and yields parts, (set, gradients by
parameter name), each float32 on the CPU and finished. To add one: a function here, its entry in
ENGINES, a test that its numbers equal those of ``whole``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from wagle.data.batches import token_batches
from wagle.data.tokens import Tokens
from wagle.errors import WagleError
from wagle.model import answer_nll, check_device, precision, to_device, without_dropout
from wagle.progress import track

Part: TypeAlias = tuple[str, dict[str, Tensor]]
Engine: TypeAlias = Callable[[nn.Module, Mapping[str, Sequence[Tokens]], int, str], Iterator[Part]]


def whole(
    model: nn.Module, sets: Mapping[str, Sequence[Tokens]], batch_tokens: int, dtype: str
) -> Iterator[Part]:
    """The model in memory: one pass over each set, every gradient added to a float32 buffer.

    A hook moves a parameter's gradient into its buffer as soon as it is complete and frees it, so
    beside the buffers only one dense gradient is alive. Padding, batch size and order do not
    change the result beyond floating point.
    """
    for name, tokens in sets.items():
        yield name, _mean_gradients(model, name, tokens, batch_tokens, dtype)


def _mean_gradients(
    model: nn.Module, name: str, tokens: Sequence[Tokens], batch_tokens: int, dtype: str
) -> dict[str, Tensor]:
    buffers: dict[str, Tensor] = {}
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    handles = []
    for key, parameter in parameters.items():

        def move(p: Tensor, key: str = key) -> None:
            assert p.grad is not None
            if key in buffers:
                buffers[key] += p.grad  # in float32, whatever the dtype of the gradient
            else:
                buffers[key] = (
                    p.grad.float().clone() if p.grad.dtype == torch.float32 else p.grad.float()
                )
            p.grad = None

        handles.append(parameter.register_post_accumulate_grad_hook(move))
    device = check_device(model)
    training = model.training
    model.eval()
    try:
        with without_dropout(model):
            batches = token_batches(tokens, batch_tokens)
            for batch in track(batches, f"{name} gradients", size=lambda b: len(b["index"])):
                with precision(device, dtype):
                    nll = answer_nll(model, to_device(batch, device)).nll_mean  # (B,)
                if not torch.isfinite(nll).all():
                    bad = int(batch["index"][~torch.isfinite(nll.cpu())][0])
                    raise WagleError(
                        f"the loss of {tokens[bad].place} is not finite; check the model"
                    )
                (nll.sum() / len(tokens)).backward()
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    for key, parameter in parameters.items():
        if key not in buffers:  # an unused parameter never fires its hook
            buffers[key] = torch.zeros(parameter.shape)
        elif not torch.isfinite(buffers[key]).all():
            raise WagleError(f"the gradient of {key} on the {name} set is not finite; try float32")
    return {key: buffers[key].cpu() for key in parameters}


ENGINES: dict[str, Engine] = {"whole": whole}
