"""Distributions: objectives on the whole distribution at a position, not just the true token.

Each function is a forget term, a loss per forget record, (B_f,) float32, or the retain term that
goes with one, (B_r,), or ``Terms`` if the two are inseparable. Logits (n, V) are those that predict
the scored tokens, in any dtype, and are widened to float32 a few positions at a time.
To add one: a function here, its entry in DISTRIBUTIONS, and a test.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wagle.model.scoring import Scored
from wagle.unlearning.objectives.entry import Dual, Objective
from wagle.unlearning.objectives.shapes import (
    Distribution,
    Terms,
    forward_kl,
    jensen_shannon,
    per_position,
)


def kl_ascent(forget: Scored, forget_logits: Tensor, forget_logits_ref: Distribution) -> Tensor:
    """Move away from the original model: minus the mean over tokens of ``KL(original || model)``.

    Unbounded below: it needs a stop rule. At the original weights its gradient is zero, so only the
    retain term or rounding gets it started.

    Args:
        forget: B_f records under the trained model.
        forget_logits: (n, V), the logits that predict their scored tokens.
        forget_logits_ref: the same from the original model.

    Source: ``KL`` in the code of arXiv 2410.17509, with a divergence instead of its cross-entropy.
    """
    return -forget.mean_per_record(forward_kl(forget_logits_ref, forget_logits))


def undial(
    forget: Scored,
    forget_tokens: Tensor,
    forget_logits: Tensor,
    forget_logits_ref: Distribution,
    *,
    beta: float = 10.0,
) -> Tensor:
    """Distil the original model with the true token's logit lowered by ``beta``.

    Mean over tokens of the cross-entropy to ``q = softmax(z_ref - beta e_true)``. All other tokens
    keep their proportions.

    Args:
        forget: B_f records under the trained model.
        forget_tokens: (n,) int64, their scored tokens.
        forget_logits: (n, V), the logits that predict them.
        forget_logits_ref: the same from the original model; if only the largest K tokens are kept,
            it distils those and the mass of the others.
        beta: >= 0, in nats; at 0 it distils the original model.

    Source: Dong et al. 2024, arXiv 2402.10052, UNDIAL.
    """
    lowered = functools.partial(_undial, beta=beta)
    loss = per_position(lowered, forget_logits, forget_logits_ref, forget_tokens)
    return forget.mean_per_record(loss)


def max_entropy(forget: Scored, forget_logits: Tensor) -> Tensor:
    """Maximise entropy: mean over tokens of ``KL(uniform || model) = -ln V - mean_v log p_v``.

    Args:
        forget: B_f records under the trained model.
        forget_logits: (n, V), the logits that predict their scored tokens.

    Source: Yuan et al. 2024, arXiv 2410.08109, ME; theirs scores prompt and padding as well.
    """
    return forget.mean_per_record(per_position(_from_uniform, forget_logits))


def pdu(
    forget: Scored,
    forget_logits: Tensor,
    retain: Scored,
    dual: float,
    *,
    epsilon: float = 0.3,
    eta: float = 5.0,
    warmup: float = 2.5,
    dual_start: float = 100.0,
) -> Terms:
    """Primal-dual unlearning: flat forget-set logits while the retain NLL is at most epsilon.

    Mean over tokens of ``(max_v z_v - mean_v z_v)^2`` per forget record, ``dual * (M - epsilon)``
    per retain record. ``dual`` starts at ``dual_start`` and, after the warm-up, moves with every
    optimiser step: ``max(0, dual + eta (retain NLL - epsilon))``. It prices the retain NLL, so no
    other retain term can replace it.

    Args:
        forget: B_f records under the trained model.
        forget_logits: (n, V), the logits that predict their scored tokens.
        retain: B_r records; ``nll_mean`` is (B_r,) float32, in nats.
        dual: >= 0, the price of the retain NLL.
        epsilon: in nats, >= 0: a little above the retain NLL of the original model.
        eta: >= 0, how fast the dual moves, per nat and optimiser step.
        warmup: in epochs, >= 0, during which the dual stays put. The default is half of the default
            epochs, like the source's 5 of 10; a run no longer than the warm-up gives a warning.
        dual_start: >= 0.

    Source: Entesari et al. 2025, arXiv 2506.05314, PDU.
    """
    del eta, warmup, dual_start  # used by next_dual
    flat = forget.mean_per_record(per_position(_spread, forget_logits))
    return Terms(flat, dual * (retain.nll_mean - epsilon))


def next_dual(dual: float, retain_nll: float, epoch: float, settings: Mapping[str, Any]) -> float:
    """The dual of ``pdu`` after an optimiser step: ``max(0, dual + eta (retain_nll - epsilon))``.

    Args:
        dual: its value before the step.
        retain_nll: mean NLL of the step's retain records, over all processes, in nats.
        epoch: epochs done; before ``warmup`` the dual does not move.
        settings: of ``pdu``.
    """
    if epoch < settings["warmup"]:
        return dual
    eta, epsilon = float(settings["eta"]), float(settings["epsilon"])
    return max(0.0, dual + eta * (retain_nll - epsilon))


def dual_rests(epochs: float, settings: Mapping[str, Any]) -> str | None:
    """Why the dual of ``pdu`` would never move in a run of this many epochs, or None."""
    start, warmup = settings["dual_start"], settings["warmup"]
    if warmup < epochs:
        return None
    return (
        f"its dual stays at {start:g} during a warm-up of {warmup:g} epochs, and the run has only "
        f"{epochs:.3g}; lower warmup, or raise epochs"
    )


def jensun(refusal: Scored) -> Tensor:
    """Jensen-Shannon unlearning: move towards a refusal.

    Mean over tokens of the divergence from the refusal's token, as a one-point distribution:
    ``(p ln p - (1 + p) ln(1 + p) + 2 ln 2) / 2``. It is at most ln 2, so no record can outweigh the
    others.

    Args:
        refusal: B_f forget prompts with a refusal as the answer; ``token_nll`` is (n,) float32.

    Source: Singh et al. 2025, arXiv 2509.02820, JensUn.
    """
    p = torch.exp(-refusal.token_nll)
    loss = (2 * math.log(2) - p * refusal.token_nll - (1 + p) * torch.log1p(p)) / 2
    return refusal.mean_per_record(loss)


def jensun_retain(retain: Scored, retain_logits: Tensor, retain_logits_ref: Distribution) -> Tensor:
    """Stay close to the original model: mean over tokens of the Jensen-Shannon divergence from it.

    Args:
        retain: B_r records under the trained model.
        retain_logits: (m, V), the logits that predict their scored tokens.
        retain_logits_ref: the same from the original model.

    Source: Singh et al. 2025, arXiv 2509.02820, JensUn.
    """
    return retain.mean_per_record(jensen_shannon(retain_logits_ref, retain_logits))


def _undial(logits: Tensor, reference: Distribution, true: Tensor, *, beta: float) -> Tensor:
    known = reference.events()  # (k, V) or (k, K + 1)
    column = true.unsqueeze(-1)
    if reference.tokens is not None:
        column = (reference.tokens == column).int().argmax(-1, keepdim=True)
    drop = known.new_full(column.shape, -beta)
    aim = known.scatter_add(-1, column, drop).softmax(-1)
    return -(aim * reference.of(logits)).sum(-1)


def _from_uniform(logits: Tensor) -> Tensor:
    wide = logits.float()
    return wide.logsumexp(-1) - wide.mean(-1) - math.log(wide.shape[-1])


def _spread(logits: Tensor) -> Tensor:
    wide = logits.float()
    return (wide.amax(-1) - wide.mean(-1)).square()


_DUAL = Dual(lambda settings: float(settings["dual_start"]), next_dual, dual_rests)
DISTRIBUTIONS: dict[str, Objective] = {
    "jensun": Objective(jensun, retain="own", own=jensun_retain),
    "kl": Objective(kl_ascent, retain="kl", bounded=False),
    "max_entropy": Objective(max_entropy, forget_weight=0.1),
    "pdu": Objective(pdu, retain="own", dual=_DUAL),
    "undial": Objective(undial, retain="none"),
}
