"""The engine: requests -> answers. It removes duplicates, sorts by length and batches.

The answers to one question share its prompt: the prompt runs once, its key/value cache serves
every continuation. Figures do not depend on batch size, padding or order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from wagle.data.batches import by_length, collate
from wagle.data.tokens import Tokens
from wagle.errors import WagleError
from wagle.model import answer_nll, check_device, precision, to_device, without_dropout
from wagle.progress import track


@dataclass(frozen=True)
class Likelihood:
    """How likely is ``continuation`` after ``context``? Both are token ids, neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Greedy:
    """What does the model say after ``context``, at most ``max_new_tokens``?"""

    context: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class LikelihoodAnswer:
    """Per token of the continuation: its NLL (float64) and whether the arg-max is right (bool)."""

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
    groups = list(asked.items())
    cost = [len(c) + sum(len(r.continuation) for r in rs) for c, rs in groups]
    batches = by_length(cost, batch_tokens)
    for batch in track(batches, "likelihoods", size=lambda b: sum(len(groups[i][1]) for i in b)):
        _likelihood_batch(model, [groups[i] for i in batch], answers)


def _likelihood_batch(
    model: PreTrainedModel,
    groups: Sequence[tuple[tuple[int, ...], list[Likelihood]]],
    answers: Answers,
) -> None:
    """Run the prompts, all but their last token, once; then every continuation on their cache.

    The last token of a prompt starts each continuation's row: it predicts the first answer token.
    """
    device = check_device(model)
    cache = DynamicCache(config=model.config)
    heads = [Tokens(context[:-1], (False,) * (len(context) - 1)) for context, _ in groups]
    prompts = collate(heads, range(len(heads)), side="left", multiple=1)
    if prompts["input_ids"].shape[1]:
        model.base_model(
            **_inputs(to_device(prompts, device)), past_key_values=cache, use_cache=True
        )
    rows = [(g, r) for g, (_, requests) in enumerate(groups) for r in requests]
    tails = [
        Tokens((r.context[-1], *r.continuation), (False, *(True,) * len(r.continuation)))
        for _, r in rows
    ]
    batch = collate(tails, range(len(tails)), multiple=1)
    owner = torch.tensor([g for g, _ in rows])
    if prompts["input_ids"].shape[1]:
        cache.batch_select_indices(owner.to(device))
    before = prompts["attention_mask"][owner]  # (rows, P)
    batch["position_ids"] = batch["position_ids"] + before.sum(-1, keepdim=True)
    batch["attention_mask"] = torch.cat([before, batch["attention_mask"]], dim=-1)
    scored = answer_nll(model, {**to_device(batch, device), "past_key_values": cache})
    counts = scored.length.tolist()
    nlls, hits = scored.token_nll.double().cpu().split(counts), scored.hit.cpu().split(counts)
    for (_, request), nll, hit in zip(rows, nlls, hits, strict=True):
        if not nll.isfinite().all():
            raise WagleError(
                "the model gives log-probabilities that are not finite; evaluate it in float32"
            )
        answers[request] = LikelihoodAnswer(nll, hit)


def _inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids")}


# ---------------------------------------------------------------------------------------------
# Greedy continuations


@contextlib.contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Hide the model's own generation settings.

    ``generate`` fills in what ours leave open: with the repetition penalty of a folder such as
    Qwen's, greedy answers would be something else.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _greedy(
    model: PreTrainedModel,
    requests: Sequence[Greedy],
    stop_ids: Sequence[int],
    batch_tokens: int,
    answers: Answers,
) -> None:
    device = check_device(model)
    generate: Any = model.generate
    lengths = [len(r.context) + r.max_new_tokens for r in requests]
    for group in track(by_length(lengths, _DECODE * batch_tokens), "answers", size=len):
        chosen = [requests[i] for i in group]
        heads = [Tokens(r.context, (False,) * len(r.context)) for r in chosen]
        batch = to_device(collate(heads, group, side="left", multiple=1), device)
        settings = GenerationConfig(
            max_new_tokens=max(r.max_new_tokens for r in chosen),
            do_sample=False,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=stop_ids[0] if stop_ids else 0,
        )
        with _plain_generation(model):
            made = generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                generation_config=settings,
            )[:, batch["input_ids"].shape[1] :]
        for request, row in zip(chosen, made.tolist(), strict=True):
            row = row[: request.max_new_tokens]
            ends = [i for i, token in enumerate(row) if token in stop_ids]
            answers[request] = GreedyAnswer(tuple(row[: ends[0]] if ends else row), bool(ends))
