"""Random draws: pinned, so that a later version draws the same records from the same seed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.data.draws import order, subset, uniform

IDS = st.lists(st.text("ab#2", min_size=1, max_size=4), max_size=12, unique=True)


def by_hand(text):
    """The first seven bytes of SHA-256 as a fraction of 256 ** 7."""
    number = 0
    for byte in hashlib.sha256(text.encode()).digest()[:7]:
        number = 256 * number + byte
    return number / 256**7


def test_a_draw_is_the_first_seven_bytes_of_the_digest_of_its_key():
    assert uniform(3, "take", "ä1") == by_hand("3\0take\0ä1")
    assert uniform() == by_hand("")
    assert uniform(("pair", 0)) == by_hand("('pair', 0)")
    # SHA-256 of the empty text begins e3b0c44298fc1c: 0xe3b0c4 / 2**24 is 0.88941598
    assert uniform() == pytest.approx(0.88941598, abs=1e-7)


@given(st.lists(st.integers() | st.text(max_size=3), max_size=4))
def test_a_draw_is_below_one(key):
    assert 0 <= uniform(*key) < 1


@given(IDS, st.integers(0, 9))
def test_an_order_is_a_sort_of_the_draws(ids, seed):
    drawn = sorted((by_hand(f"{seed}\0why\0{name}"), i) for i, name in enumerate(ids))
    assert order(seed, "why", ids) == [i for _, i in drawn]


def test_equal_names_stay_in_their_own_order():
    assert order(0, "x", ["a"] * 5) == [0, 1, 2, 3, 4]
    found = order(0, "x", ["b", "a", "b", "a"])
    assert found in ([0, 2, 1, 3], [1, 3, 0, 2])


@given(IDS, st.integers(0, 14), st.integers(0, 9))
def test_a_subset_is_ascending_and_holds_the_first_of_the_order(ids, count, seed):
    found = subset(seed, "take", ids, count)
    assert found == sorted(found)
    assert set(found) == set(order(seed, "take", ids)[:count])
    assert len(found) == min(count, len(ids))


def test_the_purpose_makes_another_order():
    ids = [str(i) for i in range(12)]
    assert order(0, "epoch", ids) != order(0, "pair", ids)
    assert subset(0, ("domain", 1), ids, 6) != subset(0, ("domain", 2), ids, 6)
