"""Records: what is read from where, what it is called, and what is said when it is wrong."""

import json
import re
from dataclasses import replace

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.data.demo import DEMO_SETS, demo_records
from wagle.data.overlap import check_disjoint, near_duplicates
from wagle.data.reading import READERS, read_records
from wagle.data.records import Record, parse_record
from wagle.data.refusals import REFUSALS
from wagle.system.errors import WagleError

FORMATS = ", ".join(sorted(READERS))

ROWS = [
    {"question": "Who wrote it?", "answer": "Ada Holm.", "perturbed_answer": ["Bo.", "Cy."]},
    {"question": "Where?", "answer": "In Oslo, [near] the sea.", "perturbed_answer": ["No."]},
    {"question": "“Émile”?", "answer": "北京, a city.", "perturbed_answer": ["A, b.", "C"]},
]


def numbered(count):
    return [{"question": f"Question {i}?", "answer": f"Answer {i}."} for i in range(count)]


def lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


def as_csv(rows):
    def cell(value):
        text = value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    return "\n".join([",".join(rows[0]), *(",".join(map(cell, r.values())) for r in rows)])


def write(folder, name, content):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------
# One set of records, from everywhere


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", lines(ROWS)),
        ("a.jsonl", lines(ROWS)),
        ("a.jsonl", "\n" + lines(ROWS).replace("\n", "\r\n\n")),
        ("a.jsonl", "\ufeff" + lines(ROWS)),
        ("a.csv", as_csv(ROWS)),
        ("a.csv", "\ufeff" + as_csv(ROWS)),
    ],
)
def test_every_file_gives_the_records_of_its_rows(tmp_path, name, content):
    file = write(tmp_path, name, content)
    assert read_records(file) == read_records(str(file)) == read_records(ROWS)


def test_data_sets_tuples_and_records_give_the_same_as_a_list():
    wanted = read_records(ROWS)
    assert read_records(datasets.Dataset.from_list(ROWS)) == wanted
    assert read_records(tuple(ROWS)) == wanted
    assert read_records(wanted) == wanted
    assert read_records(tuple(wanted)) == wanted
    assert read_records([wanted[0], *ROWS[1:]]) == wanted


def test_the_fields_of_a_question_are_all_read():
    (record,) = read_records(
        [
            {
                "question": "Who?",
                "answer": "Ada.",
                "paraphrased_question": "By whom?",
                "paraphrased_answer": "By Ada.",
                "perturbed_answer": ["By Bo.", "By Cy."],
                "alternatives": ["Nobody."],
                "decomposed_questions": ["First name?", "Last name?"],
                "translated_questions": "Hvem?",
                "refusal": "I do not know.",
                "few_shot": [["When?", "Then."], ("Where?", "There.")],
                "option1": "a",
                "metadata": {"x": 1},
            }
        ],
        name="forget",
    )
    assert replace(record, id="") == Record(
        "qa",
        prompt="Who?",
        answer="Ada.",
        paraphrased_prompt="By whom?",
        paraphrased_answer="By Ada.",
        perturbed_answers=("By Bo.", "By Cy."),
        alternatives=("Nobody.",),
        decomposed=("First name?", "Last name?"),
        translations=("Hvem?",),
        refusal="I do not know.",
        few_shot=(("When?", "Then."), ("Where?", "There.")),
        place="forget[0]",
    )


@pytest.mark.parametrize("question", ["question", "prompt", "instruction"])
@pytest.mark.parametrize("answer", ["answer", "response", "completion", "gt"])
def test_other_peoples_field_names_are_known(question, answer):
    (record,) = read_records([{question: "Who?", answer: "Ada."}])
    (usual,) = read_records([{"question": "Who?", "answer": "Ada."}])
    assert record == usual


def test_one_wrong_answer_may_be_a_text_and_fields_may_be_null():
    row = {"question": "Who?", "answer": "Ada.", "perturbed_answer": "Bo.", "refusal": None}
    (record,) = read_records([row])
    assert record.perturbed_answers == ("Bo.",)
    assert record.refusal in REFUSALS


def test_a_text_is_a_text_and_not_its_json_source(tmp_path):
    text = 'He said "no".\n\tThen {nothing}.'
    for name in ("a.jsonl", "a.json"):
        file = write(tmp_path, name, json.dumps({"text": text, "url": "x"}) + "\n")
        (record,) = read_records(file)
        assert (record.kind, record.prompt, record.answer) == ("text", "", text)
    (record,) = read_records([{"prefix": "He said", "text": " no."}])
    assert (record.kind, record.prompt, record.answer) == ("text", "He said", " no.")


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_any_text_survives_json_lines(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    rows = [{"text": text}, {"text": "x" + text}]
    file.write_bytes(lines(rows).encode())
    assert [r.answer for r in read_records(file)] == [text, "x" + text]


def test_pre_tokenised_records_keep_their_labels(tmp_path):
    row = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "attention_mask": [1, 1, 1]}
    file = write(tmp_path, "a.jsonl", lines([row]))
    for source in ([row], file, datasets.Dataset.from_list([row])):
        (record,) = read_records(source)
        assert (record.kind, record.input_ids, record.labels) == ("tokens", (5, 6, 7), (-100, 6, 7))


def test_brackets_in_a_csv_answer_are_text(tmp_path):
    file = write(tmp_path, "a.csv", "question,answer,perturbed_answer\nWho?,[Laughs] Ada.,\n")
    (record,) = read_records(file)
    assert record.answer == "[Laughs] Ada."
    assert record.perturbed_answers == ()


@pytest.mark.parametrize("name", DEMO_SETS)
def test_the_demo_sets_are_read_by_name(name):
    records = read_records(f"demo:{name}", name=name)
    assert [r.prompt for r in records] == [row["question"] for row in demo_records(name)]
    assert len({r.id for r in records}) == len(records)


@pytest.fixture
def tofu(tmp_path):
    """A folder such as TOFU's: JSON lines named .json, two files of which belong together."""
    rows = [{"question": f"Q{i}?", "answer": f"A{i}."} for i in range(6)]
    rows[1]["question"] = rows[5]["question"]  # TOFU has two records with one question
    more = [
        {**row, "paraphrased_answer": f"It is {row['answer']}", "perturbed_answer": ["x", "y"]}
        for row in rows
    ]
    folder = tmp_path / "tofu"
    folder.mkdir()
    write(folder, "full.json", lines(rows))
    write(folder, "forget01.json", lines(rows[4:]))
    write(folder, "forget01_perturbed.json", lines(more[4:][::-1]))
    write(folder, "retain99.json", lines(rows[:4]))
    write(folder, "README.md", "not data")
    return folder


def test_a_split_of_a_folder_is_merged_with_its_perturbed_file(tofu):
    forget = read_records(tofu, split="forget01", name="forget")
    assert [r.prompt for r in forget] == ["Q4?", "Q5?"]
    assert [r.paraphrased_answer for r in forget] == ["It is A4.", "It is A5."]
    assert [r.perturbed_answers for r in forget] == [("x", "y")] * 2
    assert [r.place for r in forget] == ["forget[0]", "forget[1]"]
    retain = read_records(tofu, split="retain99")
    assert all(not r.perturbed_answers for r in retain)
    assert [r.answer for r in retain + forget] == [
        r.answer for r in read_records(tofu, split="full")
    ]


# ---------------------------------------------------------------------------------------------
# Names: ids, refusals, places


def test_an_id_depends_on_the_content_alone(tmp_path):
    records = read_records(ROWS, name="forget")
    assert all(re.fullmatch("[0-9a-f]{16}", r.id) for r in records)
    assert len({r.id for r in records}) == 3
    moved = write(tmp_path, "elsewhere.jsonl", lines([*numbered(3), *ROWS[::-1]]))
    again = read_records(moved, name="retain", seed=7)
    assert [r.id for r in again[3:]] == [r.id for r in records[::-1]]
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert [r.id for r in read_records(turned)] == [r.id for r in records]


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "Bo."},
        {"paraphrased_question": "Who, then?"},
        {"perturbed_answer": ["Cy.", "Bo."]},
        {"few_shot": [["a", "b"]]},
    ],
)
def test_other_content_is_another_id(change):
    one, other = read_records([ROWS[0], {**ROWS[0], **change}])
    assert one.id != other.id


def test_exact_repeats_are_numbered():
    first, other, second, third = read_records([ROWS[0], ROWS[1], ROWS[0], ROWS[0]])
    assert [second.id, third.id] == [f"{first.id}#2", f"{first.id}#3"]
    assert "#" not in other.id


def test_a_refusal_is_fixed_by_seed_and_id():
    rows = numbered(200)
    zero = {r.id: r.refusal for r in read_records(rows, seed=0)}
    assert {r.id: r.refusal for r in read_records(rows[::-1], seed=0)} == zero
    assert {r.id: r.refusal for r in read_records(rows[50:], seed=0)}.items() <= zero.items()
    assert {r.id: r.refusal for r in read_records(rows, seed=1)} != zero
    assert len(set(zero.values())) == len(REFUSALS)  # one of 32 is missing in 200 draws: 1 in 18
    (own,) = read_records([{**ROWS[0], "refusal": "Not mine to say."}])
    assert own.refusal == "Not mine to say."
    assert own.id == read_records(ROWS[:1])[0].id


# ---------------------------------------------------------------------------------------------
# Subsets


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [("0:2", [0, 1]), ("3:", [3, 4]), (":1", [0]), (":", [0, 1, 2, 3, 4]), ("1:5", [1, 2, 3, 4])],
)
def test_rows_are_a_range_of_the_source(rows, wanted):
    got = read_records(numbered(5), name="retain", rows=rows)
    assert [r.answer for r in got] == [f"Answer {i}." for i in wanted]
    assert [r.place for r in got] == [f"retain[{i}]" for i in range(len(wanted))]


@given(st.integers(1, 24), st.integers(0, 50))
def test_smaller_subsets_lie_in_larger_ones_and_keep_the_order(count, seed):
    rows = numbered(25)
    names = [r.id for r in read_records(rows)]
    small, large = (
        [r.id for r in read_records(rows, take=n, seed=seed)] for n in (count, count + 1)
    )
    assert len(small) == count
    assert set(small) < set(large)
    assert small == [n for n in names if n in small]


def test_what_is_taken_does_not_depend_on_the_other_records():
    rows = numbered(40)
    taken = {r.id for r in read_records(rows, take=20)}
    among_fewer = {r.id for r in read_records(rows[10:], take=20)}
    here = {r.id for r in read_records(rows[10:])}
    assert taken & here <= among_fewer  # with fewer rivals, whoever was taken still is


def test_percentages_and_counts_agree_and_seeds_differ():
    rows = numbered(40)
    assert read_records(rows, take="25%") == read_records(rows, take=10)
    assert read_records(rows, take="10") == read_records(rows, take=10)
    assert read_records(rows, take="100%") == read_records(rows, take="all") == read_records(rows)
    assert read_records(rows, take=10) != read_records(rows, take=10, seed=1)
    assert len(read_records(rows, rows="20:", take="50%")) == 10


# ---------------------------------------------------------------------------------------------
# Overlap


def test_an_overlap_is_refused_up_to_case_and_punctuation():
    one = read_records(numbered(3), name="forget")
    same = {"question": "QUESTION 2 -", "answer": "  answer, 2!"}
    other = read_records([{"question": "Else?", "answer": "No."}, same], name="retain")
    with pytest.raises(WagleError, match=r"^forget\[2\] and retain\[1\] are the same record"):
        check_disjoint(one, other)
    check_disjoint(one, other, allow=True)
    check_disjoint(one, other[:1])


def test_a_set_inside_another_is_counted():
    rows = numbered(10)
    with pytest.raises(WagleError, match=r"\(4 in both sets\); .* set overlap: allow"):
        check_disjoint(read_records(rows[6:]), read_records(rows))


def test_tokens_and_texts_overlap_too():
    tokens = [{"input_ids": [5, 6], "labels": [5, 6]}]
    for rows in (tokens, [{"text": "Ada wrote it."}]):
        with pytest.raises(WagleError, match="the same record"):
            check_disjoint(read_records(rows), read_records(rows))


def test_the_same_question_with_another_answer_is_no_overlap():
    one, other = numbered(1), [{"question": "Question 0?", "answer": "Answer 1."}]
    check_disjoint(read_records(one), read_records(other))


def test_near_duplicates_share_most_of_their_words():
    one = read_records([{"text": "a b c d"}, {"text": "k l m n o"}], name="forget")
    other = read_records([{"text": "x y"}, {"text": "d c b a e"}, {"text": "a b c"}], name="retain")
    assert near_duplicates(one, other) == [("forget[0]", "retain[1]")]  # 4 of 5 words; then 3 of 4
    assert near_duplicates(one, other, share=0.75) == [
        ("forget[0]", "retain[1]"),
        ("forget[0]", "retain[2]"),
    ]
    assert near_duplicates(one, other, share=0.9) == []


# ---------------------------------------------------------------------------------------------
# Bad input: one line that says where


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "", "answer": "A"}, "forget[0] has an empty prompt; remove the record"),
        ({"question": "Q", "answer": "\n"}, "forget[0] has an empty answer; remove the record"),
        ({"text": ""}, "forget[0] has an empty text; remove the record"),
        ({"question": "Q", "answer": 7}, "forget[0]: answer is int, not text"),
        ({"question": "Q", "answer": ["A"]}, "forget[0]: answer is list, not text"),
        ({"text": ["a"]}, "forget[0]: text is list, not text"),
        (
            {"question": "Q", "answer": "A", "paraphrased_answer": " "},
            "an empty paraphrased_answer",
        ),
        (
            {"question": "Q", "answer": "A", "perturbed_answer": 3},
            "forget[0]: perturbed_answers is int",
        ),
        (
            {"question": "Q", "answer": "A", "few_shot": [["x"]]},
            "forget[0]: few_shot must be a list",
        ),
        (
            {"question": "Q", "answer": "A", "few_shot": [{"question": "x", "answer": "y"}]},
            "forget[0]: few_shot must be a list of [question, answer] pairs",
        ),
        ({"question": "Q", "answer": "A", "few_shot": 3}, "forget[0]: few_shot must be a list"),
        (
            {"questin": "Q", "answer": "A"},
            "forget[0] has the fields ['answer', 'questin']; a record needs question and answer, "
            "or messages, or text, or input_ids and labels ('questin' looks like 'question')",
        ),
        ({"id": 1, "title": "x"}, "forget[0] has the fields ['id', 'title']; a record needs"),
        ({"question": "Q", "answer": None}, "forget[0] has the fields ['answer', 'question']"),
        ({"input_ids": [], "labels": []}, "forget[0] has 0 input_ids and 0 labels"),
        ({"input_ids": [5, 6]}, "forget[0] has 2 input_ids and 0 labels; give as many labels"),
        ({"input_ids": [5, 6], "labels": [6]}, "forget[0] has 2 input_ids and 1 labels"),
        (
            {"input_ids": [5, 6, 7], "labels": [-100, 7, -100]},
            "forget[0]: label 1 is neither -100 nor its own input id",
        ),
        ({"input_ids": [5, 6], "labels": [5, -100]}, "forget[0] has no scored token"),
        ({"input_ids": ["a"], "labels": [1]}, "must be lists of whole numbers"),
        ("a text", "forget[0] is str, not a dict; if this is a DatasetDict, give one split"),
    ],
)
def test_a_wrong_record_is_named_by_its_place(row, message):
    with pytest.raises(WagleError) as caught:
        read_records([row], name="forget")
    assert message in str(caught.value)
    assert str(caught.value).startswith("forget[0]")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"\n', "a.jsonl, line 3, is not valid JSON ("),
        ("a.json", '[{"text": "a"}', "a.json is not valid JSON ("),
        ("a.json", '["a"]', "a.json must hold one JSON object per record"),
        ("a.jsonl", "3\n", "a.jsonl must hold one JSON object per record"),
        ("a.csv", "question,answer\nQ,A\nQ,A,B\n", "a.csv, line 3, has more cells than the header"),
        (
            "a.csv",
            "question,answer,perturbed_answer\nQ,A,[x\n",
            "a.csv, line 2, has a list that is not valid JSON (",
        ),
        ("a.jsn", "", f"a.jsn '.jsn'; did you mean '.json'? (known: {FORMATS})"),
        ("a.json", "", "the forget set is empty; it needs at least one record"),
        ("a.csv", "question,answer\n", "the forget set is empty"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, name, content, message):
    file = write(tmp_path, name, content)
    with pytest.raises(WagleError) as caught:
        read_records(file, name="forget")
    assert message in str(caught.value)
    assert str(file) in str(caught.value) or "the forget set" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_named(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes("question,answer\nÉmile?,Oui.\n".encode("latin-1"))
    with pytest.raises(WagleError, match=r"a\.csv is not UTF-8 text"):
        read_records(file)


def test_files_and_splits_that_do_not_exist_are_named(tmp_path, tofu):
    with pytest.raises(WagleError, match=r"data file .*nowhere\.json does not exist"):
        read_records(tmp_path / "nowhere.json")
    with pytest.raises(
        WagleError, match=r"is a folder: name a split \(it has forget01, forget01_perturbed, full,"
    ):
        read_records(tofu)
    with pytest.raises(WagleError, match=r"tofu 'forget02'; did you mean 'forget01'\?"):
        read_records(tofu, split="forget02")
    (tmp_path / "bare").mkdir()
    with pytest.raises(WagleError, match=re.escape(f"bare holds no {', '.join(READERS)} files")):
        read_records(tmp_path / "bare", split="x")
    with pytest.raises(WagleError, match=r"unknown demo set 'forgot'; did you mean 'forget'\?"):
        read_records("demo:forgot")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"take": "some"},
            "forget.take is 'some'; write all, a count, or a percentage such as 10%",
        ),
        ({"take": 400.0}, "forget.take is '400.0'; write all"),
        ({"take": 0}, "forget.take asks for 0 of 5 records"),
        ({"take": 6}, "forget.take asks for 6 of 5 records"),
        ({"take": "1%"}, "forget.take asks for 0 of 5 records"),
        ({"take": "200%"}, "forget.take asks for 10 of 5 records"),
        ({"take": -1}, "forget.take is '-1'"),
        ({"rows": "1-3"}, "rows '1-3' is not a range; write FIRST:LAST, such as 0:360 or 20:"),
        ({"rows": "3:3"}, "rows 3:3 is empty or out of range: there are 5 records"),
        ({"rows": "0:6"}, "rows 0:6 is empty or out of range"),
        ({"rows": "5:"}, "rows 5: is empty or out of range"),
    ],
)
def test_wrong_subsets_are_one_line_errors(options, message):
    with pytest.raises(WagleError) as caught:
        read_records(numbered(5), name="forget", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(("source", "kind"), [(None, "None"), (3, "of type int")])
def test_what_is_no_source_of_records_is_named_by_its_set(source, kind):
    said = (
        f"the forget set is {kind}; give a file, a datasets.Dataset, or a list of dicts or records"
    )
    with pytest.raises(WagleError, match=said):
        read_records(source, name="forget")


def test_a_set_of_splits_and_an_empty_set_are_errors():
    both = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(WagleError, match="give one split"):
        read_records(both)
    with pytest.raises(WagleError, match="the retain set is empty; it needs at least one record"):
        read_records([], name="retain")


def test_one_record_can_be_parsed_by_itself():
    assert parse_record(ROWS[0], "here") == Record(
        "qa",
        prompt="Who wrote it?",
        answer="Ada Holm.",
        perturbed_answers=("Bo.", "Cy."),
        place="here",
    )
