"""Written answers of a model whose blocks are on disk: all texts take each step together.

The prompts run first, which gives every text its first token; from there on, one reading of the
model gives one token of every text. Keys and values wait on a shelf.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from wagle.data.batches import by_length, collate
from wagle.data.tokens import Tokens
from wagle.evaluation.asking.batching import Found
from wagle.evaluation.asking.generation import Texts, answer_texts, choose, write
from wagle.evaluation.asking.prompts import Prompts
from wagle.evaluation.asking.requests import Greedy, Sample
from wagle.evaluation.asking.streamed.room import JOBS, Room
from wagle.evaluation.asking.streamed.shelf import Group, Shelf, can_keep
from wagle.model.streaming.opening import in_step
from wagle.model.structure import device_of, head_at, to_device
from wagle.system.progress import Bar

Begun = Mapping[Greedy | Sample, Sequence[int]]


def write_in_step(
    model: PreTrainedModel,
    begun: Begun,
    stop_ids: frozenset[int],
    told: Callable[[Found], None],
    budget: int,
    room: Room,
) -> None:
    """Write texts; each is told as soon as it ends.

    Args:
        model: in eval mode, without gradients.
        begun: the requests, with the first ids of their answers: without a stop id, and fewer than
            ``max_new_tokens``.
        stop_ids: the ids that end an answer.
        told: takes a finished text.
        budget: padded tokens of prompts per forward pass.
        room: how much is kept.
    """
    requests = list(begun)
    lengths = [len(r.context) + r.max_new_tokens for r in requests]
    with Bar("texts", len(requests)) as bar:
        rate = _Rate(bar)

        def step(found: Found, tokens: int) -> None:
            told(found)
            rate.step(tokens, len(found))

        for wave in _waves(lengths, room):
            batches = [{requests[i]: begun[requests[i]] for i in group} for group in wave]
            if not can_keep(model):
                in_step(
                    model,
                    [partial(_write_alone, model, b, stop_ids, budget, step) for b in batches],
                )
                continue
            with contextlib.closing(Shelf(room.memory)) as shelf:
                made = [_Batch(model, b, stop_ids, shelf, step) for b in batches]
                in_step(model, [job for batch in made for job in batch.prompts(budget)])
                in_step(model, [batch.write for batch in made])


def _waves(lengths: Sequence[int], room: Room) -> list[list[list[int]]]:
    """Batches of texts of similar length; as many of them at a time as can be kept."""
    waves: list[list[list[int]]] = []
    kept = 0
    for group in by_length(lengths, room.beside):
        size = len(group) * lengths[group[0]]
        if not waves or kept + size > room.written or len(waves[-1]) == JOBS:
            waves.append([])
            kept = 0
        waves[-1].append(group)
        kept += size
    return waves


class _Rate:
    """Shows on a bar how many texts have ended, and tokens per second."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._began, self._tokens = bar, time.monotonic(), 0

    def step(self, tokens: int, ended: int) -> None:
        """Count the tokens of a step, and the texts that ended with it."""
        self._tokens += tokens
        spent = max(time.monotonic() - self._began, 1e-9)
        self._bar.advance(ended, **{"tokens/s": self._tokens / spent})


class _Batch:
    """Texts that are written as one batch.

    Args:
        model: in eval mode, without gradients.
        begun: the requests, with the first ids of their answers.
        stop_ids: the ids that end an answer.
        shelf: where keys and values are kept.
        told: takes the texts that end with a step, and how many tokens that step wrote.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        begun: Begun,
        stop_ids: frozenset[int],
        shelf: Shelf,
        told: Callable[[Found, int], None],
    ) -> None:
        def step(tokens: int, ended: Sequence[int]) -> None:
            told([(self.texts.requests[row], self.texts.answer(row)) for row in ended], tokens)

        self._model, self.texts = model, Texts(begun, stop_ids, step)
        self._before = [(*request.context, *start) for request, start in begun.items()]
        self._length = max(map(len, self._before))
        self._first = torch.zeros(len(begun), dtype=torch.int64)
        self._kept = Group(model, shelf, len(begun), self._length, self.texts.longest())

    def prompts(self, budget: int) -> list[Callable[[], None]]:
        """The jobs that run the prompts: neighbouring rows, as many as the budget allows."""
        rows, count = max(1, budget // self._length), len(self._before)
        return [partial(self._run, row, min(row + rows, count)) for row in range(0, count, rows)]

    def _run(self, start: int, stop: int) -> None:
        tokens = [Tokens(ids, (False,) * len(ids)) for ids in self._before[start:stop]]
        padded = collate(tokens, range(len(tokens)), side="left", multiple=1)
        batch = to_device(padded, device_of(self._model))
        last = torch.zeros_like(batch["scored"])
        last[:, -1] = True
        with head_at(self._model, last):
            logits = self._model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                position_ids=batch["position_ids"],
                past_key_values=self._kept.filling(start),
                use_cache=True,
            ).logits[0]  # (rows, V)
        self._first[start:stop] = choose(self._model, logits, self.texts.places(range(start, stop)))

    def write(self) -> None:
        """Write all texts to their end, once all prompts have run."""
        mask = torch.zeros(len(self._before), self._length, dtype=torch.int64)
        for row, ids in enumerate(self._before):
            mask[row, self._length - len(ids) :] = 1
        device, cache = device_of(self._model), self._kept.writing()
        token, mask = self.texts.take(self._first.to(device), cache, mask.to(device))
        write(self._model, self.texts, cache, mask, token)


def _write_alone(
    model: PreTrainedModel,
    begun: Begun,
    stop_ids: frozenset[int],
    budget: int,
    told: Callable[[Found, int], None],
) -> None:
    """Write one batch with a model that remembers more than keys and values: it stays in memory."""
    prompts = Prompts.run(model, [request.context for request in begun], budget)
    said = answer_texts(model, prompts, begun, stop_ids, budget)
    told(list(zip(begun, said, strict=True)), sum(len(text.ids) for text in said))
