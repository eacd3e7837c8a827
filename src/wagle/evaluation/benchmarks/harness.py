"""The benchmark ``harness``: any task of lm-eval."""

from __future__ import annotations

from pathlib import Path

from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Task
from wagle.evaluation.harness.asking import Asking, suite


def harness(
    encoder: Encoder,
    *,
    tasks: list[str] | None = None,
    data: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """Any tasks, groups or tags of lm-eval, and your own task files.

    Args:
        encoder: the model's encoder.
        tasks: their names; None: all that the files of ``data`` define.
        data: a task file, or a folder with task files, copies of data sets, or both.
        num_fewshot: questions with answers before each question; None: the task's own number.
        limit: how many questions to take from the start of each task; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: for the bootstrap.
    """
    asking = Asking(num_fewshot, limit, batch_size, max_length, seed)
    return suite(encoder, tasks or [], data, asking)
