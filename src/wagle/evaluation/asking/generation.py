"""Greedy and sampled continuations, token by token; a row leaves the batch where it ends.

Written out because ``generate`` takes whatever its caller leaves open from the model's own settings
(a repetition penalty, say), draws from a global generator, and keeps computing finished rows until
the batch ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

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
    texts = Texts(begun, stop_ids)
    ready = _after_begun(model, prompts, texts.requests, texts.said, batch_tokens)
    last = [
        (r.context[-1], *start)[-1] for r, start in zip(texts.requests, texts.said, strict=True)
    ]
    token = torch.tensor(last, device=ready.mask.device)
    write(model, texts, with_space(ready.cache, texts.longest()), ready.mask, token)
    return [texts.answer(row) for row in range(len(begun))]


class Texts:
    """What one batch has written so far.

    Args:
        begun: the requests, with the first ids of their answers.
        stop_ids: the ids that end an answer.
        told: called after every step with how many tokens were written, and the rows that ended.

    Attributes:
        requests: the requests.
        said: the ids of each answer.
        rows: those that have not ended, by their places among the requests.
    """

    def __init__(
        self,
        begun: Mapping[Greedy | Sample, Sequence[int]],
        stop_ids: frozenset[int],
        told: Callable[[int, Sequence[int]], None] = lambda *_: None,
    ) -> None:
        self.requests, self.said = list(begun), [list(start) for start in begun.values()]
        self.rows = list(range(len(self.requests)))
        self._stop_ids, self._told = stop_ids, told
        self._finished = [False] * len(self.requests)

    def longest(self) -> int:
        """How many more tokens are to be written at most."""
        room = (r.max_new_tokens - len(s) for r, s in zip(self.requests, self.said, strict=True))
        return max(room)

    def places(self, rows: Sequence[int]) -> list[tuple[Greedy | Sample, int]]:
        """The requests of some rows, and which token of its answer each takes next."""
        return [(self.requests[row], len(self.said[row])) for row in rows]

    def take(self, token: Tensor, cache: DynamicCache, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Add a token (rows,) to every row that has not ended; those that now end leave the batch.

        Returns:
            The tokens and the mask of the rows that go on, which are those left in the cache.
        """
        ended = []
        for place, (row, chosen) in enumerate(zip(self.rows, token.tolist(), strict=True)):
            if chosen in self._stop_ids:
                self._finished[row] = True
                ended.append(place)
                continue
            self.said[row].append(chosen)
            if len(self.said[row]) == self.requests[row].max_new_tokens:
                ended.append(place)
        wrote, gone = len(self.rows), [self.rows[place] for place in ended]
        if ended:
            going = remaining(len(self.rows), ended)
            kept = torch.tensor(going, dtype=torch.int64, device=mask.device)
            cache.batch_select_indices(kept)
            self.rows = [self.rows[place] for place in going]
            token, mask = token[kept], mask[kept]
        self._told(wrote, gone)
        return token, mask

    def answer(self, row: int) -> TextAnswer:
        """The answer of one row."""
        return TextAnswer(tuple(self.said[row]), self._finished[row])


def write(
    model: PreTrainedModel, texts: Texts, cache: DynamicCache, mask: Tensor, token: Tensor
) -> None:
    """Write token by token until every row has ended.

    Args:
        model: in eval mode.
        texts: what is written; its rows are those of the cache.
        cache: the keys and values of all tokens so far but the last of each row.
        mask: (rows, T) int64, 0 where a row of the cache holds nothing.
        token: (rows,) the last token of each row.
    """
    while texts.rows:
        position = mask.sum(-1, keepdim=True)  # (rows, 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        logits = model(
            input_ids=token.unsqueeze(-1),
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        chosen = choose(model, logits, texts.places(texts.rows))
        token, mask = texts.take(chosen, cache, mask)


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


def choose(
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
