"""The curvature that Sophia needs: Gauss-Newton-Bartlett, on labels that the model draws itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wagle.model.scoring import answer_logits, score
from wagle.model.streaming.opening import each
from wagle.model.structure import precision
from wagle.unlearning.training.optimizers import SophiaG
from wagle.unlearning.training.parts import put_away
from wagle.unlearning.training.weights.rounding import seeded
from wagle.unlearning.training.weights.selected import SelectedWeights


def draw_labels(logits: Tensor, scored: Tensor, index: Tensor, key: Sequence[object]) -> Tensor:
    """Labels drawn from softmax(logits) at every scored position, (n,) int64.

    Args:
        logits: (n, V), records one after the other.
        scored: (B, T) bool, which positions they predict.
        index: (B,) which records these are; the draws depend only on (key, record).
        key: identifies the draws.
    """
    drawn = []
    sizes = scored.sum(-1).tolist()
    for part, record in zip(logits.detach().split(sizes), index.tolist(), strict=True):
        generator = seeded((*key, record), logits.device)
        chances = part.float().softmax(-1)
        drawn.append(torch.multinomial(chances, 1, generator=generator).squeeze(-1))
    return torch.cat(drawn)


def take_curvature(
    model: nn.Module,
    selected: SelectedWeights,
    optimizer: SophiaG,
    micros: Sequence[Mapping[str, Any]],
    name: str,
    count: int,
    dtype: str,
    key: Sequence[object],
) -> None:
    """Give the optimiser the squared gradient of the mean NLL of drawn labels.

    Args:
        model: the model at this step.
        selected: the weights to take the gradient of.
        optimizer: receives it.
        micros: the batches of the step.
        name: the set of records to use.
        count: how many records of it the whole step has, on all processes.
        dtype: precision of the matrix products.
        key: identifies the draws, which each record makes separately.

    Source: Liu et al. 2024, Sophia, arXiv 2305.14342, algorithm 2.
    """

    def once(one: Mapping[str, Any]) -> None:
        with precision(one["index"].device, dtype):
            logits, _ = answer_logits(model, one)
            labels = draw_labels(logits, one["scored"], one["index"], key)
            loss = score(logits, labels, one["scored"]).nll_mean.sum() / count
            with selected.into("curvature"):
                (loss * (not one.get("idle", False))).backward()
            selected.collect("curvature")

    each(model, once, [micro[name] for micro in micros if name in micro])
    selected.carry_back()
    selected.add_up("curvature")
    gradients = selected.take("curvature")
    found = dict(zip((master for _, master in selected.named_masters()), gradients, strict=True))
    for part in selected.parts():
        optimizer.update_curvature({master: found.pop(master) for master in part}, count)
        put_away(optimizer, part, selected.where)
