"""Memorisation: how much of an answer or a passage the model reproduces word for word.

``hits`` says for each scored token but the EOS whether the model's arg-max token is correct, given
the tokens before it. An answer decoded from a correct prefix agrees with it exactly.
To add a metric, write a function here, its entry in MEMORIZATION, and a test next to the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher
from itertools import takewhile

from wagle.metrics.metric import Metric
from wagle.system.errors import WagleError


def exact_memorization(hits: Sequence[bool]) -> float:
    """``mean_t [arg-max_t = x_t]``: the share of tokens that the model would have produced.

    Args:
        hits: (n,), per scored token.

    Raises:
        WagleError: no token is scored.

    Source: Tirumala et al. 2022, arXiv 2205.10770; definition of OpenUnlearning.
    """
    _some(hits, "exact memorisation")
    return sum(map(bool, hits)) / len(hits)


def extraction_strength(hits: Sequence[bool], *, floor: bool = False) -> float:
    """``1 - k/n``: k is the shortest prefix length after which every arg-max token is correct.

    Args:
        hits: (n,), per scored token.
        floor: as in OpenUnlearning's code, which stops at k = n - 1: an answer whose last token is
            wrong gets 1/n, not 0.

    Raises:
        WagleError: no token is scored.

    Source: Carlini et al. 2021, arXiv 2012.07805; definition of OpenUnlearning.
    """
    _some(hits, "extraction strength")
    right = sum(1 for _ in takewhile(bool, reversed(hits)))
    return max(right, int(floor)) / len(hits)


def longest_run(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The length of the longest run of items, tokens or words, that occurs in both."""
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size


def prefix_run(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """How many leading items, tokens or words, are equal."""
    pairs = zip(one, other, strict=False)  # the shorter one ends the run
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _some(hits: Sequence[bool], what: str) -> None:
    if not hits:
        raise WagleError(f"{what} needs at least one scored token; is the answer empty?")


MEMORIZATION: dict[str, Metric] = {
    "extraction_strength": Metric("share of the answer", extraction_strength, ("hits",)),
    "exact_memorization": Metric("share of tokens", exact_memorization, ("hits",)),
}
