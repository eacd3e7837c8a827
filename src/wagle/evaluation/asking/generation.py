"""Greedy and sampled continuations, token by token; a row leaves the batch where it ends.

Written out because ``generate`` takes whatever its caller leaves open from the model's own settings
(a repetition penalty, say), draws from a global generator, and keeps computing finished rows until
the batch ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wagle.data.draws import uniform
from wagle.evaluation.asking.kv_cache import remaining, with_space
from wagle.evaluation.asking.prompts import Kept, Prompts
from wagle.evaluation.asking.requests import Greedy, Sample, TextAnswer, not_finite
from wagle.model.scoring import keeps_all


def answer_texts(
    model: PreTrainedModel,
    prompts: Prompts,
    begun: Mapping[Greedy | Sample, Sequence[int]],
    stop_ids: frozenset[int],
    batch_tokens: int,
) -> list[TextAnswer]:
    """Let the model write one batch of continuations, each resuming from what is known of it.

    A greedy answer takes the likeliest token (the lowest id among equals). A sample takes the token
    at which the cumulative probability, likeliest first, passes a number that depends only on its
    key and the position, not on the batch or on any generator.

    Args:
        model: in eval mode.
        prompts: the prompts of all requests.
        begun: the requests of one batch, with the first ids of their answers if known: without a
            stop id, and fewer than ``max_new_tokens``.
        stop_ids: the ids that end an answer.
        batch_tokens: padded tokens per forward pass over those first ids.

    Returns:
        The answers, in the order of the requests.
    """
    requests, said = list(begun), [list(start) for start in begun.values()]
    ready = _after_begun(model, prompts, requests, said, batch_tokens)
    steps = max(r.max_new_tokens - len(start) for r, start in zip(requests, said, strict=True))
    cache, mask = with_space(ready.cache, steps), ready.mask
    last = [(r.context[-1], *start)[-1] for r, start in zip(requests, said, strict=True)]
    token = torch.tensor(last, device=mask.device)
    finished = [False] * len(requests)
    rows = list(range(len(requests)))
    while rows:
        position = mask.sum(-1, keepdim=True)  # (rows, 1)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
        logits = model(
            input_ids=token.unsqueeze(-1),
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        token = _choose(model, logits, [(requests[row], len(said[row])) for row in rows])
        ended = []
        for place, (row, chosen) in enumerate(zip(rows, token.tolist(), strict=True)):
            if chosen in stop_ids:
                finished[row] = True
                ended.append(place)
                continue
            said[row].append(chosen)
            if len(said[row]) == requests[row].max_new_tokens:
                ended.append(place)
        if ended:
            going = remaining(len(rows), ended)
            kept = torch.tensor(going, dtype=torch.int64, device=mask.device)
            cache.batch_select_indices(kept)
            rows, token, mask = [rows[place] for place in going], token[kept], mask[kept]
    return [TextAnswer(tuple(ids), end) for ids, end in zip(said, finished, strict=True)]


def _after_begun(
    model: PreTrainedModel,
    prompts: Prompts,
    requests: Sequence[Greedy | Sample],
    said: Sequence[Sequence[int]],
    batch_tokens: int,
) -> Kept:
    """A cache of all tokens so far but the last, one row per request."""
    if any(said) and not keeps_all(model, prompts.kept.cache):  # windows would count the padding
        whole = [(*r.context, *start) for r, start in zip(requests, said, strict=True)]
        return Prompts.run(model, whole, batch_tokens).take(whole)
    rest = [(r.context[-1], *start)[:-1] for r, start in zip(requests, said, strict=True)]
    return prompts.take([r.context for r in requests]).go_on(model, rest, batch_tokens)


def _choose(
    model: PreTrainedModel, logits: Tensor, rows: Sequence[tuple[Greedy | Sample, int]]
) -> Tensor:
    """The next token of every row, from (rows, V) logits; ``rows`` has each one's length."""
    usable = logits.amax(-1).isfinite()  # no NaN anywhere, and at least one possible token
    if not usable.all():
        request, _ = rows[usable.tolist().index(False)]
        raise not_finite("log-probabilities", logits.dtype, model, request.place)
    logits = logits.float()
    token = logits.argmax(-1)
    for row, (request, place) in enumerate(rows):
        if isinstance(request, Sample):
            token[row] = draw(
                logits[row],
                request.temperature,
                request.top_p,
                uniform("sample", request.key, place),
            )
    return token


def draw(logits: Tensor, temperature: float, top_p: float, number: float) -> int:
    """The token at which the cumulative probability passes ``number``.

    Args:
        logits: (V,) float32.
        temperature: above 0; 1 leaves the distribution as it is.
        top_p: draw only from the likeliest tokens that together reach this probability.
        number: in [0, 1).
    """
    sorted_logits, order = logits.double().sort(descending=True, stable=True)
    cumulated = (sorted_logits / temperature).softmax(-1).cumsum(-1)
    inside = int((cumulated < top_p).sum()) + 1  # the first that reaches it is inside
    cumulated = cumulated[:inside]
    place = int(torch.searchsorted(cumulated, number * cumulated[-1], right=True))
    return int(order[min(place, len(cumulated) - 1)])
