"""The beginnings of greedy answers that likelihoods already show."""

from __future__ import annotations

from collections.abc import Sequence

from wagle.evaluation.asking.requests import (
    Greedy,
    Likelihood,
    LikelihoodAnswer,
    Reply,
    Request,
    Sample,
    TextAnswer,
)


class Beginnings:
    """What likelihoods show of greedy answers: while the arg-max is right, it is the answer."""

    def __init__(self, stop_ids: frozenset[int]) -> None:
        self.stop_ids = stop_ids
        self._right: dict[tuple[int, ...], tuple[int, ...]] = {}

    def learn(self, request: Request, reply: Reply) -> None:
        """Take in an answer."""
        if not isinstance(request, Likelihood) or not isinstance(reply, LikelihoodAnswer):
            return
        hits = reply.hit.tolist()
        if len(hits) == len(request.continuation):  # it is scored completely
            right = next((i for i, hit in enumerate(hits) if not hit), len(hits))
            if right > len(self._right.get(request.context, ())):
                self._right[request.context] = request.continuation[:right]

    def split(
        self, written: Sequence[Greedy | Sample]
    ) -> tuple[dict[Request, Reply], dict[Greedy | Sample, tuple[int, ...]]]:
        """The answers known to their end, and what is known of the others."""
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
