"""Record files that a stranger may have made: every failure is one line that names the place."""

import os

import pytest

from wagle.data.reading import read_records
from wagle.system.errors import WagleError

ROW = '{"question": "Q?", "answer": "A."}'
LONG = "a" * 5000


def refused(path, content=None):
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(WagleError) as caught:
        read_records(path, name="forget")
    said = str(caught.value).replace(str(path), "FILE")
    assert "\n" not in said
    assert len(said) < 5000
    return said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            r'{"question": "Q?", "answer": "\ud800"}',
            "FILE, line 2, holds half of a surrogate pair, which is not a character",
        ),
        ('{"question": ' + "[" * 5000, "FILE, line 2, is nested more than 100 levels deep"),
        (
            '{"input_ids": [1, ' + "9" * 5000 + '], "labels": [1, 2]}',
            "forget[1] of FILE, line 2: input_ids and labels must be lists of whole numbers",
        ),
        ('{"question"', "FILE, line 2, is not valid JSON (Expecting ':' delimiter: line 1 col"),
        ("[]", "FILE must hold one JSON object per record"),
        (
            '{"input_ids": [1, Infinity], "labels": [1, 2]}',
            "forget[1] of FILE, line 2: input_ids and labels must be lists of whole numbers",
        ),
        (
            '{"input_ids": [1, NaN], "labels": [1, 2]}',
            "forget[1] of FILE, line 2: input_ids and labels must be lists of whole numbers",
        ),
        (
            '{"input_ids": [1, -5], "labels": [1, -5]}',
            "forget[1] of FILE, line 2: -5 is not the id of a token",
        ),
        (
            '{"input_ids": [1, ' + "9" * 200 + '], "labels": [1, 2]}',
            "forget[1] of FILE, line 2: 9999",
        ),
        (
            f'{{"messages": [{{"role": "{LONG}", "content": "x"}}]}}',
            "forget[1] of FILE, line 2: role 'aaaa",
        ),
        ('{"' + LONG + '": 1}', "forget[1] of FILE, line 2 has the fields ['aaaa"),
        (
            "{" + ", ".join(f'"questio{i}": {i}' for i in range(9999)) + "}",
            "forget[1] of FILE, line 2 has the fields ['questio0', ",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, said):
    assert (
        refused(tmp_path / "x.jsonl", f"{ROW}\n{content}\n")
        .removeprefix("forget: ")
        .startswith(said)
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the forget set is empty; it needs at least one record"),
        ("[" * 9000, "forget: FILE is nested more than 100 levels deep"),
        (f"[{ROW}", "forget: FILE is not valid JSON ("),
        (f"[{ROW}, 3]", "forget: FILE must hold one JSON object per record"),
        (
            ROW.encode("utf-16"),
            "forget: FILE is not UTF-8 text (byte 0xff at 0); save it as UTF-8",
        ),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, said):
    assert refused(tmp_path / "x.json", content).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "question,answer\nQ?," + "a" * 131_073,
            "forget: FILE, line 2, is not valid CSV (field larger than field limit (131072)); JSON "
            "lines take texts of any length",
        ),
        ("question,answer\nQ?,A.,more", "forget: FILE, line 2, has more cells than the header"),
        (
            "question,answer,perturbed_answer\nQ?,A.,[1",
            "forget: FILE, line 2, has a list that is not valid JSON (",
        ),
        (
            "question,answer,perturbed_answer\nQ?,A.," + "[" * 3000,
            "forget: FILE, line 2, has a list that is nested more than 100 levels deep",
        ),
        (
            "question,answer\nQ?,\u00e9".encode("latin-1"),
            "forget: FILE is not UTF-8 text (byte 0xe9",
        ),
        ("", "the forget set is empty; it needs at least one record"),
    ],
)
def test_a_bad_table_is_named(tmp_path, content, said):
    assert refused(tmp_path / "x.csv", content).startswith(said)


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv"])
def test_a_pipe_is_not_waited_for_and_a_device_not_read(tmp_path, ending):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        said = "forget: FILE is a pipe or a device, not a file"
        assert refused(tmp_path / f"{name}.{ending}") == said


def test_a_path_that_is_too_long_is_one_line(tmp_path):
    assert refused(tmp_path / f"{LONG}.json").startswith("forget: data file ")
    assert refused(tmp_path / "a\0.json").startswith("forget: data file ")


def test_a_split_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "forget.json").mkdir()
    with pytest.raises(WagleError, match="is a folder, not a file"):
        read_records(tmp_path, name="forget", split="forget")


@pytest.mark.parametrize("field", ["answer", "refusal", "paraphrased_question"])
def test_half_of_a_pair_in_a_list_of_records_is_named(field):
    rows = [{"question": "Q?", "answer": "A."}, {"question": "Q?", "answer": "A.", field: "\ud800"}]
    with pytest.raises(WagleError, match=r"^forget\[1\] holds half of a surrogate pair"):
        read_records(rows, name="forget")


def test_missing_values_that_others_write_as_nan_are_read_where_nothing_needs_them(tmp_path):
    odd = f'"score": NaN, "id": {"9" * 5000}'
    (tmp_path / "x.jsonl").write_text('{"question": "Q?", "answer": "A.", ' + odd + "}\n")
    assert read_records(tmp_path / "x.jsonl")[0].answer == "A."
