"""The benchmark ``few_shot``: common sense and TruthfulQA, through lm-eval."""

from __future__ import annotations

from pathlib import Path

from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Task
from wagle.evaluation.harness.asking import Asking, suite

FEW_SHOT = (
    "boolq",
    "rte",
    "hellaswag",
    "winogrande",
    "arc_challenge",
    "arc_easy",
    "openbookqa",
    "piqa",
)


def few_shot(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """The suite of the published code: eight common-sense tasks, and TruthfulQA.

    ``overall.acc`` is the unweighted mean of the eight tasks' ``acc`` (never ``acc_norm``).
    TruthfulQA keeps the six questions of its own prompt whatever ``num_fewshot`` says.

    Args:
        encoder: the model's encoder.
        data: a folder that holds copies of the tasks' data sets; None: the hub's cache.
        num_fewshot: questions with answers before each question; None: 0, as published.
        limit: how many questions to take from the start of each task; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: for the bootstrap.
    """
    asking = Asking(num_fewshot, limit, batch_size, max_length, seed)
    tasks = [*FEW_SHOT, "truthfulqa"]
    return suite(encoder, tasks, data, asking, published=True, means={"acc": FEW_SHOT})
