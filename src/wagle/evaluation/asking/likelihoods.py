"""Likelihood requests: the answers to one question, as one tree of tokens after its prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wagle.compat.transformers import attention_of
from wagle.data.batches import by_length
from wagle.evaluation.asking.prompts import Kept, Prompts
from wagle.evaluation.asking.requests import (
    Likelihood,
    LikelihoodAnswer,
    Reply,
    Request,
    not_finite,
)
from wagle.model.scoring import keeps_all
from wagle.model.structure import head_at

_ROWS = 512  # of float32 logits at a time, if moments are asked for


def answer_likelihoods(
    model: PreTrainedModel, prompts: Prompts, requests: Sequence[Likelihood], batch_tokens: int
) -> Iterator[list[tuple[Likelihood, LikelihoodAnswer]]]:
    """Answer requests piece by piece, after the prompts that they share.

    The last token of a prompt, which has not run yet, is the root of a tree: the answers to one
    question run as one row that holds every shared beginning once, and a token sees only its own
    ancestors. The last token of an answer is only looked up, never run.

    Args:
        model: in eval mode.
        prompts: the prompts of all requests.
        requests: in any order.
        batch_tokens: padded tokens of continuations per forward pass.
    """
    asked: dict[tuple[int, ...], list[Likelihood]] = {}
    together = _sees_trees(model, prompts.kept.cache)
    for number, request in enumerate(requests):
        key = request.context if together else (number,)
        asked.setdefault(key, []).append(request)
    trees = [Tree.of(several) for several in asked.values()]
    for chunk in by_length([len(tree.ids) for tree in trees], batch_tokens):
        some = [trees[i] for i in chunk]
        own = prompts.take([tree.requests[0].context for tree in some])
        yield _score(model, own, some, together)


class Once:
    """Likelihoods that differ only in whether they want moments: they are asked once.

    Args:
        requests: distinct ones.
    """

    def __init__(self, requests: Iterable[Likelihood]) -> None:
        self._asked: dict[Likelihood, list[Likelihood]] = {}
        for request in requests:
            self._asked.setdefault(replace(request, moments=False), []).append(request)

    def fullest(self) -> list[Likelihood]:
        """What to ask."""
        return [
            replace(plain, moments=any(request.moments for request in same))
            for plain, same in self._asked.items()
        ]

    def count(self, request: Likelihood) -> int:
        """How many requests one of ``fullest`` answers."""
        return len(self._asked[replace(request, moments=False)])

    def as_asked(
        self, piece: Iterable[tuple[Likelihood, LikelihoodAnswer]]
    ) -> list[tuple[Request, Reply]]:
        """The answers to the requests themselves."""
        return [
            (own, reply if own.moments else replace(reply, moments=None))
            for request, reply in piece
            for own in self._asked[replace(request, moments=False)]
        ]


@dataclass(frozen=True)
class Tree:
    """Continuations of one context, as a tree of tokens.

    Attributes:
        requests: the requests whose continuations it holds.
        ids: the token ids of its nodes; the first is the last token of the context, and parents
            come before their children.
        parents: the parent of each node, -1 for the first.
        paths: per request, the nodes that predict its tokens, in order.
    """

    requests: Sequence[Likelihood]
    ids: list[int]
    parents: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, requests: Sequence[Likelihood]) -> Tree:
        """The tree of some requests with one context."""
        ids, parents, paths = [requests[0].context[-1]], [-1], []
        children: dict[tuple[int, int], int] = {}
        for request in requests:
            at, path = 0, [0]
            for token in request.continuation[:-1]:
                node = children.setdefault((at, token), len(ids))
                if node == len(ids):
                    ids.append(token)
                    parents.append(at)
                at = node
                path.append(at)
            paths.append(path)
        return cls(requests, ids, parents, paths)

    def depths(self) -> list[int]:
        """How many ancestors each node has."""
        found = [0]
        for parent in self.parents[1:]:
            found.append(found[parent] + 1)
        return found

    def sees(self) -> Tensor:
        """(nodes, nodes) bool: a node sees its ancestors and itself."""
        seen = np.eye(len(self.ids), dtype=bool)
        for node, parent in enumerate(self.parents[1:], 1):
            seen[node] |= seen[parent]
        return torch.from_numpy(seen)


def _sees_trees(model: PreTrainedModel, cache: DynamicCache) -> bool:
    """Whether the model follows an attention mask token by token, over everything before."""
    return keeps_all(model, cache) and attention_of(model.config) in ("eager", "sdpa")


def _score(
    model: PreTrainedModel, kept: Kept, trees: Sequence[Tree], together: bool
) -> list[tuple[Likelihood, LikelihoodAnswer]]:
    """Score trees, each after its prompt's row of the cache."""
    mask = kept.mask  # (rows, P)
    width = max(len(tree.ids) for tree in trees)
    shape = (len(trees), width)
    ids, depth = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    real = torch.zeros(shape, dtype=torch.bool)
    for row, tree in enumerate(trees):
        ids[row, : len(tree.ids)] = torch.tensor(tree.ids)
        depth[row, : len(tree.ids)] = torch.tensor(tree.depths())
        real[row, : len(tree.ids)] = True
    device = mask.device
    attention = _tree_mask(mask, trees, width) if together else torch.cat([mask, real.to(mask)], -1)
    with head_at(model, real.to(device)):
        logits = model(
            input_ids=ids.to(device),
            attention_mask=as_taken(model, attention),
            position_ids=depth.to(device) + mask.sum(-1, keepdim=True),
            past_key_values=kept.cache,
            use_cache=True,
        ).logits[0]  # (nodes, V), tree by tree
    return read_off(model, logits, trees)


def _tree_mask(mask: Tensor, trees: Sequence[Tree], width: int) -> Tensor:
    """(rows, 1, width, P + width) bool: a node sees the whole prompt and its own ancestors."""
    sees = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)  # padding sees itself
    for row, tree in enumerate(trees):
        sees[row, : len(tree.ids), : len(tree.ids)] = tree.sees()
    prompt = mask.bool().unsqueeze(1).expand(-1, width, -1)
    return torch.cat([prompt, sees.to(mask.device)], dim=-1).unsqueeze(1)


def as_taken(model: PreTrainedModel, mask: Tensor) -> Tensor:
    """A mask in the form the model's attention takes: not bool where it is added."""
    if mask.dtype != torch.bool or attention_of(model.config) == "sdpa":
        return mask
    low = torch.finfo(model.dtype).min
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, low)


def read_off(
    model: PreTrainedModel, logits: Tensor, trees: Sequence[Tree]
) -> list[tuple[Likelihood, LikelihoodAnswer]]:
    """The answers of all requests, read off the logits (nodes, V) of their trees."""
    asked: list[Likelihood] = []
    nodes: list[int] = []
    tokens: list[int] = []
    start = 0
    for tree in trees:
        for request, path in zip(tree.requests, tree.paths, strict=True):
            asked.append(request)
            nodes += [start + node for node in path]
            tokens += request.continuation
        start += len(tree.ids)
    parts = [(r.float().logsumexp(-1), r.argmax(-1)) for r in logits.split(_ROWS)]
    total, best = (torch.cat(part) for part in zip(*parts, strict=True))
    where = torch.tensor(nodes, device=logits.device)
    target = torch.tensor(tokens, device=logits.device)
    nll = (total[where] - logits[where, target].float()).double().cpu()
    hit = (best[where] == target).cpu()
    spread = moments(logits)[where].cpu() if any(r.moments for r in asked) else None
    made, start = [], 0
    for request in asked:
        place = slice(start, start + len(request.continuation))
        start = place.stop
        kept = torch.tensor(request.scored or (True,) * len(request.continuation))
        own = nll[place][kept]
        if not own.isfinite().all():
            raise not_finite("log-probabilities", logits.dtype, model, request.place)
        moved = spread[place][kept] if request.moments and spread is not None else None
        made.append((request, LikelihoodAnswer(own, hit[place][kept], moved)))
    return made


def moments(logits: Tensor) -> Tensor:
    """Mean and variance of the log-probability under each row's own distribution.

    Args:
        logits: (n, V), any dtype.

    Returns:
        (n, 2) float64: ``mu = sum_v p ln p`` and ``sum_v p (ln p - mu)^2``, from a float32
        log-softmax. A token of probability 0 adds nothing.
    """
    parts = []
    for rows in logits.split(_ROWS):
        logs = rows.float().log_softmax(-1)
        probabilities = logs.exp()
        mean = -torch.special.entr(probabilities).sum(-1, keepdim=True)  # entr(0) is 0
        distance = torch.where(probabilities > 0, logs - mean, 0.0)
        variance = (probabilities * distance.square()).sum(-1)
        parts.append(torch.stack([mean.squeeze(-1), variance], dim=-1).double())
    return torch.cat(parts)
