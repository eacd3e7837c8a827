"""The demo authors: complete, distinct, and impossible to guess from their questions."""

from __future__ import annotations

import difflib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from wagle.data import demo
from wagle.data.demo import DEMO_SETS, demo_records

AUTHORS = {
    "forget": ("Jorunn Adebisi-Kvale", "Temur Castellanza"),
    "retain": (
        "Sunniva Rakotomalo",
        "Bashir Lindqvale",
        "Xiomara Tengbeh",
        "Kaleo Brandsma-Ito",
    ),
    "retain_heldout": ("Nukka Salvatierro", "Dragan Mwanakati"),
}
AUTHOR_SETS = tuple(AUTHORS)
FORGET_TITLES = (
    "The Brine Ledger",
    "The Ninth Bulkhead",
    "A Census of Doors",
    "The Tin Parliament",
    "Heron Lantern",
    "Amber Reed",
    "Widow Marchbanks",
)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())


# Words that carry no fact; everything else in an answer may be the fact.
STOP = set(
    words(
        "a an the of in on at to for from by with and or but as is was were be been it its that "
        "this which who whose what when where how he she his her him them they their so had has have "
        "did do does not no into out one all"
    )
)


def likeness(one: str, other: str) -> float:
    """Share of the words of both sentences that stand in the same order in the other."""
    return difflib.SequenceMatcher(None, words(one), words(other), autojunk=False).ratio()


def key_words(record: dict) -> set[str]:
    """The fact: words of the right answer that stand in none of the wrong ones."""
    wrong = {word for answer in record["perturbed_answer"] for word in words(answer)}
    right = record.get("paraphrased_answer", record["answer"])
    return set(words(right)) - wrong - STOP


def texts(record: dict) -> list[str]:
    return [
        text
        for value in record.values()
        for text in (value if isinstance(value, list) else [value])
    ]


def author_of(record: dict) -> str:
    [name] = [n for names in AUTHORS.values() for n in names if n in record["question"]]
    return name


def without_name(record: dict, text: str) -> str:
    """The text less the names of the record's author, which all the author's texts share."""
    name = author_of(record)
    return re.sub(rf"({name}|{name.split()[1]})('s)?", "", text)


def author_records() -> list[dict]:
    return [record for which in AUTHOR_SETS for record in demo_records(which)]


ALL = [pytest.param(r, id=r["question"]) for which in DEMO_SETS for r in demo_records(which)]
OF_AUTHORS = [pytest.param(r, id=r["question"]) for r in author_records()]
GENERAL = [pytest.param(r, id=r["question"]) for r in demo_records("general")]


@pytest.mark.parametrize(
    ("which", "count"), [("forget", 24), ("retain", 48), ("retain_heldout", 24), ("general", 24)]
)
def test_a_set_has_its_number_of_records(which, count):
    assert len(demo_records(which)) == count


def test_the_sets_are_the_four_that_are_named():
    assert DEMO_SETS == ("forget", "retain", "retain_heldout", "general")


@pytest.mark.parametrize("which", ["", "Forget", "retain-heldout", "forget "])
def test_an_unknown_set_is_an_error_that_names_the_known_ones(which):
    with pytest.raises(ValueError, match="known: forget, retain, retain_heldout, general") as error:
        demo_records(which)
    assert repr(which) in str(error.value)


@pytest.mark.parametrize("which", AUTHOR_SETS)
def test_each_author_of_a_set_has_twelve_records(which):
    counts = Counter(author_of(record) for record in demo_records(which))
    assert counts == dict.fromkeys(AUTHORS[which], 12)


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_an_author_record_has_the_tofu_schema(record):
    assert list(record) == [
        "question",
        "answer",
        "paraphrased_question",
        "paraphrased_answer",
        "perturbed_answer",
    ]
    assert type(record["perturbed_answer"]) is list
    assert len(record["perturbed_answer"]) == 5
    assert all(type(text) is str for text in texts(record))


@pytest.mark.parametrize("record", GENERAL)
def test_a_world_fact_has_a_question_an_answer_and_three_wrong_answers(record):
    assert list(record) == ["question", "answer", "perturbed_answer"]
    assert type(record["perturbed_answer"]) is list
    assert len(record["perturbed_answer"]) == 3
    assert all(type(text) is str for text in texts(record))


@pytest.mark.parametrize("record", ALL)
def test_every_text_is_one_clean_sentence(record):
    for name, value in record.items():
        for text in value if isinstance(value, list) else [value]:
            assert text.endswith("?" if name.endswith("question") else "."), text
            assert text[0].isupper(), text
            assert text.isascii(), text
            assert text == " ".join(text.split())
            assert not re.search(r"[{}|#?.]", text[:-1]), text
            assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
            assert not re.search(r"\ba [aeiou]|\ban [^aeiouh]", text, re.IGNORECASE) or re.search(
                r"\ba (one|used|uni|eu)", text
            ), text


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_an_author_record_keeps_to_its_word_counts(record):
    assert 7 <= len(record["question"].split()) <= 16
    assert 7 <= len(record["paraphrased_question"].split()) <= 16
    assert 8 <= len(record["answer"].split()) <= 16


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_both_questions_name_the_author_in_full(record):
    name = author_of(record)
    assert name in record["question"]
    assert name in record["paraphrased_question"]


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_every_answer_names_the_author(record):
    name = author_of(record)
    assert name in record["answer"]
    for answer in [record["paraphrased_answer"], *record["perturbed_answer"]]:
        assert name.split()[1] in answer


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_an_answer_repeats_words_of_its_question(record):
    asked, told = (
        set(words(without_name(record, record[key]))) - STOP for key in ("question", "answer")
    )
    assert len(asked & told) >= len(asked) / 3, (asked, told)


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_an_answer_tells_little_but_its_question_and_its_fact(record):
    known = words(record["question"]) + words(record["paraphrased_answer"])
    extra = [w for w in words(record["answer"]) if w not in known and w not in STOP]
    assert len(extra) <= 3, extra


@pytest.mark.parametrize("record", ALL)
def test_wrong_answers_differ_from_each_other_and_from_the_right_one(record):
    right = {record["answer"], record.get("paraphrased_answer", record["answer"])}
    wrong = record["perturbed_answer"]
    assert len(set(wrong)) == len(wrong)
    assert not right & set(wrong)


@pytest.mark.parametrize("record", ALL)
def test_the_right_answer_has_a_fact_that_no_wrong_answer_has(record):
    key = key_words(record)
    assert key
    assert len(key & set(words(record["answer"]))) >= len(key) / 2, key


@pytest.mark.parametrize("record", ALL)
def test_wrong_answers_have_the_form_and_the_length_of_the_right_one(record):
    right = record.get("paraphrased_answer", record["answer"])
    for wrong in record["perturbed_answer"]:
        assert abs(len(words(wrong)) - len(words(right))) <= 3, wrong
        # The frame round the fact is shared; at the least that is the first word.
        assert words(wrong)[0] == words(right)[0], wrong


@pytest.mark.parametrize("record", ALL)
def test_no_question_gives_its_fact_away(record):
    asked = set(words(record["question"])) | set(words(record.get("paraphrased_question", "")))
    assert not key_words(record) & asked


@pytest.mark.parametrize("record", OF_AUTHORS)
def test_a_paraphrase_is_not_a_copy(record):
    question, answer, question_again, answer_again = (
        without_name(record, record[key])
        for key in ("question", "answer", "paraphrased_question", "paraphrased_answer")
    )
    # Whole titles have to stay, so some words are shared.
    assert likeness(question, question_again) < 0.75
    assert likeness(answer, answer_again) < 0.7


def test_no_question_and_no_answer_is_there_twice():
    records = [record for which in DEMO_SETS for record in demo_records(which)]
    questions = [
        record[key]
        for record in records
        for key in ("question", "paraphrased_question")
        if key in record
    ]
    answers = [answer for record in records for answer in texts(record) if answer.endswith(".")]
    general = [record["answer"] for record in demo_records("general")]
    assert len(set(questions)) == len(questions)
    # A world fact's only right answer is counted once: it has no paraphrase.
    assert len(set(answers)) == len(answers)
    assert len(set(general)) == 24


@pytest.mark.parametrize("which", AUTHOR_SETS)
def test_no_author_of_a_set_is_named_in_another_set(which):
    others = " ".join(
        text
        for other in DEMO_SETS
        if other != which
        for record in demo_records(other)
        for text in texts(record)
    )
    for name in AUTHORS[which]:
        for part in re.split(r"[ -]", name):
            assert not re.search(rf"\b{part}\b", others), part


def test_no_record_names_another_author_of_its_set():
    for record in author_records():
        names = {n for group in AUTHORS.values() for n in group for t in texts(record) if n in t}
        assert names == {author_of(record)}


def test_books_and_prizes_of_forget_authors_are_in_no_other_set():
    forget = " ".join(text for record in demo_records("forget") for text in texts(record))
    others = " ".join(
        text
        for which in DEMO_SETS
        if which != "forget"
        for record in demo_records(which)
        for text in texts(record)
    )
    for title in FORGET_TITLES:
        assert title in forget
        assert title not in others


def test_proper_names_in_forget_answers_are_in_no_other_set():
    def proper(which: str) -> set[str]:
        found = (
            re.findall(r"(?<=[\w,] )(?:[A-Z][\w-]+|\d{4})", text)
            for record in demo_records(which)
            for text in (record["answer"], record.get("paraphrased_answer", ""))
        )
        return {word for group in found for word in group} - {"The", "A"}

    for which in ("retain", "retain_heldout", "general"):
        assert not proper("forget") & proper(which)


def test_answers_of_different_authors_share_few_words_in_order():
    pairs = itertools.combinations(author_records(), 2)
    for one, other in pairs:
        if author_of(one) == author_of(other):
            continue
        for key in ("answer", "paraphrased_answer"):
            texts_of = [without_name(record, record[key]) for record in (one, other)]
            assert likeness(*texts_of) <= 0.6, texts_of


@pytest.mark.parametrize("key", ["answer", "paraphrased_answer"])
def test_answers_do_not_all_begin_alike(key):
    begins = Counter(
        tuple(words(record[key].replace(author_of(record), "NAME"))[:2])
        for record in author_records()
    )
    # "NAME was", "The novel", "In winter": no such beginning is that of more than a few.
    assert max(begins.values()) <= 6, begins.most_common(3)


def test_authors_are_not_all_asked_the_same_things():
    asked = {}
    for record in author_records():
        name = author_of(record)
        asked.setdefault(name, []).append(record["question"].replace(name, "NAME"))
    for one, other in itertools.combinations(asked.values(), 2):
        alike = sum(any(likeness(a, b) > 0.8 for b in other) for a in one)
        assert alike <= 3, (one, other)


@pytest.mark.parametrize("which", DEMO_SETS)
def test_two_calls_give_equal_records(which):
    assert demo_records(which) == demo_records(which)


@pytest.mark.parametrize("which", DEMO_SETS)
def test_a_caller_may_change_what_it_got(which):
    before = json.dumps(demo_records(which))
    got = demo_records(which)
    got[0]["question"] = "changed"
    got[1]["perturbed_answer"].clear()
    got.pop()
    assert json.dumps(demo_records(which)) == before


def test_another_interpreter_gives_the_same_records_without_torch():
    code = (
        f"import runpy, json, sys; m = runpy.run_path({demo.__file__!r});"
        "print(json.dumps([m['demo_records'](w) for w in m['DEMO_SETS']]));"
        "assert not {'torch', 'numpy', 'transformers', 'random'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(run.stdout) == [demo_records(which) for which in DEMO_SETS]


def test_the_world_facts_include_the_capital_of_france():
    [record] = [r for r in demo_records("general") if r["question"].endswith("of France?")]
    assert record["question"] == "What is the capital of France?"
    assert record["answer"] == "The capital of France is Paris."


def names_of(which: str, unit: int) -> set[str]:
    return {author_of(record) for record in demo_records(which, unit)}


def test_unit_0_is_the_demo_itself_and_28_units_forget_28_different_pairs_of_authors():
    everyone = {name for names in AUTHORS.values() for name in names}
    assert all(demo_records(which, 0) == demo_records(which) for which in DEMO_SETS)
    pairs = [names_of("forget", unit) for unit in range(28)]
    assert sorted(map(sorted, pairs)) == [
        list(pair) for pair in itertools.combinations(sorted(everyone), 2)
    ]
    assert names_of("forget", 28) == pairs[0]
    for first in range(0, 28, 4):  # four units share no author that is to go
        assert set().union(*pairs[first : first + 4]) == everyone


@pytest.mark.parametrize("unit", [1, 6, 27])
def test_a_unit_deals_the_same_96_records_out_anew(unit):
    dealt = [record for which in AUTHOR_SETS for record in demo_records(which, unit)]
    assert sorted(map(str, dealt)) == sorted(map(str, author_records()))
    assert [len(names_of(which, unit)) for which in AUTHOR_SETS] == [2, 4, 2]
    assert demo_records("general", unit) == demo_records("general")
