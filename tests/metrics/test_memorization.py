"""Memorisation: the self-checks T31 and T35 of spec/metrics.md, and what must hold for any data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.metrics.memorization import (
    exact_memorization,
    extraction_strength,
    longest_run,
    prefix_run,
)
from wagle.system.errors import WagleError

LABELS = [5, 7, 9, 2]
SHORT = st.lists(st.integers(0, 2), max_size=8)


@pytest.mark.parametrize(
    ("said", "exact", "strength", "floored"),
    [
        ([5, 1, 9, 2], 0.75, 0.5, 0.5),
        ([5, 7, 9, 1], 0.75, 0.0, 0.25),
        ([1, 1, 1, 1], 0.0, 0.0, 0.25),
        ([1, 1, 1, 2], 0.25, 0.25, 0.25),
        ([5, 7, 9, 2], 1.0, 1.0, 1.0),
    ],
)
def test_t31_memorisation_of_four_tokens(said, exact, strength, floored):
    hits = [a == b for a, b in zip(said, LABELS, strict=True)]
    assert exact_memorization(hits) == exact
    assert extraction_strength(hits) == strength
    assert extraction_strength(hits, floor=True) == floored


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_extraction_strength_is_its_definition_tried_for_every_prefix(hits):
    n = len(hits)
    k = next(k for k in range(n + 1) if all(hits[k:]))
    assert extraction_strength(hits) == pytest.approx(1 - k / n)
    assert extraction_strength(hits) <= exact_memorization(hits)


@pytest.mark.parametrize("metric", [exact_memorization, extraction_strength])
def test_memorisation_of_no_token_is_an_error(metric):
    with pytest.raises(WagleError, match="at least one scored token"):
        metric([])


def test_t35_runs_of_tokens():
    assert longest_run([1, 2, 3, 4, 5, 6], [9, 2, 3, 4, 8, 6]) == 3
    assert prefix_run([1, 2, 3, 4], [1, 2, 9, 4]) == 2


def test_runs_of_words_and_of_nothing():
    assert (
        longest_run(["the", "old", "house", "by", "the", "sea"], ["a", "house", "by", "the", "sea"])
        == 4
    )
    assert longest_run([], [1]) == prefix_run([], [1]) == 0
    assert prefix_run([1, 2], [1, 2, 3]) == 2


def test_the_longest_run_does_not_pass_over_frequent_tokens():
    assert longest_run([7] * 300, [7] * 250) == 250  # difflib drops what is frequent by default


@given(SHORT, SHORT)
def test_the_longest_run_is_that_of_all_pairs_of_starts(one, other):
    runs = [prefix_run(one[i:], other[j:]) for i in range(len(one)) for j in range(len(other))]
    assert longest_run(one, other) == longest_run(other, one) == max(runs, default=0)
