"""The engine: requests -> answers. It removes duplicates, sorts by length and batches.

Figures do not depend on batch size, padding or order. When memory runs out, batches are halved;
with a cache, every answer is on disk as soon as its batch is done, and is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from wagle.data.batches import by_length
from wagle.evaluation.asking.batching import Found, choose_budget, in_batches, kept_budget
from wagle.evaluation.asking.beginnings import Beginnings
from wagle.evaluation.asking.generation import answer_texts
from wagle.evaluation.asking.inspection import answer_norm, answer_states
from wagle.evaluation.asking.likelihoods import Once, answer_likelihoods
from wagle.evaluation.asking.prompts import Prompts
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    Reply,
    Request,
    Sample,
)
from wagle.evaluation.asking.streamed.asking import ask_in_step
from wagle.evaluation.asking.streamed.sending import Sent
from wagle.model.streaming.opening import is_streamed
from wagle.model.structure import (
    check_ids,
    check_length,
    device_of,
    is_sharded,
    precision,
    without_dropout,
)
from wagle.system.errors import WagleError
from wagle.system.processes import group
from wagle.system.processes.leading import Known, Unsendable, together

if TYPE_CHECKING:
    from wagle.evaluation.asking.cache import AnswerCache


def answer_requests(
    model: PreTrainedModel,
    requests: Iterable[Request],
    *,
    stop_ids: Sequence[int],
    batch_tokens: int | None = None,
    dtype: str = "float32",
    cache: AnswerCache | None = None,
) -> Answers:
    """Ask a model every distinct request once; several processes share the work.

    Args:
        model: the model; its mode is restored.
        requests: in any order, with duplicates.
        stop_ids: the ids that end a written answer.
        batch_tokens: padded tokens per forward pass; None: as many as memory and device allow. It
            changes the speed, never the answers.
        dtype: precision of matrix products.
        cache: the cache of this model, precision and stop ids: what is there is not asked again,
            and every batch is stored as soon as it is answered.

    Raises:
        WagleError: a request is empty or too long for the model, log-probabilities are not finite
            (record and model are named), or memory is too small for a single request.
    """
    answers, todo = Answers(), list(dict.fromkeys(requests))
    if cache is not None:
        known = {request: cache.get(request) for request in todo}
        answers.found.update({r: reply for r, reply in known.items() if reply is not None})
        todo = [r for r in todo if r not in answers.found]
    for request in todo:
        _check(request)
    check_length(model, max(map(_length, todo), default=0), "the longest question with its answer")
    check_ids(model, (ids for request in todo for ids in _ids(request)))
    # The cache says which model it is; without one, the other processes do not know it.
    sent = Sent(model) if is_streamed(model) else model
    work = (
        sent if cache is None else Known(cache.model, sent),
        todo,
        answers.found,
        frozenset(stop_ids),
        batch_tokens,
        dtype,
        cache,
    )
    try:
        answers.found = together(_answer_all, *work)
    except Unsendable:  # such as a model quantised in memory
        answers.found = _answer_all(*work)
    return answers


def _answer_all(
    model: PreTrainedModel | Sent | Known[PreTrainedModel | Sent],
    todo: Sequence[Request],
    known: dict[Request, Reply],
    stop_ids: frozenset[int],
    batch_tokens: int | None,
    dtype: str,
    cache: AnswerCache | None,
) -> dict[Request, Reply]:
    """All answers, on every process; each asks the model its part of what is not known."""
    asked = model.value if isinstance(model, Known) else model
    live = asked.model if isinstance(asked, Sent) else asked
    todo, known = group.from_main((todo, known))
    own = todo if is_sharded(live) else _own_part(todo)
    found = Answers()
    found.found.update(known)
    budget = group.from_main(choose_budget(live)) if batch_tokens is None else batch_tokens

    def ask() -> dict[Request, Reply]:
        training = live.training
        live.eval()
        try:
            with torch.no_grad(), without_dropout(live), precision(device_of(live), dtype):
                return _ask(live, own, stop_ids, budget, found, cache)
        finally:
            live.train(training)

    for made in group.gather(group.agreed(ask)):
        found.found.update(made)
    return found.found


def _ask(
    model: PreTrainedModel,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    budget: int,
    answers: Answers,
    cache: AnswerCache | None,
) -> dict[Request, Reply]:
    """The answers to some requests; each batch is in the cache as soon as it is answered."""
    made: dict[Request, Reply] = {}

    def keep(found: Found) -> None:
        for request, reply in found:
            answers.found[request] = made[request] = reply
            if cache is not None:
                cache.put(request, reply)
        if cache is not None:
            cache.flush()

    if is_streamed(model):
        ask_in_step(model, requests, dict(answers.found), stop_ids, budget, keep)
    else:
        for found in _all(model, requests, stop_ids, budget, answers):
            keep(found)
    return made


def _own_part(requests: Sequence[Request]) -> list[Request]:
    """This process's part: the questions are dealt out by their cost, the dearest first.

    What is asked after one context stays together, because its tokens run once for all of it.
    """
    if group.world() == 1:
        return list(requests)
    questions: dict[Any, list[Request]] = {}
    for request in requests:
        key = request.ids if isinstance(request, HiddenStates) else request.context
        questions.setdefault(key, []).append(request)
    costs = [sum(map(_length, asked)) for asked in questions.values()]
    every = list(questions.values())
    loads = [0] * group.world()
    own: list[Request] = []
    for i in sorted(range(len(every)), key=lambda i: (-costs[i], i)):
        least = loads.index(min(loads))
        loads[least] += costs[i]
        if least == group.rank():
            own += every[i]
    return own


def _length(request: Request) -> int:
    if isinstance(request, HiddenStates):
        return len(request.ids)
    if isinstance(request, Greedy | Sample):
        return len(request.context) + request.max_new_tokens
    return len(request.context) + len(request.continuation)


def _ids(request: Request) -> tuple[Sequence[int], ...]:
    """The tokens that a request shows the model."""
    if isinstance(request, HiddenStates):
        return (request.ids,)
    if isinstance(request, Greedy | Sample):
        return (request.context,)
    return (request.context, request.continuation)


def _check(request: Request) -> None:
    if isinstance(request, HiddenStates):
        if not request.positions or max(request.positions) >= len(request.ids):
            raise WagleError("a request for hidden states needs positions within its tokens")
    elif isinstance(request, Likelihood | GradientNorm):
        if not request.context or not request.continuation:
            raise WagleError("a likelihood request needs a context and a continuation")
        scored = request.scored
        if scored and (len(scored) != len(request.continuation) or not any(scored)):
            raise WagleError("a likelihood request must score some of its continuation's tokens")
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
    beginnings = Beginnings(stop_ids)
    for request, reply in answers.found.items():
        beginnings.learn(request, reply)
    yield from _questions(model, requests, stop_ids, budget, beginnings)
    states = [r for r in requests if isinstance(r, HiddenStates)]
    yield from in_batches(
        states,
        budget,
        _length,
        lambda batch, _: [list(zip(batch, answer_states(model, batch), strict=True))],
        "states",
    )
    norms = [r for r in requests if isinstance(r, GradientNorm)]
    yield from in_batches(
        norms,
        1,
        lambda _: 1,
        lambda batch, _: [[(batch[0], answer_norm(model, batch[0]))]],
        "norms",
    )


@dataclass
class _Question:
    """Everything that is asked after one context, which runs only once."""

    context: tuple[int, ...]
    likelihoods: list[Likelihood] = field(default_factory=list)
    written: list[Greedy | Sample] = field(default_factory=list)

    def kept(self) -> int:
        """How many tokens' keys and values it keeps."""
        return max(len(self.context), sum(map(_length, self.written)))

    def asked(self) -> int:
        """How many requests it holds."""
        return len(self.likelihoods) + len(self.written)


def _questions(
    model: PreTrainedModel,
    requests: Sequence[Request],
    stop_ids: frozenset[int],
    budget: int,
    beginnings: Beginnings,
) -> Iterator[Found]:
    """Likelihoods and written answers: the prompts of many questions, their trees, their texts."""
    once = Once(request for request in requests if isinstance(request, Likelihood))
    questions: dict[tuple[int, ...], _Question] = {}
    for fullest in once.fullest():
        one = questions.setdefault(fullest.context, _Question(fullest.context))
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
            yield once.as_asked(piece)
        whole, begun = beginnings.split([request for q in batch for request in q.written])
        yield list(whole.items())
        rest = list(begun)
        for chunk in by_length([_length(request) for request in rest], keeps):
            some = {rest[i]: begun[rest[i]] for i in chunk}
            said = answer_texts(model, prompts, some, stop_ids, within)
            yield list(zip(some, said, strict=True))

    yield from in_batches(
        list(questions.values()),
        kept_budget(model, budget),
        _Question.kept,
        answer,
        "questions",
        size=_Question.asked,
    )
