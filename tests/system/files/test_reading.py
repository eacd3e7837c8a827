"""Reading what a stranger may have made: every failure is one line with the path."""

import json
import os

import pytest
from pydantic import BaseModel

from wagle.system.errors import WagleError
from wagle.system.files.reading import (
    DEEPEST,
    fitting,
    one_line,
    parse_json,
    read_bytes,
    read_json,
    read_key,
)


def refused(path, **settings):
    with pytest.raises(WagleError) as caught:
        read_json(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "FILE is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\xff\xfe[\x00]\x00", "FILE is not UTF-8 text (byte 0xff at 0); save it as UTF-8"),
        (b"[" * 100_000, "FILE is nested more than 100 levels deep"),
        (b"[" * 101 + b"]" * 101, "FILE is nested more than 100 levels deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "FILE is nested more than 100 levels deep"),
        (b"9" * 5000, "FILE holds a number of 5,000 digits"),
        (b"[-" + b"9" * 301 + b"]", "FILE holds a number of 302 digits"),
        (b"0." + b"1" * 400, "FILE holds a number of 402 characters"),
        (b"[1e400]", "FILE holds 1e400, which is too large a number"),
        (b"[-1E+999]", "FILE holds -1E+999, which is too large a number"),
        (b"[NaN]", "FILE is not valid JSON (NaN is not a number in it)"),
        (b"[-Infinity]", "FILE is not valid JSON (-Infinity is not a number in it)"),
        (rb'["\ud800"]', "FILE holds half of a surrogate pair, which is not a character"),
        (rb'{"\udfff": 1}', "FILE holds half of a surrogate pair, which is not a character"),
    ],
)
def test_json_out_of_bounds_is_one_line(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert refused(path) == said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'["\ud83d\ude00"]', ["\U0001f600"]),
        ("\ufeff[1]", [1]),
        ("[" * DEEPEST + "]" * DEEPEST, None),
        ("1" * 300, int("1" * 300)),
        (f'["{"9" * 5000}", "1e999"]', ["9" * 5000, "1e999"]),
        ("[1e308, 1e-999]", [1e308, 0.0]),
    ],
)
def test_json_within_bounds_is_read_as_ever(tmp_path, text, value):
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") == (json.loads(text) if value is None else value)


def test_numbers_that_are_not_finite_are_read_where_others_write_them(tmp_path):
    (tmp_path / "x.json").write_text(f"[Infinity, 1e999, -{'9' * 5000}]")
    inf = float("inf")
    assert read_json(tmp_path / "x.json", finite=False) == [inf, inf, -inf]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "large", "long", "zero"])
def test_only_a_regular_file_of_a_bounded_size_is_read(tmp_path, kind):
    """A pipe without a writer would hang, and a device never ends."""
    path = tmp_path / "x.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind != "missing":
        path = tmp_path / ("a" * 5000 if kind == "long" else "a\0b")
    said = refused(path)
    assert len(said) < 400
    expected = {
        "missing": "FILE does not exist",
        "folder": "FILE is a folder, not a file",
        "pipe": "FILE is a pipe or a device, not a file",
        "device": "FILE is a pipe or a device, not a file",
        "large": "FILE is larger than the 268,435,456 bytes that are read of such a file",
        "long": f"cannot read {str(path)[:197]}...: File name too long",
        "zero": f"cannot read {tmp_path}/a\\x00b: embedded null byte",
    }
    assert said == expected[kind]


def test_a_file_of_exactly_the_most_bytes_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", most=5) == b"12345"
    with pytest.raises(WagleError, match="larger than the 4 bytes"):
        read_bytes(tmp_path / "x", most=4)


def test_a_name_with_line_breaks_is_shown_in_one_line():
    assert one_line("a\nb\u2028") == "a\\nb\\u2028"
    assert one_line("naïve name") == "naïve name"


class Shape(BaseModel):
    n: int
    inner: dict[str, list[float]] = {}


def test_a_value_that_does_not_fit_is_named():
    assert fitting(Shape, {"n": 1, "other": 2}, "x.json").n == 1
    cases = {
        "x.json was altered: n: field required; restore it": {},
        "x.json was altered: n: input should be a valid integer; restore it": {"n": "1"},
        "x.json was altered: inner, a, 0: input should be a valid number; restore it": {
            "n": 1,
            "inner": {"a": ["x"]},
        },
    }
    for said, value in cases.items():
        with pytest.raises(WagleError) as caught:
            fitting(Shape, value, "x.json")
        assert str(caught.value) == said
    with pytest.raises(WagleError, match=r"^x\.json was altered: input should be a valid dict"):
        fitting(Shape, [], "x.json")


def test_what_messages_call_a_text_stands_before_what_is_wrong():
    with pytest.raises(WagleError, match=r"^rows\.jsonl, line 3, is not valid JSON \(.+\)$"):
        parse_json("{", "rows.jsonl, line 3,")


def test_a_small_file_is_read_with_a_small_buffer(tmp_path):
    """Found by bench.fuzz: a buffer for the largest file was reserved for each."""
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", most=1 << 50) == b"12345"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000])
def test_a_file_is_read_whole_whatever_its_size(tmp_path, size):
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "x").write_bytes(data[:size])
    assert read_bytes(tmp_path / "x") == data[:size]


def test_a_file_whose_size_is_not_known_is_read_up_to_the_limit():
    assert b"VmRSS" in read_bytes("/proc/self/status")  # its size is said to be 0
    with pytest.raises(WagleError, match="larger than the 10 bytes"):
        read_bytes("/proc/self/status", most=10)


@pytest.mark.parametrize("content", [b"", b"\n", b"5", b"xyz", b"5a 5a \xff", b"a" * 70_000])
def test_a_key_of_a_wrong_form_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "salt").write_bytes(content)
    if content == b"a" * 70_000:
        with pytest.raises(WagleError, match="larger than the 65,536 bytes"):
            read_key(tmp_path / "salt")
        return
    with pytest.raises(WagleError, match=r"salt is not (a key: it holds no hexa|UTF-8 text)"):
        read_key(tmp_path / "salt")
