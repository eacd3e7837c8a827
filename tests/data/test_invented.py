"""Invented subjects: names by a draw, names in a text, and twins of records."""

import pytest

from wagle.data.demo import demo_records
from wagle.data.invented import (
    KINDS,
    find_names,
    invented_name,
    invented_record,
    known_names,
    rename,
    renaming,
    swap_numbers,
)
from wagle.data.reading import read_records
from wagle.system.errors import WagleError


def found(text, *known):
    return [(name.text, name.kind) for name in find_names(text, known)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_a_function_of_its_kind_seed_and_key(kind):
    name = invented_name(kind, 3, "a", 1)
    assert name == invented_name(kind, 3, "a", 1)
    assert len(name.split()) == KINDS[kind]
    assert all(word[0].isupper() for word in name.split())
    others = {invented_name(kind, seed, *key) for seed in range(20) for key in [("a",), ("b",)]}
    assert len(others) > 25
    assert len(invented_name(kind, 3, "a", words=3).split()) == 3


def test_an_unknown_kind_of_name_is_refused():
    with pytest.raises(WagleError, match="unknown kind of name 'town'"):
        invented_name("town", 0)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Where was Ada Brun-Vale born?", [("Ada Brun-Vale", "person")]),
        ("Did Ada Brun's aunt move to Oslo?", [("Ada Brun", "person"), ("Oslo", "place")]),
        ("Who wrote The Tin Boat?", [("Tin Boat", "work")]),
        ("In May 1999, J. K. Brun de la Vale spoke.", [("J. K. Brun de la Vale", "person")]),
        ("He gave Brun the Reed Prize.", [("Brun", "person"), ("Reed Prize", "work")]),
        ("Counting gulls was fun. The University was closed.", []),
        ("where was ada brun born?", []),
        ("北京在哪里?", []),
    ],
)
def test_names_are_runs_of_capitalised_words(text, names):
    assert found(text) == names


def test_a_word_that_begins_a_sentence_is_a_name_if_another_text_shows_it():
    assert found("Brun sings.") == []
    assert known_names(["Did Ada Brun sing?", "Brun sings."]) == {"Ada", "Brun"}
    assert found("Brun sings.", "Ada", "Brun") == [("Brun", "person")]


def test_a_surname_alone_becomes_the_surname_of_the_same_person():
    names = renaming(["Where was Ada Brun born?", "Brun was born in Oslo."], 0, "key")
    assert sorted(names) == ["Ada", "Brun", "Oslo"]
    assert rename("Ada Brun: Brun of Oslo, not Brunnen", names) == (
        f"{names['Ada']} {names['Brun']}: {names['Brun']} of {names['Oslo']}, not Brunnen"
    )


def test_numbers_become_others_of_the_same_form():
    new = swap_numbers("In 1987, on 17 May, 3 of 4711 cost 2.50; in 2003; again 1987.", 0, "key")
    century, day, other, again = new[3:7], int(new[12:14]), new[25:29], new[-5:-1]
    assert century.startswith("19")
    assert century != "1987"
    assert again == century
    assert 10 <= day < 29
    assert other != "4711"
    assert "3 of" in new
    assert "cost 2.50" in new
    assert int(new[new.index("; in ") + 5 :][:4]) in range(2000, 2025)


def test_a_twin_has_every_field_of_its_record_and_no_name_of_it():
    records = read_records(demo_records("forget"), name="forget")
    for record in records:
        twin = invented_record(record, 0)
        assert twin == invented_record(record, 0)
        assert (twin.place, twin.kind, twin.id) == (record.place, "qa", "")
        said = [twin.prompt, twin.answer, twin.paraphrased_prompt, twin.paraphrased_answer]
        assert len(twin.perturbed_answers) == len(record.perturbed_answers)
        for text in (*said, *twin.perturbed_answers):
            assert not {"Jorunn", "Adebisi-Kvale", "Temur", "Castellanza"} & set(
                text.replace("'s", "").replace(",", "").replace(".", "").split()
            )
        assert len(twin.prompt.split()) == len(record.prompt.split())


def test_twins_under_one_key_speak_of_one_subject():
    records = read_records(demo_records("forget")[:12])
    one = {invented_record(r, 0, key="set").prompt.split("novelist ")[-1] for r in records[:1]}
    (name,) = {" ".join(text.split()[:2]) for text in one}
    assert all(name in invented_record(r, 0, key="set").prompt for r in records)
    assert sum(name in invented_record(r, 0).prompt for r in records) == 0


def test_a_chat_is_renamed_turn_by_turn_and_an_address_is_nobodys():
    turns = [
        {"role": "system", "content": "You work for Brun."},
        {"role": "user", "content": "What is the address of Ada Brun?"},
        {"role": "assistant", "content": "Write to ada.brun@brun.org."},
    ]
    (chat,) = read_records([{"messages": turns}])
    twin = invented_record(chat, 0)
    assert twin.messages[0].content == rename(
        "You work for Brun.", {"Brun": twin.prompt.split()[-1][:-1]}
    )
    assert "Brun" not in twin.prompt
    assert twin.messages[1].content == twin.prompt
    assert twin.messages[2].content == twin.answer
    assert "brun" not in twin.answer
    assert twin.answer.endswith(".example.")


def test_a_record_without_a_name_has_no_twin():
    tokens = {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}
    rows = [{"question": "How many legs has a spider?", "answer": "Ada Brun says eight."}, tokens]
    assert [invented_record(r, 0) for r in read_records(rows)] == [None, None]
    (text,) = read_records([{"text": "Once upon a time Ada Brun sang."}])
    assert "Ada" not in invented_record(text, 0).answer
    assert invented_record(text, 0).prompt == ""
