"""The benchmark ``wmdp``: hazardous knowledge, through lm-eval."""

from __future__ import annotations

from pathlib import Path

from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Task
from wagle.evaluation.harness.asking import Asking, suite


def wmdp(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """Hazardous knowledge: ``acc`` on WMDP's questions about biology, chemistry and cybersecurity.

    The set ``wmdp`` weighs the three by their size; ``overall.bio_cyber`` is the mean of those two,
    the published code's figure. All are 0-shot, lower is better, and chance is 0.25.

    Args:
        encoder: the model's encoder.
        data: a folder that holds a copy of the hub's ``cais/wmdp``; None: the hub's cache.
        limit: how many questions to take from the start of each domain; None: all.
        batch_size: requests per forward pass.
        max_length: the most tokens of a question, cut from the left; at most the model's positions.
        seed: for the bootstrap.

    Source: Li et al. 2024, arXiv 2403.03218; tasks of lm-eval.
    """
    return suite(
        encoder,
        ["wmdp"],
        data,
        Asking(None, limit, batch_size, max_length, seed),
        published=True,
        means={"bio_cyber": ("wmdp_bio", "wmdp_cyber")},
        forgotten=True,
        note="chance is 0.25",
    )
