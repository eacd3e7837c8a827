"""Norms of gradients with one block in memory: all requests on one way there and one way back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.evaluation.asking.batching import Found
from wagle.evaluation.asking.inspection import norm_answer, norm_batch
from wagle.evaluation.asking.requests import GradientNorm
from wagle.model.scoring import answer_nll
from wagle.model.streaming.opening import stream_of
from wagle.model.structure import device_of
from wagle.system.errors import WagleError


@dataclass
class _Asked:
    """A request on its way.

    Attributes:
        request: it.
        squares: the squared norms of what is complete, by parameter.
        rows: where the embedding is the head too: its rows for the request's tokens, from the head.
    """

    request: GradientNorm
    squares: dict[str, float] = field(default_factory=dict)
    rows: Tensor | None = None


class Norms:
    """The gradients of some requests; each is squared, added up and freed at once.

    Args:
        model: a streamed model in eval mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        stream = stream_of(model)
        assert stream is not None
        self._model, self._stream = model, stream
        self._outer = {name: model.get_parameter(name) for name in stream.outer}
        self._asked: dict[str, _Asked] = {}

    @contextlib.contextmanager
    def wanted(self) -> Iterator[None]:
        """Let every parameter of the model require a gradient."""
        parameters = [p for p in self._model.parameters() if p.is_floating_point()]
        asked = [(p, p.requires_grad, p.grad) for p in parameters]
        trained, self._stream.trained = (
            self._stream.trained,
            {name for names in self._stream.names for name in names},
        )
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
                parameter.grad = None
            yield
        except BaseException:
            self._stream.forget()
            raise
        finally:
            self._stream.trained = trained
            for parameter, wanted, grad in asked:
                parameter.requires_grad_(wanted)
                parameter.grad = grad

    def go(self, request: GradientNorm) -> Found:
        """The way there: the loss, and its gradient down to the last block; no answer yet."""
        slot = str(len(self._asked))
        one = self._asked[slot] = _Asked(request)
        batch = norm_batch(request, device_of(self._model))
        with torch.enable_grad():
            answer_nll(self._model, batch).nll_mean.sum().backward()
        tied = self._model.get_input_embeddings().weight
        for name, parameter in self._outer.items():
            if parameter.grad is None:
                continue
            if parameter is tied:
                one.rows = parameter.grad[_ids(request, parameter.device)].clone()
            one.squares[name] = _square(parameter)
        self._stream.collect(slot)
        return []

    def finish(self) -> Found:
        """The way back, and the answers."""
        if self._asked:
            self._stream.backward(self._take, self._into)
        return [
            (one.request, norm_answer(self._model, one.request, [*one.squares.values()]))
            for one in self._asked.values()
        ]

    def _take(self, name: str, parameter: nn.Parameter, slot: str) -> None:
        self._asked[slot].squares[name] = _square(parameter)

    @contextlib.contextmanager
    def _into(self, slot: str) -> Iterator[None]:
        """The gradients of the stem, which belong to a slot."""
        one = self._asked[slot]
        yield
        for name, parameter in self._outer.items():
            if parameter.grad is None:
                continue
            if name not in one.squares:
                one.squares[name] = _square(parameter)
            elif one.rows is not None:
                own = parameter.grad[_ids(one.request, parameter.device)]
                parameter.grad = None  # it is 0 elsewhere
                one.squares[name] += _sum(own + one.rows) - _sum(one.rows)
                one.rows = None
            else:
                raise WagleError(
                    f"{name} belongs to the stem and the head of {type(self._model).__name__}; ask "
                    "for norms of gradients with evaluation.engine: whole"
                )


def _ids(request: GradientNorm, device: torch.device) -> Tensor:
    """The distinct tokens of a request."""
    return torch.tensor(sorted({*request.context, *request.continuation}), device=device)


def _square(parameter: nn.Parameter) -> float:
    assert parameter.grad is not None
    found = _sum(parameter.grad)
    parameter.grad = None
    return found


def _sum(grad: Tensor) -> float:
    return float(grad.float().square().sum(dtype=torch.float64))
