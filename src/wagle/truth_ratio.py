"""The truth ratio R: wrong answers beside the right one. Looks during training and evaluation take it.

It starts from mean NLLs M in nats per token and stays in log space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def log_truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """``log R = M(right) - mean_j M(wrong_j)``: below 0 where the right answer is the likelier.

    Source: TOFU, Maini et al. 2024, arXiv 2401.06121, with the geometric mean of its code.
    """
    return right - math.fsum(wrong) / len(wrong)


def true_better(log_ratio: float) -> float:
    """``max(0, 1 - R)``: by how much the right answer beats the wrong ones, for kept records."""
    return -math.expm1(log_ratio) if log_ratio < 0 else 0.0
