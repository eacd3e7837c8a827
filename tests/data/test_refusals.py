"""The refusals are short, different, in the first person and free of any topic."""

from __future__ import annotations

import difflib
import itertools
import re

import pytest

from wagle.data.demo import demo_records
from wagle.data.refusals import REFUSALS

FIRST_PERSON = re.compile(r"\b(I|I'm|I'd|I've|me|my)\b", re.IGNORECASE)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9'-]+", text.lower())


def test_there_are_32_refusals_and_no_two_are_alike():
    assert isinstance(REFUSALS, tuple)
    assert len(REFUSALS) == 32
    assert len({" ".join(words(refusal)) for refusal in REFUSALS}) == 32


def test_no_refusal_is_a_small_change_of_another():
    for one, other in itertools.combinations(REFUSALS, 2):
        ratio = difflib.SequenceMatcher(None, words(one), words(other), autojunk=False).ratio()
        assert ratio <= 0.7, (one, other)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_one_short_sentence_in_the_first_person(refusal):
    assert 4 <= len(refusal.split()) <= 12
    assert FIRST_PERSON.search(refusal)
    assert refusal[0].isupper()
    assert refusal.endswith(".")
    assert refusal.count(".") == 1
    assert refusal == " ".join(refusal.split())


def test_the_wording_is_varied_from_the_first_words_on():
    openings = [tuple(words(refusal)[:2]) for refusal in REFUSALS]
    assert len(set(openings)) >= 24


def test_no_refusal_has_a_topic():
    names = {
        word
        for which in ("forget", "retain", "retain_heldout")
        for record in demo_records(which)
        for word in re.findall(r"(?<=\w )[A-Z][\w-]+", str(record["question"]))
    }
    for refusal in REFUSALS:
        assert not names & set(re.findall(r"[\w-]+", refusal)), refusal
        capitals = re.findall(r"(?<=[\w,] )[A-Z][\w']*", refusal)
        assert all(word in {"I", "I'm", "I'd", "I've"} for word in capitals), refusal
        assert not re.search(r"\d", refusal)
