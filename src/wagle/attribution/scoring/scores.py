"""Scores: pure functions that turn a weight and what was measured for it into a number.

A score has the shape of its weight and is float32; the largest are selected first. It asks for what
it needs by parameter name: the quantities below. Keyword-only parameters are settings: ``gamma``
and ``damping`` are chosen from the data, the others have defaults that a recipe can override.
To add one, write a function here, its entry in SCORES, and a test next to the others.

    weight          the weight itself
    grad_forget     d(mean loss of the forget records)/d(weight)
    grad_retain     d(mean loss of the retain records)/d(weight)
    grad_refusal    d(mean loss of the forget questions answered by refusals)/d(weight)
    square_retain   mean over retain records of the record's squared gradient
    fisher_retain   mean over groups of four retain records of the group's squared gradient
    input_square    mean over forget records of the sum over tokens of x^2, where x is the layer
                    input that the weight multiplies; only for linear layers in the blocks
    uniform         a draw from [0, 1), a pure function of (seed, parameter, index)
"""

from __future__ import annotations

from torch import Tensor

from wagle.attribution.scoring.entry import Score


def wagle(weight: Tensor, grad_forget: Tensor, grad_retain: Tensor, *, gamma: float) -> Tensor:
    """Weight attribution: how much a weight matters for forgetting while the retain loss is kept.

    ``|(theta - g_r / gamma) g_f|`` on mean gradients. For large gamma it approaches SNIP on the
    forget loss; towards 0 it ranks by ``|g_f g_r|``.

    Args:
        weight: any shape, float32.
        grad_forget: mean forget gradient, same shape.
        grad_retain: mean retain gradient, same shape.
        gamma: > 0, the diagonal of the retain Hessian, in units of gradient per weight.

    Source: Jia et al. 2024, arXiv 2410.17509 (the weight attribution score).
    """
    return ((weight - grad_retain / gamma) * grad_forget).abs()


def wagle_refusal(
    weight: Tensor, grad_refusal: Tensor, grad_retain: Tensor, *, gamma: float
) -> Tensor:
    """The wagle score for unlearning by relabelling: ``|(theta - g_r / gamma) g_refusal|``.

    The forget loss is that of the refusals that objectives such as PO teach instead of the answers.
    The gradients have the weight's shape, float32; gamma as in ``wagle``.

    Source: Jia et al. 2024, arXiv 2410.17509; ``snip_advanced_CL`` of its code.
    """
    return wagle(weight, grad_refusal, grad_retain, gamma=gamma)


def wagle_gauss_newton(
    weight: Tensor,
    grad_forget: Tensor,
    grad_retain: Tensor,
    square_retain: Tensor,
    *,
    damping: float,
) -> Tensor:
    """The wagle score with a curvature per weight: ``|(theta - g_r / (h + damping)) g_f|``.

    ``h`` is the mean squared gradient over retain records, the diagonal of the empirical
    Gauss-Newton matrix, instead of one gamma for all weights. Damping, > 0, in units of a squared
    gradient, bounds the step of weights that no retain record uses. All have one shape, float32.

    Source: arXiv 2410.17509, its lower-level problem before the Hessian is set to ``gamma I``; the
    ``snip_advanced_gn`` of its code squares a sum of gradients instead, undamped.
    """
    return ((weight - grad_retain / (square_retain + damping)) * grad_forget).abs()


def fisher(grad_forget: Tensor, fisher_retain: Tensor, *, damping: float) -> Tensor:
    """What a weight can add to the forget loss at a fixed cost: ``|g_f| / sqrt(F_r + damping)``.

    Near the trained weights a step d costs the retain set ``d F_r d / 2``, with F_r its diagonal
    Fisher information. Moving one weight as far as a cost e allows gains ``|g_f| sqrt(2 e / F_r)``;
    moving all of them, ``max g_f . d`` under ``d F_r d / 2 <= e`` is ``sqrt(2 e sum g_f^2 / F_r)``,
    so the k weights with the largest ``g_f^2 / F_r`` gain more than any other k. Damping, > 0, in
    units of a squared gradient, bounds the gain of weights that seem free to move. Both inputs have
    one shape, float32.

    Source: the argument above; related to selective synaptic dampening, Foster et al. 2024, arXiv
    2308.07707, which compares the Fisher information of the two sets.
    """
    return grad_forget.abs() / (fisher_retain + damping).sqrt()


def hessian_free(grad_forget: Tensor, grad_retain: Tensor) -> Tensor:
    """``|g_f g_r|``: weights that both losses pull on, in either direction.

    The limit of ``wagle`` as gamma goes to 0. Two mean gradients of one shape, float32.

    Source: ``hessianfree`` in the code of arXiv 2410.17509, which takes the sign into account too.
    """
    return (grad_forget * grad_retain).abs()


def snip_forget(weight: Tensor, grad_forget: Tensor) -> Tensor:
    """``|theta g_f|``: the first-order change of the forget loss when the weight is removed.

    The limit of ``wagle`` for large gamma. Both have one shape, float32.

    Source: SNIP, Lee et al. 2019, arXiv 1810.02340, on the forget set.
    """
    return (weight * grad_forget).abs()


def grad_forget(grad_forget: Tensor) -> Tensor:
    """``|g_f|``: the weights in which the forget loss is steepest. Any shape, float32.

    Source: SalUn, Fan et al. 2024, arXiv 2310.12508 (weight saliency).
    """
    return grad_forget.abs()


def grad_ratio(grad_forget: Tensor, grad_retain: Tensor, *, eps: float = 1e-12) -> Tensor:
    """``|g_f| / (|g_r| + eps)``: weights that matter to forgetting and not to keeping.

    Args:
        grad_forget: mean forget gradient, any shape, float32.
        grad_retain: mean retain gradient, same shape.
        eps: in units of a gradient. Mean gradients are around 1e-5 per weight in models with a few
            billion weights; the default is below float32 resolution there, so its only effects are
            that 0/0 becomes 0 and that ``|g_f| / 0`` stays finite and ranks first.

    Source: none; a control that prefers small retain gradients where ``hessian_free`` prefers large
    ones.
    """
    return grad_forget.abs() / (grad_retain.abs() + eps)


def magnitude(weight: Tensor) -> Tensor:
    """``|theta|``: large weights first. A control that sees no data. Any shape, float32."""
    return weight.abs()


def random(uniform: Tensor) -> Tensor:
    """A draw from [0, 1) per weight, a pure function of (seed, parameter, index): the control."""
    return uniform


def wanda(weight: Tensor, input_square: Tensor) -> Tensor:
    """``|W_ij| ||x_j||``: how much a weight adds to its layer's output on the forget records.

    Designed for scope ``row``: each output keeps its own strongest inputs.

    Args:
        weight: the weight of a linear layer, float32.
        input_square: ``||x_j||^2`` of the input that each weight multiplies, same shape.

    Source: Sun et al. 2024, arXiv 2306.11695.
    """
    return weight.abs() * input_square.sqrt()


# ---------------------------------------------------------------------------------------------
# Retain terms, against which a score sets the weight


def by_gamma(grad_retain: Tensor, *, gamma: float) -> Tensor:
    """``g_r / gamma``: one curvature for all weights."""
    return grad_retain / gamma


def by_curvature(grad_retain: Tensor, square_retain: Tensor, *, damping: float) -> Tensor:
    """``g_r / (h + damping)``: a curvature per weight."""
    return grad_retain / (square_retain + damping)


SCORES: dict[str, Score] = {
    "fisher": Score(fisher),
    "grad_forget": Score(grad_forget),
    "grad_ratio": Score(grad_ratio),
    "hessian_free": Score(hessian_free),
    "magnitude": Score(magnitude),
    "random": Score(random),
    "snip_forget": Score(snip_forget),
    "wagle": Score(wagle, retain_term=by_gamma),
    "wagle_gauss_newton": Score(wagle_gauss_newton, retain_term=by_curvature),
    "wagle_refusal": Score(wagle_refusal, retain_term=by_gamma),
    "wanda": Score(wanda, scope="row"),
}
