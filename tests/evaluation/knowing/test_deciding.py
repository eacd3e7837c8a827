"""What a model's word is made from, with numbers that can be checked by hand."""

import numpy as np
import pytest

from wagle.evaluation.knowing.asking import Readings
from wagle.evaluation.knowing.deciding import (
    BASE_KNOWS,
    KNOWS,
    UNCLEAR,
    UNKNOWN,
    decide,
    decide_beside_base,
    find,
    gained,
)

N, K = 12, 4
JITTER = np.linspace(-0.02, 0.02, N)


def _read(own, twin, swapped=None, twin_swapped=None, spread=0.0):
    """Readings of N records with these means; sets of twins differ by ``spread`` from one another."""
    sets = np.linspace(-spread, spread, K)[:, None]

    def rows(value):
        return np.full(N, np.nan) if value is None else value + JITTER

    def each(value):
        return np.full((K, N), np.nan) if value is None else np.full((K, N), value) + sets

    return Readings(rows(own), each(twin), rows(swapped), each(twin_swapped))


def _word(**figures):
    return decide(find(figures))


def test_a_gap_is_the_record_minus_the_mean_of_its_twins():
    read = Readings(
        np.array([0.9, 0.7]),
        np.array([[0.1, 0.2], [0.3, 0.4]]),
        np.array([0.2, 0.4]),
        np.array([[0.1, 0.1], [0.1, 0.1]]),
    )
    found = find({"probability": read})["probability"]
    assert (found.n, found.records, found.twins) == (2, pytest.approx(0.8), pytest.approx(0.25))
    assert found.gap == pytest.approx(0.55)  # 0.9 - 0.2 and 0.7 - 0.3
    assert found.swapped == pytest.approx(0.3)
    assert found.net == pytest.approx(0.35)  # less 0.1 and 0.3
    # means of the sets 0.15 and 0.35: sd 0.1414; t of one degree 12.706; times sqrt(1.5)
    assert found.reach == pytest.approx(12.7062 * 0.141421 * 1.224745, rel=1e-4)


@pytest.mark.parametrize(
    ("read", "word"),
    [
        (_read(0.8, 0.3), KNOWS),
        (_read(0.30, 0.29), UNKNOWN),
        (_read(0.3, 0.8), UNKNOWN),
        (_read(0.38, 0.3), UNKNOWN),  # significant, but names alone may do that
        (_read(0.8, 0.3, 0.75, 0.3), UNCLEAR),  # as likely after other questions
        (_read(0.8, 0.3, 0.1, 0.1), KNOWS),
        (_read(0.8, 0.3, spread=0.6), UNCLEAR),  # sets of twins differ by more
    ],
)
def test_a_gap_counts_if_it_is_sure_large_and_beyond_what_names_do(read, word):
    assert _word(probability=read) == word


def test_a_gap_that_could_be_chance_settles_nothing():
    own = np.array([0.9, 0.1] * 6)
    read = Readings(own, np.full((K, N), 0.4), *_read(0, 0)[2:])
    assert _word(probability=read) == UNCLEAR


def test_few_records_settle_nothing():
    few = Readings(*(part[..., :4] for part in _read(0.8, 0.3)))
    assert _word(probability=few) == UNCLEAR  # p is 2/16


def test_one_figure_is_enough_to_know_and_all_are_needed_to_exclude_it():
    assert _word(probability=_read(0.3, 0.3), paraphrased=_read(0.8, 0.3)) == KNOWS
    wide = Readings(np.array([0.9, 0.1] * 6), np.full((K, N), 0.4), *_read(0, 0)[2:])
    assert _word(probability=_read(0.3, 0.3), paraphrased=wide) == UNCLEAR
    assert decide({}) == UNCLEAR


def test_p_is_corrected_for_the_number_of_figures():
    alone = find({"a": _read(0.8, 0.3)})["a"].p
    both = find({"a": _read(0.8, 0.3), "b": _read(0.8, 0.3)})
    assert alone == pytest.approx(2 / 2**N)
    assert both["a"].p == both["b"].p == pytest.approx(2 * alone)


def test_records_without_a_figure_do_not_count_for_it():
    read = _read(0.8, 0.3)
    own = read.records.copy()
    own[:3] = np.nan
    assert find({"paraphrased": read._replace(records=own)})["paraphrased"].n == N - 3
    assert find({"paraphrased": read._replace(records=np.full(N, np.nan))}) == {}


def test_what_names_do_to_a_model_and_its_base_alike_cancels_out():
    base = {"probability": _read(0.42, 0.3)}
    assert _word(**base) == KNOWS  # by itself: 0.12 could be the names'
    assert not gained({"probability": _read(0.43, 0.3)}, base)
    assert gained({"probability": _read(0.8, 0.3)}, base)


@pytest.mark.parametrize(
    ("own", "base", "more", "word"),
    [
        (UNKNOWN, KNOWS, False, UNKNOWN),
        (KNOWS, KNOWS, True, BASE_KNOWS),
        (KNOWS, UNKNOWN, True, KNOWS),
        (KNOWS, UNKNOWN, False, UNCLEAR),
        (KNOWS, UNCLEAR, True, KNOWS),
        (UNCLEAR, UNKNOWN, True, KNOWS),
        (UNCLEAR, UNKNOWN, False, UNCLEAR),
        (UNCLEAR, KNOWS, False, UNCLEAR),
    ],
)
def test_the_word_next_to_a_base(own, base, more, word):
    assert decide_beside_base(own, base, more) == word
