"""Likelihood requests: a question's prompt runs once, its key/value cache serves all its answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wagle.data.batches import by_length, collate
from wagle.data.tokens import Tokens
from wagle.errors import WagleError
from wagle.evaluation.requests import Likelihood, LikelihoodAnswer
from wagle.model import answer_logits, check_device, score, to_device

_ROWS = 512  # of float32 logits at a time, where moments are asked for


def answer_likelihoods(
    model: PreTrainedModel, requests: Sequence[Likelihood], batch_tokens: int
) -> Iterator[list[tuple[Likelihood, LikelihoodAnswer]]]:
    """Answer one batch of requests, piece by piece; those with one context should come together.

    The prompts run once, all but their last token. That token starts each continuation's row: it
    predicts the first answer token. Continuations are batched by their own length, whichever
    prompt they belong to.

    Args:
        model: in eval mode.
        requests: whose prompts fit into one forward pass.
        batch_tokens: padded tokens of continuations per forward pass.
    """
    contexts = list(dict.fromkeys(r.context for r in requests))
    row = {context: i for i, context in enumerate(contexts)}
    cache, mask = prefill(model, [context[:-1] for context in contexts])
    for chunk in by_length([len(r.continuation) + 1 for r in requests], batch_tokens):
        asked = [requests[i] for i in chunk]
        owner = torch.tensor([row[r.context] for r in asked], device=mask.device)
        yield list(zip(asked, _score(model, cache, mask, owner, asked), strict=True))


def _score(
    model: PreTrainedModel,
    cache: DynamicCache,
    mask: Tensor,
    owner: Tensor,
    asked: Sequence[Likelihood],
) -> list[LikelihoodAnswer]:
    """Score continuations; ``owner`` (rows,) says to which row of the cache each one belongs."""
    tails = [
        Tokens(
            (r.context[-1], *r.continuation), (False, *(r.scored or (True,) * len(r.continuation)))
        )
        for r in asked
    ]
    batch = to_device(collate(tails, range(len(tails)), multiple=1), check_device(model))
    own = copy.copy(cache)  # the prompts' cache itself serves the next continuations too
    own.layers = [copy.copy(layer) for layer in cache.layers]
    if mask.shape[1]:
        own.batch_select_indices(owner)
    mask = mask[owner]  # (rows, P)
    batch["position_ids"] = batch["position_ids"] + mask.sum(-1, keepdim=True)
    batch["attention_mask"] = torch.cat([mask, batch["attention_mask"]], dim=-1)
    logits, target = answer_logits(model, {**batch, "past_key_values": own})
    scored = score(logits, target, batch["scored"])
    counts = scored.length.tolist()
    nlls, hits = scored.token_nll.double().cpu().split(counts), scored.hit.cpu().split(counts)
    if not all(nll.isfinite().all() for nll in nlls):
        raise WagleError(
            "the model gives log-probabilities that are not finite; evaluate it in float32"
        )
    if not any(r.moments for r in asked):
        return [LikelihoodAnswer(nll, hit) for nll, hit in zip(nlls, hits, strict=True)]
    spread = moments(logits).cpu().split(counts)
    return [
        LikelihoodAnswer(nll, hit, both if request.moments else None)
        for request, nll, hit, both in zip(asked, nlls, hits, spread, strict=True)
    ]


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


def prefill(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]
) -> tuple[DynamicCache, Tensor]:
    """Run prompts on a key/value cache: what all of them begin with once, the rest left-padded.

    Returns:
        The cache of B rows and its attention mask (B, P), 0 at the padding.
    """
    device = check_device(model)
    cache = DynamicCache(config=model.config)
    shortest, longest = min(prompts), max(prompts)  # in dictionary order: they differ the first
    pairs = zip(shortest, longest, strict=False)
    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(shortest), len(longest)))
    mask = torch.ones(len(prompts), shared, dtype=torch.int64, device=device)
    if shared:
        model.base_model(
            input_ids=torch.tensor([shortest[:shared]], device=device),
            attention_mask=mask[:1],
            position_ids=torch.arange(shared, device=device).unsqueeze(0),
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(len(prompts))
    rest = [Tokens(p[shared:], (False,) * (len(p) - shared)) for p in prompts]
    if any(r.ids for r in rest):
        batch = to_device(collate(rest, range(len(rest)), side="left", multiple=1), device)
        mask = torch.cat([mask, batch["attention_mask"]], dim=-1)
        model.base_model(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=batch["position_ids"] + shared,
            past_key_values=cache,
            use_cache=True,
        )
    return cache, mask
