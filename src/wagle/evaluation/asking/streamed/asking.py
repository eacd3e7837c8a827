"""All requests in one reading of a model whose blocks are on disk, and one reading a token.

Likelihoods, hidden states and norms of gradients go through the model in step; then written answers
do, token by token. What does not fit into memory at a time takes another reading.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from wagle.data.batches import by_length
from wagle.evaluation.asking.batching import Found, is_shortage
from wagle.evaluation.asking.beginnings import Beginnings
from wagle.evaluation.asking.inspection import answer_states
from wagle.evaluation.asking.likelihoods import Once, Tree
from wagle.evaluation.asking.requests import (
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    Reply,
    Request,
    Sample,
)
from wagle.evaluation.asking.streamed.norms import Norms
from wagle.evaluation.asking.streamed.room import JOBS, Room
from wagle.evaluation.asking.streamed.rows import row_length, score_rows, trees_of
from wagle.evaluation.asking.streamed.texts import write_in_step
from wagle.model.streaming.opening import each
from wagle.model.structure import find_blocks
from wagle.system.errors import WagleError
from wagle.system.memory import give_memory_back
from wagle.system.progress import Bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """What one job asks.

    Attributes:
        count: how many requests.
        tokens: padded ones, whose hidden states wait between two blocks.
        traced: those whose hidden states are kept for a way back.
        ask: asks the model; without a result if only the way back brings it.
    """

    count: int
    tokens: int
    traced: int
    ask: Callable[[], Found]


def ask_in_step(
    model: PreTrainedModel,
    requests: Sequence[Request],
    known: Mapping[Request, Reply],
    stop_ids: frozenset[int],
    budget: int,
    told: Callable[[Found], None],
) -> None:
    """Ask a streamed model everything.

    Args:
        model: in eval mode, without gradients.
        requests: what to ask; none of it is known.
        known: answers that are known already, which may show how texts begin.
        stop_ids: the ids that end a written answer.
        budget: padded tokens per forward pass; halved when memory runs out.
        told: takes every answer once.
    """
    beginnings, found = Beginnings(stop_ids), set[Request]()
    for request, reply in known.items():
        beginnings.learn(request, reply)

    def tell(answers: Found) -> None:
        for request, reply in answers:
            beginnings.learn(request, reply)
        found.update(request for request, _ in answers)
        told(answers)

    def left(*kinds: type) -> list[Request]:
        return [r for r in requests if isinstance(r, kinds) and r not in found]

    read, write = (Likelihood, HiddenStates, GradientNorm), (Greedy, Sample)
    limits = _Limits(budget, Room.of(model))
    with Bar("requests", len(left(*read))) as bar:
        while some := left(*read):
            limits.hold(partial(_read_once, model, some, bar, tell))
    whole, _ = beginnings.split(left(*write))  # type: ignore[arg-type]
    tell(list(whole.items()))
    while some := left(*write):
        begun = beginnings.split(some)[1]  # type: ignore[arg-type]
        limits.hold(partial(write_in_step, model, begun, stop_ids, tell))


class _Limits:
    """What is asked at a time, halved whenever memory runs out.

    Args:
        budget: padded tokens per forward pass.
        room: what waits between blocks.
    """

    def __init__(self, budget: int, room: Room) -> None:
        self._budget, self._room = budget, room

    def hold(self, work: Callable[[int, Room], None]) -> None:
        """Do something within the limits; if memory runs out, it was done in part only."""
        try:
            work(self._budget, self._room)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            if self._budget <= 1:
                raise WagleError(
                    "memory runs out with one request at a time; shorten the records, or use a "
                    "larger machine"
                ) from None
        else:
            return
        give_memory_back()  # outside the handler, whose traceback keeps the tensors alive
        logger.warning("memory ran out; continuing with half as much at a time")
        self._budget, self._room = self._budget // 2, self._room.halved()


def _read_once(
    model: PreTrainedModel,
    requests: Sequence[Request],
    bar: Bar,
    told: Callable[[Found], None],
    budget: int,
    room: Room,
) -> None:
    """Answer as many requests as fit beside one another in one reading of the model."""
    norms = Norms(model)
    wave: list[_Batch] = []
    for batch in _batches(model, requests, budget, norms):
        waiting = sum(other.tokens for other in wave) + batch.tokens
        traced = sum(other.traced for other in wave) + batch.traced
        if wave and (waiting > room.waiting or traced > room.traced or len(wave) == JOBS):
            break
        wave.append(batch)

    def ask(batch: _Batch) -> None:
        told(batch.ask())

    with contextlib.ExitStack() as stack:
        if any(batch.traced for batch in wave):
            stack.enter_context(norms.wanted())
        stack.enter_context(_shown(model, bar, wave))
        each(model, ask, wave)
        told(norms.finish())


def _batches(
    model: PreTrainedModel, requests: Sequence[Request], budget: int, norms: Norms
) -> Iterator[_Batch]:
    """Everything that one pass through the model answers, batch by batch."""
    once = Once(request for request in requests if isinstance(request, Likelihood))
    for trees, branching in zip(trees_of(model, once.fullest()), (True, False), strict=True):
        lengths = [row_length(tree) for tree in trees]
        for group in by_length(lengths, budget):
            some = [trees[i] for i in group]

            def score(some: Sequence[Tree] = some, branching: bool = branching) -> Found:
                return once.as_asked(score_rows(model, some, branching=branching))

            count = sum(once.count(request) for tree in some for request in tree.requests)
            yield _Batch(count, len(group) * lengths[group[0]], 0, score)
    states = [request for request in requests if isinstance(request, HiddenStates)]
    for group in by_length([len(request.ids) for request in states], budget):
        asked = [states[i] for i in group]

        def look(asked: Sequence[HiddenStates] = asked) -> Found:
            return list(zip(asked, answer_states(model, asked), strict=True))

        yield _Batch(len(asked), len(group) * len(asked[0].ids), 0, look)
    for request in requests:
        if isinstance(request, GradientNorm):
            tokens = len(request.context) + len(request.continuation)
            yield _Batch(1, tokens, tokens, partial(norms.go, request))


@contextlib.contextmanager
def _shown(model: PreTrainedModel, bar: Bar, wave: Sequence[_Batch]) -> Iterator[None]:
    """Let a bar advance while some batches go from block to block."""
    blocks, count = find_blocks(model)[1], sum(batch.count for batch in wave)
    total, done, shown = len(blocks) * len(wave), 0, 0

    def step(*_: object) -> None:
        nonlocal done, shown
        done += 1
        now = min(count, count * done // total)
        bar.advance(now - shown)
        shown = now

    handles = [block.register_forward_hook(step) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
