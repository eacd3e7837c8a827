"""Rows of local files."""

import json

import pytest

from wagle.evaluation.tasks.rows import find_file, read_rows, words_of
from wagle.system.errors import WagleError

ROW = {"prompt": "Who lives in Oslo?"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", json.dumps(ROW)),
        ("rows.json", json.dumps(ROW) + "\n"),
        ("rows.json", json.dumps(ROW, indent=2)),
        ("rows.json", json.dumps([ROW], indent=2)),
        ("rows.csv", "prompt\nWho lives in Oslo?\n"),
    ],
)
def test_rows_are_read_from_every_kind_of_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    path = find_file(tmp_path, "rows", "a benchmark", "{}")
    assert read_rows(path, "rows") == {"rows[0]": ROW}


def test_lines_of_objects_are_read_from_a_json_file_too(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW))
    assert list(read_rows(path, "rows")) == ["rows[0]", "rows[1]"]


def test_what_is_missing_or_malformed_is_named(tmp_path):
    with pytest.raises(WagleError, match=r"a benchmark looks for rows\.jsonl \(or \.json, \.csv\)"):
        find_file(tmp_path, "rows", "a benchmark", "{}")
    path = tmp_path / "rows.jsonl"
    for content in (b"", b"[1, 2]", b"3"):
        path.write_bytes(content)
        with pytest.raises(WagleError, match="one JSON object per record, and at least one"):
            read_rows(path, "rows")
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(WagleError, match="is not UTF-8 text"):
        read_rows(path, "rows")
    with pytest.raises(WagleError, match=r"rows\[0\] has no text in its field name"):
        words_of(ROW, "name", "rows[0]")
