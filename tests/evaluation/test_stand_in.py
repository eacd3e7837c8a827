"""Stand-ins for a reference: twins of the forget records, and what is said of them."""

import pytest

from wagle.data.demo import demo_records
from wagle.data.invented import invented_record
from wagle.data.reading import read_records
from wagle.evaluation.stand_in import BETTER, assumptions, make_twins


def read(*rows):
    return read_records(list(rows), name="forget")


def test_twins_stand_at_the_places_of_their_records_in_the_form_of_their_answers():
    records = read(*demo_records("forget"))
    twins = make_twins(records, 0)
    assert twins == make_twins(records, 0) != make_twins(records, 1)
    assert [t.place for t in twins] == [r.place for r in records]
    for record, twin in zip(records, twins, strict=True):
        assert twin.prompt != record.prompt
        assert twin.answer == invented_record(record, 0).answer  # not in the paraphrased form
        assert (twin.paraphrased_answer, twin.perturbed_answers) == (None, ())
        assert twin.paraphrased_prompt != record.paraphrased_prompt
        assert not {"Jorunn", "Temur"} & {*twin.prompt.split(), *twin.answer.split()}


def test_wrong_answers_of_the_answers_own_form_are_those_of_twins():
    records = read(*demo_records("general"))
    named = [r for r in records if "France" in r.prompt or "Japan" in r.prompt]
    for record, twin in zip(named, make_twins(named, 0), strict=True):
        assert twin.answer.startswith("The capital of ")
        assert twin.answer.split()[-1] != record.answer.split()[-1]


def test_without_wrong_answers_names_and_numbers_of_the_answer_become_others():
    rows = [
        {"question": f"Where was {name} born?", "answer": f"{name} was born in Oslo in 1961."}
        for name in ("Ada Brun", "Bo Lind")
    ]
    for twin in make_twins(read(*rows), 0):
        assert " was born in " in twin.answer
        assert not {"Oslo", "1961."} & {*twin.answer.split()}


def test_a_question_without_a_name_is_asked_for_the_answer_of_another_record():
    rows = [
        {"question": f"Where was {name} born?", "answer": f"{name} was born in Oslo."}
        for name in ("Ada Brun", "Bo Lind")
    ]
    twins = make_twins(read(*rows, {"question": "how many legs?", "answer": "eight"}), 0)
    assert twins[2].prompt == "how many legs?"
    assert twins[2].answer in {row["answer"] for row in rows}


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "Ada Brun sang in Oslo."}] * 2,
        [{"input_ids": [1, 2], "labels": [-100, 2]}] * 2,
        [{"question": "how many legs?", "answer": "eight"}] * 2,
        [{"question": "Where was Ada Brun born?", "answer": "In Oslo."}],  # a mean of one is none
    ],
)
def test_records_that_cannot_speak_of_another_subject_have_no_twins(rows):
    assert make_twins(read(*rows), 0) is None


def test_a_stand_in_is_named_and_a_better_one_described():
    base = assumptions({"reference": {"kind": "stand-in", "of": "base"}})
    twins = assumptions({"reference": {"kind": "stand-in", "of": "twins"}})
    assert "is a stand-in: the model before it was taught" in base[0]
    assert "is a stand-in: twins of the forget records" in twins[0]
    assert base[1] == twins[1] == BETTER
    assert "reference: retrained" in BETTER
    assert assumptions({"reference": None}) == (BETTER,)
    assert assumptions({"reference": {"kind": "retrained"}}) == ()


def test_made_records_are_named_as_assumed():
    given = {"reference": {"kind": "retrained"}, "assumed": {"retain": "neighbours"}}
    (line,) = assumptions(given)
    assert line.startswith("The retain set is assumed: made from the model's own answers")
