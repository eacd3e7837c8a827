"""Metrics: pure functions of answers. Of no answers a metric is None, never 0.

To add one: a function here, its entry in METRICS, a test beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


def probability(mean_nll: float) -> float:
    """``exp(-M)``: the geometric mean of the answer's token probabilities, EOS scored."""
    return math.exp(-mean_nll)


def extraction_strength(hits: Sequence[bool]) -> float:
    """``1 - k/n``: k is the smallest prefix after which every arg-max token is right.

    Args:
        hits: per scored token, without the EOS, whether the arg-max token is right.

    Source: Carlini et al. 2021; definition of OpenUnlearning, without its floor of 1/n.
    """
    right = 0
    for hit in reversed(hits):
        if not hit:
            break
        right += 1
    return right / len(hits)


def log_truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """``log R = M(right) - mean_j M(wrong_j)``: below 0 where the right answer is the likelier.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121, with the geometric mean of its code.
    """
    return right - sum(wrong) / len(wrong)


def know(log_ratio: float) -> float:
    """``1 / (1 + R)``: the share of the right answer between it and the wrong ones, 0 to 1."""
    if log_ratio > 0:  # both forms are exact; each avoids the other's overflow
        small = math.exp(-log_ratio)
        return small / (1 + small)
    return 1 / (1 + math.exp(log_ratio))


def accuracy(right: float, wrong: Sequence[float]) -> float:
    """1 where the true answer is more probable than every wrong one, else 0 (ties are wrong)."""
    return float(all(right < other for other in wrong))


@cache
def _scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L recall with stemming: the longest common subsequence of words over the reference's."""
    return float(_scorer().score(reference, answer)["rougeL"].recall)


@dataclass(frozen=True)
class Metric:
    """What a figure is: ``direction`` (higher, lower, target) on the forget set, and its unit.

    ``share`` marks figures that are shares of records: their interval is Wilson's.
    """

    direction: str
    unit: str
    share: bool = False


METRICS: dict[str, Metric] = {
    "probability": Metric("target", "probability per token"),
    "paraphrased": Metric("target", "probability per token"),
    "rouge_l": Metric("target", "recall"),
    "know": Metric("target", "share"),
    "accuracy": Metric("target", "share of records", share=True),
    "extraction_strength": Metric("target", "share of the answer"),
}
