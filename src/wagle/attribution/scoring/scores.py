"""Scores: pure functions from a weight and what was measured of it to a number.

A score has the shape of its weight and is float32; larger is selected first. It asks for what it
needs by parameter name: the quantities below. Keyword-only parameters are settings: ``gamma`` and
``damping`` are chosen from the data, the others have defaults that a recipe can override.
To add one: a function here, its entry in SCORES, a test beside the others.

    weight          the weight itself
    grad_forget     d(mean loss of the forget records)/d(weight)
    grad_retain     d(mean loss of the retain records)/d(weight)
    grad_refusal    d(mean loss of the forget questions answered by refusals)/d(weight)
    square_retain   mean over retain records of the squared gradient of the record
    fisher_retain   mean over groups of four retain records of the squared gradient of the group
    input_square    mean over forget records of the sum over tokens of x^2, x the layer's input that
                    the weight multiplies; of the linear layers in the blocks only
    uniform         a draw from [0, 1), a pure function of (seed, parameter, index)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from wagle.attribution.quantities import COLLECTED
from wagle.mask.mask import Mask
from wagle.system.errors import WagleError, choose, nearest, no_setting

Score: TypeAlias = Callable[..., Tensor]
QUANTITIES = ("weight", *COLLECTED, "uniform")
_FROM_DATA = ("gamma", "damping")
_OF_MASKS = ("random_like", "complement", "by_name")


def wagle(weight: Tensor, grad_forget: Tensor, grad_retain: Tensor, *, gamma: float) -> Tensor:
    """Weight attribution: what a weight does for forgetting, given that the retain loss is kept.

    ``|(theta - g_r / gamma) g_f|`` on mean gradients. Towards a large gamma it is SNIP on the
    forget loss, towards 0 it ranks by ``|g_f g_r|``.

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

    The forget loss is that of the refusals which objectives such as PO teach in place of the answers.
    The gradients are of one shape, float32; gamma as in ``wagle``.

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

    ``h`` is the mean squared gradient of a retain record, the diagonal of the empirical
    Gauss-Newton matrix, in place of one gamma for all. Damping, > 0, in units of a squared
    gradient, bounds the step of weights that no retain record uses. All of one shape, float32.

    Source: arXiv 2410.17509, its lower-level problem before the Hessian is set to ``gamma I``; the
    ``snip_advanced_gn`` of its code squares a sum of gradients instead, undamped.
    """
    return ((weight - grad_retain / (square_retain + damping)) * grad_forget).abs()


def fisher(grad_forget: Tensor, fisher_retain: Tensor, *, damping: float) -> Tensor:
    """What a weight can add to the forget loss at a fixed cost: ``|g_f| / sqrt(F_r + damping)``.

    Near the trained weights a step d costs the retain set ``d F_r d / 2``, with F_r its diagonal
    Fisher information. Moving one weight as far as a cost e allows gains ``|g_f| sqrt(2 e / F_r)``;
    moving all of them, ``max g_f . d`` under ``d F_r d / 2 <= e`` is ``sqrt(2 e sum g_f^2 / F_r)``,
    so the k weights with the largest ``g_f^2 / F_r`` gain the most of any k. Damping, > 0, in
    units of a squared gradient, bounds what seems free. Both of one shape, float32.

    Source: the argument above; related is selective synaptic dampening, Foster et al. 2024, arXiv
    2308.07707, which compares the Fisher information of both sets.
    """
    return grad_forget.abs() / (fisher_retain + damping).sqrt()


def hessian_free(grad_forget: Tensor, grad_retain: Tensor) -> Tensor:
    """``|g_f g_r|``: where both losses pull, either way; the limit of ``wagle`` for gamma to 0.

    Two mean gradients of one shape, float32. Source: ``hessianfree`` of the code of arXiv
    2410.17509, which ranks by the sign too.
    """
    return (grad_forget * grad_retain).abs()


def snip_forget(weight: Tensor, grad_forget: Tensor) -> Tensor:
    """``|theta g_f|``: the first-order change of the forget loss when the weight is removed.

    The limit of ``wagle`` for a large gamma. Both of one shape, float32.

    Source: SNIP, Lee et al. 2019, arXiv 1810.02340, on the forget set.
    """
    return (weight * grad_forget).abs()


def grad_forget(grad_forget: Tensor) -> Tensor:
    """``|g_f|``: the steepest weights of the forget loss. Any shape, float32.

    Source: SalUn, Fan et al. 2024, arXiv 2310.12508 (weight saliency).
    """
    return grad_forget.abs()


def grad_ratio(grad_forget: Tensor, grad_retain: Tensor, *, eps: float = 1e-12) -> Tensor:
    """``|g_f| / (|g_r| + eps)``: weights that matter to forgetting and not to keeping.

    Args:
        grad_forget: mean forget gradient, any shape, float32.
        grad_retain: mean retain gradient, same shape.
        eps: in units of a gradient. Mean gradients lie near 1e-5 per weight in models of a few
            billion weights; the default is below the float32 resolution there, so it decides
            only what 0/0 is (0), and keeps ``|g_f| / 0`` finite and first.

    Source: none; the control that prefers a small retain gradient where ``hessian_free`` prefers a
    large one.
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

    Meant per row (scope ``row``): each output keeps its own strongest inputs.

    Args:
        weight: of a linear layer, float32.
        input_square: ``||x_j||^2`` of the input that each weight multiplies, same shape.

    Source: Sun et al. 2024, arXiv 2306.11695.
    """
    return weight.abs() * input_square.sqrt()


SCORES: dict[str, Score] = {
    "fisher": fisher,
    "grad_forget": grad_forget,
    "grad_ratio": grad_ratio,
    "hessian_free": hessian_free,
    "magnitude": magnitude,
    "random": random,
    "snip_forget": snip_forget,
    "wagle": wagle,
    "wagle_gauss_newton": wagle_gauss_newton,
    "wagle_refusal": wagle_refusal,
    "wanda": wanda,
}


# ---------------------------------------------------------------------------------------------
# What a score asks for


class Needs(NamedTuple):
    """What a score asks for, from its signature: quantities, and settings with their defaults."""

    quantities: list[str]
    settings: dict[str, Any]


def find_score(score: str | Score) -> Score:
    """The function that a name stands for; a function stands for itself."""
    if isinstance(score, str):
        return choose(SCORES, score, "score")
    if not callable(score):
        raise WagleError(
            f"score is {score!r}; give a name ({', '.join(SCORES)}), a function, or a mapping with "
            f"one key ({', '.join(_OF_MASKS)})"
        )
    return score


def score_name(score: str | Score) -> str:
    """What messages and masks call a score."""
    return score if isinstance(score, str) else getattr(score, "__name__", "custom")


def needs(score: Score) -> Needs:
    """The quantities and the settings that a score asks for, from its signature."""
    try:
        parameters = inspect.signature(score).parameters
    except (TypeError, ValueError):
        raise WagleError(
            f"the parameters of the score {score_name(score)!r} cannot be read; wrap it in a function "
            f"of {', '.join(QUANTITIES)}"
        ) from None
    found = Needs([], {})
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found.settings[name] = parameter.default
        elif name in QUANTITIES:
            found.quantities.append(name)
        else:
            raise WagleError(f"a score cannot ask for {name!r} (known: {', '.join(QUANTITIES)})")
    if not found.quantities:
        raise WagleError(
            f"the score {score_name(score)!r} asks for nothing; its parameters are among "
            f"{', '.join(QUANTITIES)}"
        )
    return found


def score_settings(score: str | Score, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a score that are not chosen from the data: its defaults, and ``given``."""
    what = f"the score {score_name(score)!r}"
    known = {n: v for n, v in needs(find_score(score)).settings.items() if n not in _FROM_DATA}
    for name, value in given.items():
        if name in _FROM_DATA:
            raise WagleError(f"{name} is not among the settings of a score; give it as {name}=")
        if name not in known:
            raise no_setting(what, name, known)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise WagleError(f"the setting {name} of {what} is {value!r}; it must be a number")
    found = {**known, **given}
    missing = [n for n, value in found.items() if value is inspect.Parameter.empty]
    if missing:
        raise WagleError(f"{what} needs a setting {missing[0]!r}; add it to its settings")
    return found


def read_mapping(score: Mapping[str, Any]) -> tuple[str, Any]:
    """The one key of a score that is a mapping, and a checked value: a mask or patterns."""
    if len(score) != 1 or next(iter(score)) not in _OF_MASKS:
        guess = nearest(str(next(iter(score))), _OF_MASKS) if len(score) == 1 else None
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise WagleError(
            f"score has the keys {[str(key) for key in score]}{hint} (one of {', '.join(_OF_MASKS)})"
        )
    ((kind, value),) = score.items()
    if kind == "by_name":
        patterns = list(value) if isinstance(value, list | tuple) else []
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise WagleError(
                f"score.by_name is {value!r}; give a list of patterns, such as ['ffn', '*.q_proj.*']"
            )
        return kind, patterns
    if not isinstance(value, Mask | str | Path):
        raise WagleError(f"score.{kind} is {value!r}; give a mask, or the path of one")
    return kind, value


def check_score(
    score: str | Score | Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> None:
    """Find out before any work whether a score and its settings exist, and the mask it names."""
    if not isinstance(score, Mapping):
        score_settings(score, settings or {})
        return
    kind, value = read_mapping(score)
    if settings:
        raise WagleError(f"the score {kind!r} has no settings; remove {next(iter(settings))!r}")
    if isinstance(value, str | Path):
        Mask.load(value)
