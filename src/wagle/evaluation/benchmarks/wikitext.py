"""The benchmark ``wikitext``: how well plain language is predicted, through lm-eval."""

from __future__ import annotations

from pathlib import Path

from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Task
from wagle.evaluation.harness.asking import Asking, suite


def wikitext(
    encoder: Encoder,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> Task:
    """Plain language: perplexity per word and per byte, and bits per byte, on wikitext-2's test.

    Each is a ratio of sums over the articles, scored in windows of ``max_length`` tokens.

    Args:
        encoder: the model's encoder.
        data: a folder that holds a copy of the hub's ``EleutherAI/wikitext_document_level``; None:
            the hub's cache.
        limit: how many articles to take from the start; None: all.
        batch_size: windows per forward pass.
        max_length: tokens of a window; at most the model's positions. It changes the figures.
        seed: for the bootstrap.
    """
    asking = Asking(None, limit, batch_size, max_length, seed)
    return suite(encoder, ["wikitext"], data, asking, published=True)
