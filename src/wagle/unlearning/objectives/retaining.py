"""Retain terms: what every forget term can be combined with, and objectives without a forget term.

A retain term sees the records to keep and gives a loss per record, (B_r,) float32.
To add one: a function here, its entry in RETAIN_TERMS (for an objective without a forget term, in
RETAINING), and a test.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from wagle.model.scoring import Scored
from wagle.unlearning.objectives.entry import Objective
from wagle.unlearning.objectives.shapes import Distribution, Terms, forward_kl


def nll(retain: Scored) -> Tensor:
    """Plain training on the records to keep: their mean answer NLL, (B_r,), in nats."""
    return retain.nll_mean


def kl(retain: Scored, retain_logits: Tensor, retain_logits_ref: Distribution) -> Tensor:
    """Stay close to the original model: mean over scored tokens of ``KL(original || model)``.

    Args:
        retain: B_r records under the trained model.
        retain_logits: (n, V), the logits that predict their scored tokens.
        retain_logits_ref: the same from the original model.

    Returns:
        (B_r,) float32, >= 0; zero, with zero gradient, where nothing has changed.
    """
    return retain.mean_per_record(forward_kl(retain_logits_ref, retain_logits))


RETAIN_TERMS: dict[str, Callable[..., Tensor]] = {"nll": nll, "kl": kl}


def none() -> Terms:
    """No unlearning: the model stays bit-identical. The control of every comparison."""
    return Terms(None, None)


def retain_finetune(retain: Scored) -> Terms:
    """Plain training on the records to keep, in the hope that the rest fades; also used to teach.

    Args:
        retain: B_r records; ``nll_mean`` is (B_r,) float32, in nats.
    """
    return Terms(None, retain.nll_mean)


def l1_sparse(retain: Scored, *, l1_weight: float = 1.0) -> Terms:
    """Plain training on the records to keep, with weights pulled towards zero.

    The penalty ``l1_weight * sum |w|`` over the selected weights (norms and biases excluded) is
    applied exactly, by soft-thresholding after every step: ``w <- sign(w) max(|w| - lr *
    l1_weight, 0)``.

    A run pulls a weight by at most ``steps * lr * l1_weight``, so smaller weights end at zero. At 1
    the pull of a step is as large as an AdamW step: 50 steps at a learning rate of 1e-5 to 1e-4 add
    up to 5e-4 to 5e-3, compared with typical weights of 0.02 to 0.1. Published values (1e-10 to
    1e-8) are for a penalty in the loss, whose gradient the optimiser rescales; here they would move
    nothing.

    Args:
        retain: B_r records; ``nll_mean`` is (B_r,) float32, in nats.
        l1_weight: >= 0, in learning rates per step; 0 is ``retain_finetune``. The trainer applies
            it.

    Source: Jia et al. 2023, arXiv 2304.04934, l1-sparse MU; the proximal step is ours.
    """
    del l1_weight
    return Terms(None, retain.nll_mean)


RETAINING: dict[str, Objective] = {
    "l1_sparse": Objective(l1_sparse, retain="own", proximal="l1_weight"),
    "none": Objective(none, retain="own"),
    "retain_finetune": Objective(retain_finetune, retain="own"),
}
