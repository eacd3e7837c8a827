"""Likelihood metrics: pure functions of the NLLs of answers.

To add one, write a function here, its entry in LIKELIHOODS, and a test next to the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from wagle.metrics.metric import Metric

NATS = "nats per token"


def log_truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """``log R = M(right) - mean_j M(wrong_j)``: below 0 if the right answer is likelier.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121, with the geometric mean of its code.
    """
    return right - math.fsum(wrong) / len(wrong)


def true_better(log_ratio: float) -> float:
    """``max(0, 1 - R)``: by how much the right answer beats the wrong ones, for kept records."""
    return -math.expm1(log_ratio) if log_ratio < 0 else 0.0


def probability(mean_nll: float) -> float:
    """``exp(-M)``: the geometric mean of the answer's token probabilities, EOS scored."""
    return math.exp(-mean_nll)


def option_probability(right: float, wrong: Sequence[float]) -> float:
    """``P(right) / (P(right) + sum_j P(wrong_j))``: a softmax over ``-M``, 0 to 1.

    Args:
        right: M of the right answer, nats per token.
        wrong: M of each wrong answer.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121, the multiple-choice form of its code.
    """
    return math.exp(-right - _log_sum_exp([-right, *(-other for other in wrong)]))


def log_truth_ratio_arithmetic(right: float, wrong: Sequence[float]) -> float:
    """``log R`` of ``R = mean_j P(wrong_j) / P(right)``: the likeliest wrong answer weighs most.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121, equation 1.
    """
    return right + _log_sum_exp([-other for other in wrong]) - math.log(len(wrong))


RATIOS: dict[str, Callable[[float, Sequence[float]], float]] = {
    "geometric": log_truth_ratio,
    "arithmetic": log_truth_ratio_arithmetic,
}


def closer_to_1(log_ratio: float) -> float:
    """``min(R, 1/R)``: 1 where right and wrong answers are equally likely, for forget records."""
    return math.exp(-abs(log_ratio))


def know(log_ratio: float) -> float:
    """``1 / (1 + R)``: the right answer's share against the wrong ones, 0 to 1."""
    if log_ratio > 0:  # both forms are exact; each avoids the other's overflow
        small = math.exp(-log_ratio)
        return small / (1 + small)
    return 1 / (1 + math.exp(log_ratio))


def published_ratio(right: float, wrong: Sequence[float]) -> float:
    """``mean_j P(wrong_j) / (P(right) + 1e-12)``, at most 1e12: for comparison only.

    The published code averages it without a bound, so a single record whose right answer has
    collapsed outweighs all others.

    Source: the published WAGLE code, arXiv 2410.17509.
    """
    other = math.fsum(probability(mean) for mean in wrong) / len(wrong)
    return other / (probability(right) + 1e-12)


def accuracy(right: float, wrong: Sequence[float]) -> float:
    """1 if the right answer is more probable than every wrong one, else 0 (ties count as wrong).

    Like is compared with like: wrong answers have the form of the right one in other words, if there
    is one, so that is the one to give; against an answer of another form, form alone decides.

    Args:
        right: M of the right answer in the form of the wrong ones, nats per token.
        wrong: M of each wrong answer.
    """
    return float(all(right < other for other in wrong))


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def _nll(mean_nll: float) -> float:
    return mean_nll


def _know(reworded: float, wrong: Sequence[float]) -> float:
    return know(log_truth_ratio(reworded, wrong))


LIKELIHOODS: dict[str, Metric] = {
    "probability": Metric("probability per token", probability, ("right",)),
    "paraphrased": Metric("probability per token", probability, ("paraphrased",)),
    "know": Metric("share", _know, ("reworded", "wrong")),
    "accuracy": Metric("share of records", accuracy, ("reworded", "wrong"), share=True),
    "nll": Metric(NATS, _nll, ("right",), kept="lower"),
}
