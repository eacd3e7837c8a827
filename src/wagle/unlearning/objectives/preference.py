"""Preference: objectives that make the answer less likely than it was, or than another answer.

Each function is a forget term: a loss per forget record, (B_f,) float32.
To add one: a function here, its entry in PREFERENCE, and a test.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wagle.model.scoring import Scored
from wagle.unlearning.objectives.entry import Objective
from wagle.unlearning.objectives.settings import positive


def npo(
    forget: Scored, forget_ref: Scored, *, beta: float = 0.1, beta_token_mean: bool = False
) -> Tensor:
    """Negative preference optimisation: ``-(2/beta) log sigmoid(beta (S - S_ref))`` per record.

    S is a record's summed answer NLL in nats. The pull on a record fades once its answer is less
    likely than it was, so, unlike in gradient ascent, the loss is bounded below.

    Args:
        forget: B_f records under the trained model; ``nll_sum`` is (B_f,) float32.
        forget_ref: the same records under the original model, no gradient.
        beta: 1/nats, > 0; towards 0 this becomes gradient ascent on the sum.
        beta_token_mean: use the mean over tokens instead of S, as the code of arXiv 2410.17509
            does; only for its recipes: with their beta of 0.1 the pull hardly fades.

    Source: Zhang et al. 2024, arXiv 2404.05868, loss L_NPO.
    """
    if beta_token_mean:
        gap = forget.nll_mean - forget_ref.nll_mean
    else:
        gap = forget.nll_sum - forget_ref.nll_sum
    return -(2 / beta) * F.logsigmoid(beta * gap)


def simnpo(forget: Scored, *, beta: float = 4.5, margin: float = 0.0) -> Tensor:
    """Simple NPO, without a reference: ``-(2/beta) log sigmoid(beta (M - margin))`` per record.

    M is a record's mean answer NLL in nats, so short and long answers are pulled alike.

    Args:
        forget: B_f records; ``nll_mean`` is (B_f,) float32.
        beta: 1/nats, > 0; towards 0 this becomes gradient ascent.
        margin: in nats per token, >= 0; the pull fades beyond it.

    Source: Fan et al. 2024, arXiv 2410.07163, SimNPO.
    """
    return -(2 / beta) * F.logsigmoid(beta * (forget.nll_mean - margin))


def tnpo(forget: Scored, forget_ref: Scored, *, beta: float = 4.0, alpha: float = 0.0) -> Tensor:
    """Token NPO: minus the mean over tokens of ``w * nll``.

    The weight is ``w = 2 p^(beta+alpha) / (p^beta + r^beta)`` and has no gradient; r is the token's
    probability under the original model. The pull on a token fades once it is less likely than it
    was, and with ``alpha`` also as it becomes unlikely, which is weighted token NPO.

    Args:
        forget: B_f records; ``token_nll`` is (n,) float32.
        forget_ref: the same records under the original model, no gradient.
        beta: >= 0, how sharply the pull fades.
        alpha: >= 0; 0 is token NPO, 1.5 the authors' weighted one.

    Source: Wang et al. 2025 (G-effect), arXiv 2502.19301, TNPO and WTNPO.
    """
    nll = forget.token_nll.detach()
    weight = 2 * torch.exp(-alpha * nll) * torch.sigmoid(beta * (forget_ref.token_nll - nll))
    return -forget.mean_per_record(weight * forget.token_nll)


def dpo(
    forget: Scored,
    refusal: Scored,
    forget_ref: Scored,
    refusal_ref: Scored,
    *,
    beta: float = 0.1,
    scale: float = 2.0,
) -> Tensor:
    """Direct preference for a refusal over the answer, relative to the original model.

    ``-(scale/beta) log sigmoid(beta ((S_ref - S) of the refusal - (S_ref - S) of the answer))`` per
    record, with S the summed NLL in nats. Without the refusal it is ``npo``.

    Args:
        forget: B_f records under the trained model; ``nll_sum`` is (B_f,) float32.
        refusal: their prompts with a refusal as the answer.
        forget_ref: ``forget`` under the original model, no gradient.
        refusal_ref: ``refusal`` under the original model, no gradient.
        beta: 1/nats, > 0.
        scale: >= 0; 2 is usual in the unlearning literature; ``beta`` gives DPO as first published,
            whose factor is 1.

    Source: Rafailov et al. 2023, arXiv 2305.18290; with refusals Maini et al. 2024 (TOFU), arXiv
    2401.06121; its factor as in Zhang et al. 2024, arXiv 2404.05868.
    """
    gain = refusal_ref.nll_sum - refusal.nll_sum
    gap = gain - (forget_ref.nll_sum - forget.nll_sum)  # (B_f,)
    return -(scale / beta) * F.logsigmoid(beta * gap)


def dpo_alt(
    forget: Scored,
    alternative: Scored,
    forget_ref: Scored,
    alternative_ref: Scored,
    *,
    beta: float = 0.1,
    scale: float = 2.0,
) -> Tensor:
    """``dpo`` with another plausible answer instead of the refusal: alternate preference.

    Args:
        forget: B_f records under the trained model; ``nll_sum`` is (B_f,) float32.
        alternative: their prompts with another answer.
        forget_ref: ``forget`` under the original model, no gradient.
        alternative_ref: ``alternative`` under the original model, no gradient.
        beta: 1/nats, > 0.
        scale: as in ``dpo``.

    Source: Mekala et al. 2024, arXiv 2409.13474, AltPO.
    """
    return dpo(forget, alternative, forget_ref, alternative_ref, beta=beta, scale=scale)


_DIVIDES = positive("beta")
PREFERENCE: dict[str, Objective] = {
    "dpo": Objective(dpo, check=_DIVIDES),
    "dpo_alt": Objective(dpo_alt, check=_DIVIDES),
    "npo": Objective(npo, check=_DIVIDES),
    "simnpo": Objective(simnpo, forget_weight=0.125, check=_DIVIDES),
    "tnpo": Objective(tnpo),
}
