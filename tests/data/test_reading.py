"""Files, folders and subsets, beyond `test_records.py`: rows as they stand, ranges and shares."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.data.reading import READERS, _slice, _take, read_records
from wagle.system.errors import WagleError

ROW = {"question": "Q?", "answer": "A."}


def split(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_a_perturbed_file_may_lack_records_and_wins_where_both_say_something(tmp_path):
    split(tmp_path, "forget", [ROW | {"perturbed_answer": ["old"]}, {**ROW, "answer": "B."}])
    split(
        tmp_path, "forget_perturbed", [ROW | {"perturbed_answer": ["new"]}, {**ROW, "answer": "C"}]
    )
    found = read_records(tmp_path, split="forget")
    assert [(r.answer, r.perturbed_answers) for r in found] == [("A.", ("new",)), ("B.", ())]


def test_a_perturbed_file_can_be_read_by_itself(tmp_path):
    split(tmp_path, "forget_perturbed", [ROW])
    assert [r.answer for r in read_records(tmp_path, split="forget_perturbed")] == ["A."]


def test_a_folder_names_its_splits_in_order_and_not_its_other_files(tmp_path):
    for name in ("b", "a"):
        split(tmp_path, name, [ROW])
    (tmp_path / "notes.md").write_text("no records")
    with pytest.raises(WagleError, match=r"forget: .* is a folder: name a split \(it has a, b\)$"):
        read_records(tmp_path, name="forget")
    with pytest.raises(WagleError, match=r"^forget: unknown split of .* 'c' \(known: a, b\)$"):
        read_records(tmp_path, name="forget", split="c")


def test_a_folder_without_records_says_which_files_it_could_hold(tmp_path):
    (tmp_path / "notes.md").write_text("no records")
    assert {".json", ".jsonl", ".csv"} <= set(READERS)
    with pytest.raises(WagleError, match=rf"holds no {re.escape(', '.join(READERS))} files$"):
        read_records(tmp_path, split="forget")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, mark):
    (tmp_path / "a.csv").write_text(f"{mark}question,answer\nQ?,A.\n", encoding="utf-8")
    (tmp_path / "b.json").write_text(f"{mark}{json.dumps([ROW])}", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(f"{mark}{json.dumps(ROW)}\n", encoding="utf-8")
    for name in ("a.csv", "b.json", "c.jsonl"):
        assert [(r.prompt, r.answer) for r in read_records(tmp_path / name)] == [("Q?", "A.")]


def test_lines_end_at_line_breaks_only_and_are_counted_with_the_empty_ones(tmp_path):
    text = json.dumps({"text": "one\u2028two\x85three"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_text(f"\n  \n{text}\r\n", encoding="utf-8", newline="")
    assert [r.answer for r in read_records(tmp_path / "a.jsonl")] == ["one\u2028two\x85three"]
    (tmp_path / "b.jsonl").write_text(f'\n\n{text}\n\n{{"text": 3}}\n', encoding="utf-8")
    with pytest.raises(WagleError, match=r"^forget\[1\] of .*b\.jsonl, line 5"):
        read_records(tmp_path / "b.jsonl", name="forget")


def test_a_quoted_line_break_in_a_csv_moves_the_line_that_is_named(tmp_path):
    (tmp_path / "a.csv").write_text('question,answer\n"Q\n?",A.\nQ2?,A,more\n')
    with pytest.raises(WagleError, match=r"a\.csv, line 4, has more cells"):
        read_records(tmp_path / "a.csv")


def test_an_empty_cell_is_a_field_that_is_not_there(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer,paraphrased_answer\nQ?,A.,\nQ2?,B.,It is B.\n")
    found = read_records(tmp_path / "a.csv")
    assert [r.paraphrased_answer for r in found] == [None, "It is B."]


@pytest.mark.parametrize("source", ["demo:forget@0", "demo:forget@00"])
def test_a_demo_set_without_a_number_is_number_0(source):
    assert read_records(source) == read_records("demo:forget") != read_records("demo:forget@1")


@pytest.mark.parametrize("unit", ["", "x", "-1", "1.5"])
def test_a_demo_set_is_numbered_in_whole_numbers(unit):
    with pytest.raises(
        WagleError, match=f"forget: demo:forget@{unit} is not a demo set; write dem"
    ):
        read_records(f"demo:forget@{unit}", name="forget")


# ---------------------------------------------------------------------------------------------
# Subsets


@given(st.integers(1, 9), st.none() | st.integers(0, 10), st.none() | st.integers(0, 10))
def test_a_range_is_that_of_python_or_refused(count, first, last):
    text = f"{'' if first is None else first}:{'' if last is None else last}"
    chosen = list(range(count))[first:last]
    if chosen and (last is None or last <= count):
        assert list(range(count))[_slice(count, text)] == chosen
    else:
        with pytest.raises(WagleError, match=f"rows {text} is empty or out of range: there are"):
            _slice(count, text)


@pytest.mark.parametrize("rows", ["3", "", "-1:", "1:2:3", " 1:2", "1:-1", "a:b"])
def test_what_is_no_range_is_refused(rows):
    with pytest.raises(WagleError, match=f"rows {rows!r} is not a range"):
        _slice(5, rows)


@pytest.mark.parametrize(
    ("share", "of", "count"), [("100%", 7, 7), ("50%", 7, 3), ("29%", 100, 29), ("15%", 7, 1)]
)
def test_a_share_is_rounded_down(share, of, count):
    records = read_records([{"text": f"t{i}"} for i in range(of)])
    assert len(_take(records, share, "forget", 0)) == count


def test_all_are_taken_as_they_are():
    records = read_records([{"text": "a"}, {"text": "b"}])
    assert _take(records, "all", "forget", 0) is records
    assert _take([], "all", "forget", 0) == []
    assert _take(records, 2, "forget", 5) == records


def test_rows_are_cut_before_records_are_taken_and_places_count_what_is_left():
    rows = [{"text": f"t{i}"} for i in range(10)]
    found = read_records(rows, rows="4:", take=3, name="forget")
    assert {r.answer for r in found} < {f"t{i}" for i in range(4, 10)}
    assert [r.place for r in found] == ["forget[0]", "forget[1]", "forget[2]"]
    assert [r.answer for r in found] == sorted(r.answer for r in found)


def test_a_repeat_is_numbered_in_what_is_read_and_its_own_refusal_is_kept():
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "a"}]
    ids = [r.id for r in read_records(rows)]
    assert [i.partition("#")[2] for i in ids] == ["", "", "2", "3"]
    assert [r.id for r in read_records(rows, rows="2:")] == [ids[0], f"{ids[0]}#2"]
    (asked,) = read_records([ROW | {"refusal": "I will not say."}])
    assert asked.refusal == "I will not say."


@pytest.mark.parametrize("asked", ["question", "prompt", "instruction"])
def test_a_perturbed_file_is_matched_whatever_its_question_is_called(tmp_path, asked):
    rows = [{asked: "Who?", "answer": "Ada."}, {asked: "Where?", "answer": "Oslo."}]
    more = [{"question": "Where?", "answer": "Oslo.", "perturbed_answer": ["Bergen."]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a_perturbed.json").write_text(json.dumps(more if asked == "question" else rows))
    found = read_records(tmp_path, split="a")
    assert [record.answer for record in found] == ["Ada.", "Oslo."]
    wrong = ("Bergen.",) if asked == "question" else ()
    assert tuple(found[1].perturbed_answers) == wrong
