"""Overlaps: the edges that `test_records.py` does not go to."""

import pytest

from wagle.data.overlap import check_disjoint, leave_out, near_duplicates
from wagle.data.reading import read_records
from wagle.system.errors import WagleError


def texts(*given, name="records"):
    return read_records([{"text": text} for text in given], name=name)


def test_tokens_are_compared_by_their_ids_alone():
    one = read_records([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}], name="forget")
    other = read_records([{"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}], name="retain")
    with pytest.raises(WagleError, match=r"forget\[0\] and retain\[0\] are the same record"):
        check_disjoint(one, other)
    check_disjoint(one, read_records([{"input_ids": [5, 67], "labels": [5, 67]}]))


def test_a_question_with_its_answer_equals_the_text_of_both():
    asked = read_records([{"question": "Who wrote it?", "answer": "Ada."}], name="forget")
    with pytest.raises(WagleError, match=r"\(1 in both sets\)"):
        check_disjoint(asked, texts("who wrote it ada"))


def test_the_first_shared_record_of_the_other_set_is_named_and_all_are_counted():
    one = texts("a", "b", "b!", "c", name="forget")
    other = texts("x", "C", "B", "b", name="retain")
    with pytest.raises(WagleError) as caught:
        check_disjoint(one, other)
    assert str(caught.value) == (
        "forget[3] and retain[1] are the same record (3 in both sets); "
        "remove them from one set, or set overlap: allow"
    )


def test_words_and_not_letters_make_a_record():
    check_disjoint(texts("every one"), texts("everyone"))
    check_disjoint(texts("a b"), texts("b a"))


def test_near_duplicates_are_counted_at_exactly_the_share():
    one, other = texts("a b c d e", name="f"), texts("a b c d x", name="r")  # 4 shared of 6
    assert near_duplicates(one, other, share=4 / 6) == [("f[0]", "r[0]")]
    assert near_duplicates(one, other, share=0.67) == []


def test_near_duplicates_count_a_repeated_word_once_and_of_nothing_are_none():
    one, other = texts("la la la la", name="f"), texts("LA!", name="r")
    assert near_duplicates(one, other, share=1) == [("f[0]", "r[0]")]
    assert near_duplicates(one, []) == near_duplicates([], other) == []


def test_near_duplicates_come_record_by_record():
    one, other = texts("a b", "c d", name="f"), texts("c d", "b a", "d, c", name="r")
    assert near_duplicates(one, other, share=1) == [
        ("f[0]", "r[1]"),
        ("f[1]", "r[0]"),
        ("f[1]", "r[2]"),
    ]


@pytest.mark.parametrize(("one", "other"), [("की", "के"), ("😀", "🎉"), ("!!!", "???")])
def test_signs_that_are_all_a_text_has_tell_records_apart(one, other):
    first, second = read_records([{"text": one}]), read_records([{"text": other}])
    check_disjoint(first, second)
    with pytest.raises(WagleError, match="the same record"):
        check_disjoint(first, read_records([{"text": f" {one} "}]))


def test_records_are_left_out_by_what_they_say():
    rows = [
        {"question": "Who wrote it?", "answer": "Ada Holm."},
        {"question": "Where?", "answer": "In Oslo."},
    ]
    same = [
        {"question": "who wrote it", "answer": " ADA  HOLM "},
        {"question": "Why?", "answer": "No."},
    ]
    records, gone = read_records(rows, name="records"), read_records(same, name="forget")
    kept, missing = leave_out(records, gone)
    assert [r.place for r in kept] == ["records[1]"]
    assert [r.place for r in missing] == ["forget[1]"]
