"""The benchmark ``mmlu``: general knowledge, through lm-eval."""

from __future__ import annotations

from pathlib import Path

from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Task
from wagle.evaluation.harness.asking import Asking, suite


def mmlu(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """General knowledge: ``acc`` of MMLU's 57 subjects, its four fields and, by size, of all.

    Args:
        encoder: the model's encoder.
        data: a folder that holds a copy of the hub's ``cais/mmlu``; None: the hub's cache.
        num_fewshot: questions with answers before each question; None: the task's own, 0.
        limit: how many questions to take from the start of each subject; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: for the bootstrap.

    Source: Hendrycks et al. 2021, arXiv 2009.03300; tasks of lm-eval.
    """
    asking = Asking(num_fewshot, limit, batch_size, max_length, seed)
    return suite(encoder, ["mmlu"], data, asking, published=True)
