"""What objectives take and return: losses per record, distributions, activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wagle.model.scoring import sum_per_record

_ROWS = 64  # positions that are widened to float32 at once
_LOG_ZERO = -1e4  # stands for log 0: its exponential is 0 in float32, its products are finite


class Terms(NamedTuple):
    """The loss per record: ``forget`` (B_f,) and ``retain`` (B_r,), float32, or None."""

    forget: Tensor | None
    retain: Tensor | None


class Distribution(NamedTuple):
    """Next-token distributions of the original model at scored positions, without gradient.

    Complete, or the largest K log-probabilities of each position (always including the true token)
    and the total mass of the others.

    Attributes:
        log_probs: (n, V) or (n, K) float32.
        tokens: (n, K) int64, the tokens they belong to; None if complete and in order.
        tail: (n,) float32, the log of the mass of the others; None if complete.
    """

    log_probs: Tensor
    tokens: Tensor | None = None
    tail: Tensor | None = None

    def of(self, logits: Tensor) -> Tensor:
        """The log-probabilities of ``logits`` (n, V) over the same events, float32, finite.

        (n, V) for a complete distribution; else (n, K + 1), the last being "any other token".
        """
        log_probs = logits.float().log_softmax(-1)
        if self.tokens is None:
            return log_probs.clamp(min=_LOG_ZERO)
        own = log_probs.gather(-1, self.tokens)
        if self.tokens.shape[-1] == logits.shape[-1]:  # no others; the sum below would be log 0,
            others = own.new_full((len(own), 1), _LOG_ZERO)  # whose gradient is NaN
        else:  # summed over the others, as 1 - sum would lose small values
            others = log_probs.scatter(-1, self.tokens, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([own, others], -1).clamp(min=_LOG_ZERO)

    def events(self) -> Tensor:
        """Its own log-probabilities over the events of ``of``, finite."""
        known = self.log_probs
        if self.tail is not None:
            known = torch.cat([known, self.tail.unsqueeze(-1)], -1)
        return known.clamp(min=_LOG_ZERO)

    def split(self, rows: int) -> list[Distribution]:
        """Parts of ``rows`` positions each, in order, as ``Tensor.split`` makes them."""
        parts = self.log_probs.split(rows)
        tokens = [None] * len(parts) if self.tokens is None else self.tokens.split(rows)
        tails = [None] * len(parts) if self.tail is None else self.tail.split(rows)
        return [Distribution(*part) for part in zip(parts, tokens, tails, strict=True)]


class Hidden(NamedTuple):
    """The output of a block at the real positions of a batch, records concatenated.

    Attributes:
        states: (m, d) float32.
        length: (B,) int64, how many positions each record has.
    """

    states: Tensor
    length: Tensor

    def mean_per_record(self, values: Tensor) -> Tensor:
        """Means of per-position ``values`` (m,) over the positions of each record: (B,)."""
        return sum_per_record(values, self.length) / self.length


def per_position(
    function: Callable[..., Tensor], logits: Tensor, *others: Tensor | Distribution
) -> Tensor:
    """A function of the logits at each position, computed a few positions at a time.

    The function's intermediate results are recomputed in the backward pass, so there is never a
    full float32 copy of the logits over a large vocabulary.

    Args:
        function: from rows (k, V) of the logits, in their own dtype, and the same rows of
            ``others``, to (k,).
        logits: (n, V).
        others: tensors with n positions each.

    Returns:
        (n,), with a gradient to ``logits``.
    """
    parts: Any = zip(*(given.split(_ROWS) for given in (logits, *others)), strict=True)
    values = [
        checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.cat(values)


def forward_kl(reference: Distribution, logits: Tensor) -> Tensor:
    """``KL(reference || model)`` at every position: (n,) float32, in nats, >= 0.

    Over the largest K tokens and "any other" it is a lower bound of the one over all tokens. It is
    zero, with zero gradient, where the model equals the reference.
    """
    return per_position(_forward_kl, logits, reference)


def jensen_shannon(reference: Distribution, logits: Tensor) -> Tensor:
    """``JSD(model, reference)`` at every position: (n,) float32, in nats, 0 to ln 2.

    ``(KL(model || m) + KL(reference || m)) / 2`` with m their mean; over the largest K tokens and
    "any other" it is a lower bound of the one over all tokens.
    """
    return per_position(_jensen_shannon, logits, reference)


def _forward_kl(logits: Tensor, reference: Distribution) -> Tensor:
    known = reference.events()
    return (known.exp() * (known - reference.of(logits))).sum(-1)


def _jensen_shannon(logits: Tensor, reference: Distribution) -> Tensor:
    known, ours = reference.events(), reference.of(logits)
    middle = torch.logaddexp(known, ours) - math.log(2)
    return (known.exp() * (known - middle) + ours.exp() * (ours - middle)).sum(-1) / 2
