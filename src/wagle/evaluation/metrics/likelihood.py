"""Metrics of likelihoods: probabilities, right answers against wrong ones, truth ratios.

All start from mean NLLs M in nats per token and stay in log space: none overflows, none adds an
epsilon (but ``published_ratio``), and answers of probability 0 in float32 still compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from wagle.truth_ratio import log_truth_ratio as log_truth_ratio
from wagle.truth_ratio import true_better as true_better


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
    """``1 / (1 + R)``: the share of the right answer between it and the wrong ones, 0 to 1."""
    if log_ratio > 0:  # both forms are exact; each avoids the other's overflow
        small = math.exp(-log_ratio)
        return small / (1 + small)
    return 1 / (1 + math.exp(log_ratio))


def published_ratio(right: float, wrong: Sequence[float]) -> float:
    """``mean_j P(wrong_j) / (P(right) + 1e-12)``, at most 1e12: for comparison only.

    The published code averages it as it is: it has no upper end, so that one record whose right
    answer has collapsed outweighs all others.

    Source: the published WAGLE code, arXiv 2410.17509.
    """
    other = math.fsum(probability(mean) for mean in wrong) / len(wrong)
    return other / (probability(right) + 1e-12)


def accuracy(right: float, wrong: Sequence[float]) -> float:
    """1 where the true answer is more probable than every wrong one, else 0 (ties are wrong)."""
    return float(all(right < other for other in wrong))


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))
