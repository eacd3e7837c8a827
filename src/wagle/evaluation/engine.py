"""The engine: requests -> answers. It removes duplicates, sorts by length and batches.

The answers to one question share its prompt: the prompt runs once, its key/value cache serves
every continuation. Figures do not depend on batch size, padding or order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wagle.data.batches import by_length, collate
from wagle.data.tokens import Tokens
from wagle.errors import WagleError
from wagle.model import (
    answer_nll,
    check_device,
    check_length,
    precision,
    to_device,
    without_dropout,
)
from wagle.progress import track


@dataclass(frozen=True)
class Likelihood:
    """How likely is ``continuation`` after ``context``? Both are token ids, neither is empty.

    ``scored`` says which tokens of the continuation count (of a chat, the answers); empty: all.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    scored: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Greedy:
    """What does the model say after ``context``, at most ``max_new_tokens``?"""

    context: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class LikelihoodAnswer:
    """Per scored token: its NLL (float64) and whether the arg-max is right (bool)."""

    token_nll: Tensor
    hit: Tensor

    @property
    def mean(self) -> float:
        """M: the mean NLL in nats."""
        return float(self.token_nll.mean())


@dataclass(frozen=True)
class GreedyAnswer:
    """The ids that the model wrote, without what ended them, and whether it ended by itself."""

    ids: tuple[int, ...]
    finished: bool


_DECODE = 4  # a greedy answer keeps one row of logits, not one per token: larger batches fit

Request: TypeAlias = Likelihood | Greedy
Answers: TypeAlias = dict[Request, LikelihoodAnswer | GreedyAnswer]


def answer_requests(
    model: PreTrainedModel,
    requests: Iterable[Request],
    *,
    stop_ids: Sequence[int],
    batch_tokens: int = 2048,
    dtype: str = "float32",
) -> Answers:
    """Ask a model every distinct request once.

    Args:
        model: the model; its mode is restored.
        requests: in any order, with duplicates.
        stop_ids: the ids that end a greedy answer.
        batch_tokens: padded tokens per forward pass. Changes speed, never the answers.
        dtype: precision of the matrix products.
    """
    distinct = list(dict.fromkeys(requests))
    likely = [r for r in distinct if isinstance(r, Likelihood)]
    greedy = [r for r in distinct if isinstance(r, Greedy)]
    longest = [len(r.context) + len(r.continuation) for r in likely]
    longest += [len(r.context) + r.max_new_tokens for r in greedy]
    check_length(model, max(longest, default=0), "the longest question with its answer")
    training = model.training
    model.eval()
    answers: Answers = {}
    try:
        with torch.no_grad(), without_dropout(model), precision(check_device(model), dtype):
            _likelihoods(model, likely, batch_tokens, answers)
            _greedy(model, greedy, stop_ids, batch_tokens, answers)
    finally:
        model.train(training)
    return answers


# ---------------------------------------------------------------------------------------------
# Likelihoods


def _likelihoods(
    model: PreTrainedModel, requests: Sequence[Likelihood], batch_tokens: int, answers: Answers
) -> None:
    asked: dict[tuple[int, ...], list[Likelihood]] = {}
    for request in requests:
        if not request.context or not request.continuation:
            raise WagleError("a likelihood request needs a context and a continuation")
        asked.setdefault(request.context, []).append(request)
    groups = sorted(asked.items(), key=lambda group: (-len(group[0]), group[0]))
    batches = by_length([len(context) for context, _ in groups], batch_tokens)
    for batch in track(batches, "likelihoods", size=lambda b: sum(len(groups[i][1]) for i in b)):
        _likelihood_batch(model, [groups[i] for i in batch], batch_tokens, answers)


def _likelihood_batch(
    model: PreTrainedModel,
    groups: Sequence[tuple[tuple[int, ...], list[Likelihood]]],
    batch_tokens: int,
    answers: Answers,
) -> None:
    """Run the prompts, all but their last token, once; then every continuation on their cache.

    The last token of a prompt starts each continuation's row: it predicts the first answer token.
    Continuations are batched by their own length, whichever prompt they belong to.
    """
    cache, mask = _prefill(model, [context[:-1] for context, _ in groups])
    rows = [(g, r) for g, (_, requests) in enumerate(groups) for r in requests]
    lengths = [len(r.continuation) + 1 for _, r in rows]
    for chunk in by_length(lengths, batch_tokens):
        _continuations(model, cache, mask, [rows[i] for i in chunk], answers)


def _continuations(
    model: PreTrainedModel,
    cache: DynamicCache,
    mask: Tensor,
    rows: Sequence[tuple[int, Likelihood]],
    answers: Answers,
) -> None:
    """Score continuations; ``rows`` says to which row of the prompts' cache each one belongs."""
    device = check_device(model)
    tails = [
        Tokens(
            (r.context[-1], *r.continuation), (False, *(r.scored or (True,) * len(r.continuation)))
        )
        for _, r in rows
    ]
    batch = to_device(collate(tails, range(len(tails)), multiple=1), device)
    owner = torch.tensor([g for g, _ in rows], device=device)
    own = copy.copy(cache)  # the prompts' cache itself serves the next continuations too
    own.layers = [copy.copy(layer) for layer in cache.layers]
    if mask.shape[1]:
        own.batch_select_indices(owner)
    mask = mask[owner]  # (rows, P)
    batch["position_ids"] = batch["position_ids"] + mask.sum(-1, keepdim=True)
    batch["attention_mask"] = torch.cat([mask, batch["attention_mask"]], dim=-1)
    scored = answer_nll(model, {**batch, "past_key_values": own})
    counts = scored.length.tolist()
    nlls, hits = scored.token_nll.double().cpu().split(counts), scored.hit.cpu().split(counts)
    for (_, request), nll, hit in zip(rows, nlls, hits, strict=True):
        if not nll.isfinite().all():
            raise WagleError(
                "the model gives log-probabilities that are not finite; evaluate it in float32"
            )
        answers[request] = LikelihoodAnswer(nll, hit)


def _prefill(
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


# ---------------------------------------------------------------------------------------------
# Greedy continuations


def _greedy(
    model: PreTrainedModel,
    requests: Sequence[Greedy],
    stop_ids: Sequence[int],
    batch_tokens: int,
    answers: Answers,
) -> None:
    lengths = [len(r.context) + r.max_new_tokens for r in requests]
    for group in track(by_length(lengths, _DECODE * batch_tokens), "answers", size=len):
        _greedy_batch(model, [requests[i] for i in group], frozenset(stop_ids), answers)


def _greedy_batch(
    model: PreTrainedModel, requests: Sequence[Greedy], stop_ids: frozenset[int], answers: Answers
) -> None:
    """Decode token by token, the likeliest each time; a row leaves the batch where it ends.

    Written out because ``generate`` fills in what its caller leaves open from the model's own
    settings (a repetition penalty, say), and computes finished rows on to the end of the batch.
    """
    device = check_device(model)
    cache, mask = _prefill(model, [r.context[:-1] for r in requests])
    token = torch.tensor([r.context[-1] for r in requests], device=device)
    said: list[list[int]] = [[] for _ in requests]
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
        token = logits.float().argmax(-1)  # (rows,)
        going = []
        for place, (row, chosen) in enumerate(zip(rows, token.tolist(), strict=True)):
            if chosen in stop_ids:
                answers[requests[row]] = GreedyAnswer(tuple(said[row]), finished=True)
                continue
            said[row].append(chosen)
            if len(said[row]) == requests[row].max_new_tokens:
                answers[requests[row]] = GreedyAnswer(tuple(said[row]), finished=False)
            else:
                going.append(place)
        if len(going) < len(rows):
            kept = torch.tensor(going, dtype=torch.int64, device=device)
            cache.batch_select_indices(kept)
            rows, token, mask = [rows[place] for place in going], token[kept], mask[kept]
