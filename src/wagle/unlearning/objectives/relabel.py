"""Relabelling: objectives that teach an answer to the prompts of the forget set.

A refusal, another record's answer, random tokens, or the answer itself. Each function is a forget
term, a loss per forget record, (B_f,) float32, or the retain term that goes with one, (B_r,).
To add one: a function here, its entry in RELABEL, and a test.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wagle.model.scoring import Scored
from wagle.unlearning.objectives.entry import Objective
from wagle.unlearning.objectives.settings import positive


def refusal(refusal: Scored) -> Tensor:
    """Answer with a refusal: its mean NLL per record, end of text included.

    With a retain term it is preference optimisation, PO (``nll``), or refusal with retain KL
    (``kl``).

    Args:
        refusal: B_f forget prompts with a refusal as the answer; ``nll_mean`` is (B_f,) float32.

    Source: Maini et al. 2024 (TOFU), arXiv 2401.06121, IDK; ``CL`` in the code of arXiv
    2410.17509.
    """
    return refusal.nll_mean


def random_label(mismatch: Scored) -> Tensor:
    """Answer with another record's answer: its mean NLL per record.

    Args:
        mismatch: B_f forget prompts with the answer of another record; ``nll_mean`` is (B_f,).

    Source: Golatkar et al. 2020, arXiv 1911.04933, for classes; ``RL`` in the code of arXiv
    2410.17509.
    """
    return mismatch.nll_mean


def random_label_uniform(uniform: Scored) -> Tensor:
    """Answer with random tokens: their mean NLL per record, each given the true tokens before it.

    Args:
        uniform: B_f forget records whose scored tokens are replaced by tokens drawn uniformly from
            the vocabulary; ``nll_mean`` is (B_f,) float32.

    Source: Yao et al. 2024, arXiv 2402.15159, random labels.
    """
    return uniform.nll_mean


def llmu(forget: Scored, mismatch: Scored) -> Tensor:
    """Ascent on the answer and descent on another record's: ``-M_f + M_mismatch`` per record.

    Unbounded below: it needs a stop rule. Its default retain term is retain KL, as in its source.

    Args:
        forget: B_f records; ``nll_mean`` is (B_f,) float32, in nats.
        mismatch: the same prompts with the answer of another record.

    Source: Yao et al. 2023, arXiv 2310.10683, LLMU.
    """
    return mismatch.nll_mean - forget.nll_mean


def idk_ap_retain(retain: Scored, retain_refusal: Scored, *, beta: float = 0.1) -> Tensor:
    """Prefer the answer to a refusal: ``-(1/beta) log sigmoid(beta (S_refusal - S))`` per record.

    S is the summed NLL in nats; there is no reference.

    Args:
        retain: B_r records; ``nll_sum`` is (B_r,) float32.
        retain_refusal: their prompts with a refusal as the answer.
        beta: 1/nats, > 0.

    Source: Yuan et al. 2024, arXiv 2410.08109, IDK+AP.
    """
    gap = retain_refusal.nll_sum - retain.nll_sum  # (B_r,)
    return -(1 / beta) * F.logsigmoid(beta * gap)


def forget_finetune(forget: Scored) -> Tensor:
    """Plain training on the forget set: ``M_f`` per record. It learns the set, for task vectors.

    Args:
        forget: B_f records; ``nll_mean`` is (B_f,) float32, in nats.

    Source: Ilharco et al. 2022, arXiv 2212.04089, where the resulting change is subtracted.
    """
    return forget.nll_mean


RELABEL: dict[str, Objective] = {
    "forget_finetune": Objective(forget_finetune, retain="none"),
    "idk_ap": Objective(refusal, retain="own", own=idk_ap_retain, check=positive("beta")),
    "llmu": Objective(llmu, retain="kl", bounded=False),
    "po": Objective(refusal),
    "random_label": Objective(random_label, retain="none"),
    "random_label_uniform": Objective(random_label_uniform, retain="none"),
    "refusal": Objective(refusal, retain="none"),
    "refusal_kl": Objective(refusal, retain="kl"),
}
