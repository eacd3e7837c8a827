"""What every model can be asked through, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformers import PreTrainedModel

from wagle.data.tokens import Encoder
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.requests import Answers, Reply, Request
from wagle.system.progress import Bar

_FLUSH = 32  # answers between two writes of the cache


@runtime_checkable
class Asker(Protocol):
    """A model that answers requests."""

    @property
    def mark(self) -> str:
        """Tells this model from others: the fingerprint of its weights where they can be read."""
        ...

    @property
    def entry(self) -> dict[str, Any]:
        """Which model it is, for the result file: ``fingerprint``, ``dtype``, ``vocabulary``; more."""
        ...

    @property
    def live(self) -> PreTrainedModel | None:
        """The model itself, for libraries that query it; None if it runs elsewhere."""
        ...

    def answer(
        self,
        requests: Iterable[Request],
        *,
        encoder: Encoder,
        precision: str = "float32",
        batch_tokens: int | None = None,
        cache: Path | None = None,
    ) -> Answers:
        """Answer every distinct request once; what cannot be answered is named in ``absent``.

        Args:
            requests: in any order, with duplicates.
            encoder: of the records; its tokenizer says what ends an answer.
            precision: of matrix products, where this process computes them.
            batch_tokens: padded tokens per forward pass, or None.
            cache: a folder for answers, or None.
        """
        ...


def answer_each(
    asked: Sequence[Request],
    answer_one: Callable[[Request], Reply],
    cache: AnswerCache | None,
    *,
    workers: int = 1,
) -> dict[Request, Reply]:
    """Answer requests one by one, from the cache where it has them.

    Args:
        asked: distinct requests, all of which can be answered.
        answer_one: answers one; with several workers, from several threads.
        cache: where answers are kept, or None.
        workers: how many are under way at a time.
    """
    found: dict[Request, Reply] = {}
    for request in asked:
        known = None if cache is None else cache.get(request)
        if known is not None:
            found[request] = known
    todo = [request for request in asked if request not in found]
    try:
        with Bar("requests", len(todo)) as bar:
            for request, reply in _in_turn(todo, answer_one, workers):
                found[request] = reply
                bar.advance(1)
                if cache is not None:
                    cache.put(request, reply)
                    if len(found) % _FLUSH == 0:
                        cache.flush()
    finally:
        if cache is not None:
            cache.flush()
    return found


def _in_turn(
    todo: Sequence[Request], answer_one: Callable[[Request], Reply], workers: int
) -> Iterator[tuple[Request, Reply]]:
    if workers == 1:
        yield from ((request, answer_one(request)) for request in todo)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from zip(todo, pool.map(answer_one, todo), strict=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
