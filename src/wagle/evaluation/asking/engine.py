"""The engine: requests -> answers. It removes duplicates, sorts by length and batches.

Figures do not depend on batch size, padding or order. Where memory runs out, batches are halved;
with a cache, every answer is on disk as soon as its batch is through, and is not asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from transformers import PreTrainedModel

from wagle.data.batches import by_length
from wagle.evaluation.asking.generation import answer_texts
from wagle.evaluation.asking.inspection import answer_norm, answer_states
from wagle.evaluation.asking.likelihoods import answer_likelihoods
from wagle.evaluation.asking.prompts import Prompts
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    LikelihoodAnswer,
    Reply,
    Request,
    Sample,
    TextAnswer,
)
from wagle.model.structure import check_length, device_of, precision, without_dropout
from wagle.system.errors import WagleError
from wagle.system.memory import free_memory, give_memory_back
from wagle.system.progress import Bar

if TYPE_CHECKING:
    from wagle.evaluation.asking.cache import AnswerCache

logger = logging.getLogger(__name__)
T = TypeVar("T")
Found = list[tuple[Request, Reply]]

_DECODE = 64  # a written answer takes one token a step: more rows keep the device busy
_MOST = {"cpu": 1024}  # tokens that keep a device busy; more only adds padding
_MOST_ELSEWHERE = 32_768
_LEAST = 256


def answer_requests(
    model: PreTrainedModel,
    requests: Iterable[Request],
    *,
    stop_ids: Sequence[int],
    batch_tokens: int | None = None,
    dtype: str = "float32",
    cache: AnswerCache | None = None,
) -> Answers:
    """Ask a model every distinct request once.

    Args:
        model: the model; its mode is restored.
        requests: in any order, with duplicates.
        stop_ids: the ids that end a written answer.
        batch_tokens: padded tokens per forward pass; None: as many as memory and device are good
            for. Changes speed, never the answers.
        dtype: precision of the matrix products.
        cache: of this model, precision and stop ids: what is there is not asked again, and every
            batch is entered as soon as it is answered.

    Raises:
        WagleError: an empty request, one that the model is too short for, log-probabilities that
            are not finite (named by record and model), or no memory for a single request.
    """
    answers, todo = Answers(), list(dict.fromkeys(requests))
    if cache is not None:
        known = {request: cache.get(request) for request in todo}
        answers.found.update({r: reply for r, reply in known.items() if reply is not None})
        todo = [r for r in todo if r not in answers.found]
    for request in todo:
        _check(request)
    check_length(model, max(map(_length, todo), default=0), "the longest question with its answer")
    budget = choose_budget(model) if batch_tokens is None else batch_tokens
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), without_dropout(model), precision(device_of(model), dtype):
            for found in _all(model, todo, frozenset(stop_ids), budget, answers):
                for request, reply in found:
                    answers.found[request] = reply
                    if cache is not None:
                        cache.put(request, reply)
                if cache is not None:
                    cache.flush()
    finally:
        model.train(training)
    return answers


def choose_budget(model: PreTrainedModel) -> int:
    """Padded tokens per forward pass that keep the device busy and fit into half its free memory.

    Per token it counts the keys and values of all blocks, the widest activations of one block and
    one row of logits, each also in float32.
    """
    config, device = model.config.get_text_config(decoder=True), device_of(model)
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    values = 2 * config.num_hidden_layers * width + 8 * width + 3 * inner + 2 * config.vocab_size
    fits = int(0.5 * free_memory(device) / (values * 4))
    return max(_LEAST, min(fits, _MOST.get(device.type, _MOST_ELSEWHERE)))


def _kept_budget(model: PreTrainedModel, budget: int) -> int:
    """Tokens whose keys and values written answers may keep: a quarter of the free memory."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    fits = int(0.25 * free_memory(device_of(model)) / per_token)
    return max(budget, min(_DECODE * budget, fits))


def _length(request: Request) -> int:
    if isinstance(request, HiddenStates):
        return len(request.ids)
    if isinstance(request, Greedy | Sample):
        return len(request.context) + request.max_new_tokens
    return len(request.context) + len(request.continuation)


def _check(request: Request) -> None:
    if isinstance(request, HiddenStates):
        if not request.positions or max(request.positions) >= len(request.ids):
            raise WagleError("a request for hidden states needs positions within its tokens")
    elif isinstance(request, Likelihood | GradientNorm):
        if not request.context or not request.continuation:
            raise WagleError("a likelihood request needs a context and a continuation")
        scored = request.scored
        if scored and (len(scored) != len(request.continuation) or not any(scored)):
            raise WagleError("a likelihood request scores some of its continuation's tokens")
    elif not request.context or request.max_new_tokens < 1:
        raise WagleError("a request for text needs a context and room for at least one token")
    elif isinstance(request, Sample) and not (request.temperature > 0 and 0 < request.top_p <= 1):
        raise WagleError(
            f"a sample has temperature {request.temperature} and top_p {request.top_p}; give a "
            "temperature above 0 and 0 < top_p <= 1"
        )


def _all(
    model: PreTrainedModel,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    budget: int,
    answers: Answers,
) -> Iterator[Found]:
    """All answers, batch by batch, one kind of request after the other."""
    beginnings = _Beginnings(stop_ids)
    for request, reply in answers.found.items():
        beginnings.learn(request, reply)
    yield from _questions(model, requests, stop_ids, budget, beginnings)
    states = [r for r in requests if isinstance(r, HiddenStates)]
    yield from _batches(
        states,
        budget,
        _length,
        lambda batch, _: [list(zip(batch, answer_states(model, batch), strict=True))],
        "states",
    )
    norms = [r for r in requests if isinstance(r, GradientNorm)]
    yield from _batches(
        norms,
        1,
        lambda _: 1,
        lambda batch, _: [[(batch[0], answer_norm(model, batch[0]))]],
        "norms",
    )


@dataclass
class _Question:
    """All that is asked after one context, which runs once for it."""

    context: tuple[int, ...]
    likelihoods: list[Likelihood] = field(default_factory=list)
    written: list[Greedy | Sample] = field(default_factory=list)

    def kept(self) -> int:
        """Tokens whose keys and values it keeps."""
        return max(len(self.context), sum(map(_length, self.written)))

    def asked(self) -> int:
        """How many requests it is."""
        return len(self.likelihoods) + len(self.written)


def _questions(
    model: PreTrainedModel,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    budget: int,
    beginnings: _Beginnings,
) -> Iterator[Found]:
    """Likelihoods and written answers: prompts of many questions, their trees, what they go on with."""
    asked: dict[Likelihood, list[Likelihood]] = {}
    for request in requests:
        if isinstance(request, Likelihood):
            asked.setdefault(replace(request, moments=False), []).append(request)
    questions: dict[tuple[int, ...], _Question] = {}
    for plain, same in asked.items():
        fullest = replace(plain, moments=any(r.moments for r in same))
        one = questions.setdefault(plain.context, _Question(plain.context))
        one.likelihoods.append(fullest)
    for request in requests:
        if isinstance(request, Greedy | Sample):
            one = questions.setdefault(request.context, _Question(request.context))
            one.written.append(request)

    def answer(batch: Sequence[_Question], keeps: int) -> Iterator[Found]:
        within = min(budget, keeps)
        needed = [q for q in batch if q.likelihoods or beginnings.split(q.written)[1]]
        if needed:
            prompts = Prompts.run(model, [q.context for q in needed], within)
        likely = [request for q in needed for request in q.likelihoods]
        for piece in answer_likelihoods(model, prompts, likely, within) if likely else ():
            for request, reply in piece:
                beginnings.learn(request, reply)
            yield list(_as_asked(piece, asked))
        whole, begun = beginnings.split([request for q in batch for request in q.written])
        yield list(whole.items())
        rest = list(begun)
        for chunk in by_length([_length(request) for request in rest], keeps):
            some = {rest[i]: begun[rest[i]] for i in chunk}
            said = answer_texts(model, prompts, some, stop_ids, within)
            yield list(zip(some, said, strict=True))

    yield from _batches(
        list(questions.values()),
        _kept_budget(model, budget),
        _Question.kept,
        answer,
        "questions",
        size=_Question.asked,
    )


class _Beginnings:
    """What likelihoods say of greedy answers: as long as the arg-max is right, it is what is said."""

    def __init__(self, stop_ids: frozenset[int]) -> None:
        self.stop_ids = stop_ids
        self._right: dict[tuple[int, ...], tuple[int, ...]] = {}

    def learn(self, request: Request, reply: Reply) -> None:
        """Take in an answer."""
        if not isinstance(request, Likelihood) or not isinstance(reply, LikelihoodAnswer):
            return
        hits = reply.hit.tolist()
        if len(hits) == len(request.continuation):  # all of it is scored
            right = next((i for i, hit in enumerate(hits) if not hit), len(hits))
            if right > len(self._right.get(request.context, ())):
                self._right[request.context] = request.continuation[:right]

    def split(
        self, written: Sequence[Greedy | Sample]
    ) -> tuple[dict[Request, Reply], dict[Greedy | Sample, tuple[int, ...]]]:
        """The answers that are known to their end, and what is known of the others."""
        whole: dict[Request, Reply] = {}
        begun: dict[Greedy | Sample, tuple[int, ...]] = {}
        for asked in written:
            start = self._right.get(asked.context, ()) if isinstance(asked, Greedy) else ()
            end = next((i for i, token in enumerate(start) if token in self.stop_ids), None)
            if end is not None and end < asked.max_new_tokens:
                whole[asked] = TextAnswer(start[:end], finished=True)
            elif len(start) >= asked.max_new_tokens:
                whole[asked] = TextAnswer(start[: asked.max_new_tokens], finished=False)
            else:
                begun[asked] = start
        return whole, begun


def _as_asked(
    piece: Sequence[tuple[Likelihood, LikelihoodAnswer]],
    asked: dict[Likelihood, list[Likelihood]],
) -> Iterator[tuple[Request, Reply]]:
    for request, reply in piece:
        for own in asked[replace(request, moments=False)]:
            yield own, reply if own.moments else replace(reply, moments=None)


def _batches(
    items: Sequence[T],
    budget: int,
    length: Callable[[T], int],
    answer: Callable[[Sequence[T], int], Iterable[Found]],
    what: str,
    *,
    size: Callable[[T], int] = lambda _: 1,
) -> Iterator[Found]:
    """Answer items batch by batch, longest first: if memory is short, the first batch says so.

    Args:
        items: requests, or groups of requests.
        budget: padded tokens of a batch; halved for good when memory runs out.
        length: of an item, in tokens.
        answer: a batch, within a budget, piece by piece; from the start where memory ran out.
        what: for the progress bar.
        size: how many requests an item is.
    """
    if not items:
        return
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    place = 0
    with Bar(what, sum(map(size, items))) as bar:
        while place < len(order):
            widest = max(1, length(items[order[place]]))
            batch = [items[i] for i in order[place : place + max(1, budget // widest)]]
            done, short = 0, False
            try:
                for found in answer(batch, budget):
                    yield found
                    done += len(found)
                    bar.advance(len(found))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_shortage(error):
                    raise
                if budget <= 1:
                    raise WagleError(
                        f"memory runs out at {widest} tokens; store the weights in a "
                        "smaller dtype, shorten the records or take a larger machine"
                    ) from None
                short = True
            if short:  # out of the handler, whose traceback holds on to the tensors
                give_memory_back()
                bar.advance(-done)
                used = len(batch) * widest
                budget = max(1, min(budget, used) // 2)
                logger.warning(
                    "memory ran out at %d tokens a batch; going on with %d", used, budget
                )
                continue
            place += len(batch)


def _is_shortage(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or on the CPU (whose allocator has no error of its own)."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
