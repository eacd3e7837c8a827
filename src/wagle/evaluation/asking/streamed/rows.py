"""Likelihoods without a cache: a question and all answers to it are one row, read in one pass.

A cached prompt would save nothing here: it would cost a reading of the model of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wagle.compat.transformers import attention_of, window_of
from wagle.evaluation.asking.likelihoods import Tree, as_taken, read_off
from wagle.evaluation.asking.requests import Likelihood, LikelihoodAnswer
from wagle.model.structure import device_of, head_at


def trees_of(
    model: PreTrainedModel, requests: Sequence[Likelihood]
) -> tuple[list[Tree], list[Tree]]:
    """Requests as trees that branch, one for each context, and as trees that do not."""
    asked: dict[tuple[int, ...], list[Likelihood]] = {}
    for request in requests:
        asked.setdefault(request.context, []).append(request)
    widest, branching, plain = widest_tree(model), [], []
    for several in asked.values():
        tree = Tree.of(several)
        if len(several) > 1 and row_length(tree) <= widest:
            branching.append(tree)
        else:
            plain += [Tree.of([request]) for request in several]
    return branching, plain


def widest_tree(model: PreTrainedModel) -> float:
    """The most tokens of a row in which the model follows an attention mask token by token.

    A block with a sliding window does so as long as the whole row is within the window.
    """
    own = type(model).__module__.startswith("transformers.")
    if not own or attention_of(model.config) not in ("eager", "sdpa"):
        return 0
    return min(map(window_of, DynamicCache(config=model.config).layers), default=0)


def row_length(tree: Tree) -> int:
    """The tokens of a context and its tree."""
    return len(tree.requests[0].context) - 1 + len(tree.ids)


def score_rows(
    model: PreTrainedModel, trees: Sequence[Tree], *, branching: bool
) -> list[tuple[Likelihood, LikelihoodAnswer]]:
    """Score trees, each behind its context, in one forward pass.

    Args:
        model: in eval mode, without gradients.
        trees: those of one batch.
        branching: whether any of them may branch.
    """
    width = max(row_length(tree) for tree in trees)
    shape = (len(trees), width)
    ids, places = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    nodes = torch.zeros(shape, dtype=torch.bool)
    there = torch.zeros(shape, dtype=torch.int64)
    for row, tree in enumerate(trees):
        before = tree.requests[0].context[:-1]
        start, stop = len(before), len(before) + len(tree.ids)
        ids[row, :stop] = torch.tensor((*before, *tree.ids))
        places[row, :start] = torch.arange(start)
        places[row, start:stop] = torch.tensor(tree.depths()) + start
        nodes[row, start:stop] = True
        there[row, :stop] = 1
    device = device_of(model)
    attention = _mask(trees, width) if branching else there
    with head_at(model, nodes.to(device)):
        logits = model(
            input_ids=ids.to(device),
            attention_mask=as_taken(model, attention.to(device)),
            position_ids=places.to(device),
            use_cache=False,
        ).logits[0]  # (nodes, V), tree by tree
    return read_off(model, logits, trees)


def _mask(trees: Sequence[Tree], width: int) -> Tensor:
    """(rows, 1, width, width) bool: what each token sees; a node, its context and its ancestors."""
    sees = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(trees), 1, 1)
    for row, tree in enumerate(trees):
        start, stop = len(tree.requests[0].context) - 1, row_length(tree)
        sees[row, start:stop, start:stop] = tree.sees()
    return sees.unsqueeze(1)
