"""Ascent: objectives that push the answer's likelihood down, plainly or weighted by token.

Each function is a forget term: from the forget records to a loss per record, (B_f,) float32.
To add one: a function here, its entry in ASCENT, and a test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wagle.model.scoring import Scored, sum_per_record
from wagle.unlearning.objectives.entry import Objective

_REST = 1e-6  # the least ``1 - p`` that cross-entropy unlearning divides by


def grad_ascent(forget: Scored) -> Tensor:
    """Gradient ascent: ``-M_f`` per forget record. Unbounded below: it needs a stop rule.

    With a retain term it is gradient difference (``nll``) or ascent with retain KL (``kl``).

    Args:
        forget: B_f records under the trained model; ``nll_mean`` is (B_f,) float32, in nats.

    Source: Jang et al. 2023, arXiv 2210.01504; Liu et al. 2022, arXiv 2203.12817; Maini et al.
    2024 (TOFU), arXiv 2401.06121.
    """
    return -forget.nll_mean


def wga(forget: Scored, *, beta: float = 1.0) -> Tensor:
    """Weighted gradient ascent: minus the mean over tokens of ``p^beta * nll``.

    The weight has no gradient: tokens that are already unlikely are left alone, so the ascent
    spreads over the answer instead of running away on a few tokens.

    Args:
        forget: B_f records; ``token_nll`` is (n,) float32, ``length`` (B_f,).
        beta: >= 0; 0 is gradient ascent.

    Source: Wang et al. 2025 (G-effect), arXiv 2502.19301, WGA.
    """
    weight = torch.exp(-beta * forget.token_nll).detach()  # (n,): p^beta
    return -forget.mean_per_record(weight * forget.token_nll)


def satimp(forget: Scored, *, beta1: float = 5.0, beta2: float = 1.0) -> Tensor:
    """Saturation and importance: minus the mean over tokens of ``p^beta1 (1 - p)^beta2 * nll``.

    The weight has no gradient and is largest at ``p = beta1 / (beta1 + beta2)``: forgotten tokens
    are left alone, as in ``wga``, and tokens that are near-certain start slowly.

    Args:
        forget: B_f records; ``token_nll`` is (n,) float32, ``length`` (B_f,).
        beta1: >= 0, the exponent of saturation.
        beta2: >= 0, the exponent of importance; 0 gives ``wga``, both 0 give gradient ascent.

    Source: Yang et al. 2025, arXiv 2505.11953, SatImp.
    """
    nll = forget.token_nll.detach()
    weight = torch.exp(-beta1 * nll) * (-torch.expm1(-nll)) ** beta2  # (n,)
    return -forget.mean_per_record(weight * forget.token_nll)


def ce_u(forget: Scored, *, skip: int = 1) -> Tensor:
    """Cross-entropy unlearning: the mean over tokens of ``-ln(1 - p)``.

    This is ``KL(q || model)`` where q is the model's own distribution with the true token ruled
    out; its gradient is that of the published cross-entropy to q, held fixed, and it is 0 once
    forgotten. ``1 - p`` is at least 1e-6.

    Args:
        forget: B_f records; ``token_nll`` is (n,) float32, ``length`` (B_f,).
        skip: >= 0, how many tokens at the start of an answer are left out. A record with no other
            tokens gives 0 and still counts as a record.

    Source: Yang 2025, arXiv 2503.01224, CE-U.
    """
    rest = -torch.expm1(-forget.token_nll)  # (n,): 1 - p
    # The gradient passes through the floor: a clamp would keep perfectly memorised tokens in place.
    floored = rest + (rest.clamp(min=_REST) - rest).detach()
    start = (forget.length.cumsum(0) - forget.length).repeat_interleave(forget.length)
    place = torch.arange(len(rest), device=rest.device) - start  # (n,): 0 at an answer's first
    total = sum_per_record(-floored.log() * (place >= skip), forget.length)
    return total / (forget.length - skip).clamp(min=1)


ASCENT: dict[str, Objective] = {
    "ce_u": Objective(ce_u, retain="none"),
    "ga_kl": Objective(grad_ascent, retain="kl", bounded=False),
    "grad_ascent": Objective(grad_ascent, retain="none", bounded=False),
    "grad_diff": Objective(grad_ascent, bounded=False),
    "satimp": Objective(satimp, retain_weight=0.1),
    "wga": Objective(wga),
}
