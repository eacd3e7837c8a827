"""YAML as recipes are written, value by value."""

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wagle.recipe.syntax import Dumper, parse_yaml
from wagle.system.errors import WagleError


def dump(value):
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**9)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e3", -2000.0),
        ("+.5", 0.5),
        (".5e1", 5.0),
        ("1.", 1.0),
        ("1_000.5", 1000.5),
        ("6.02e+23", 6.02e23),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("0", 0),
        ("-7", -7),
        ("1_000", 1000),
        ("0x1F", 31),
        ("true", True),
        ("~", None),
        ("", None),
    ],
)
def test_a_number_is_read_as_one_of_its_type(text, value):
    found = parse_yaml(text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("20:40", "1:30:00", "190:20:30.15", "010", "0o10", "0b11", "0x", "1_e", "1e", "e5"),
        *(
            "2024-01-01",
            "2001-12-14t21:59:43.10-05:00",
            ".",
            "+",
            "1.2.3",
            "1,5",
            "infinity",
            "nan",
        ),
    ],
)
def test_what_looks_like_a_number_to_yaml_1_1_is_text(text):
    assert parse_yaml(text, "x") == text


def test_nan_is_a_number():
    found = parse_yaml("[.nan, .NaN, .NAN]", "x")
    assert len(found) == 3
    assert all(isinstance(one, float) and math.isnan(one) for one in found)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["1e5", "yes", "010", "0x1f", "1:30", "null", "*a", "&b", "- c", "#", "a\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1:", min_size=1), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_dumped_is_read_back_with_its_types(value):
    found = parse_yaml(dump(value), "x")
    assert found == value
    assert repr(found) == repr(value)  # 1 is not 1.0, nor True


@pytest.mark.parametrize("text", ["a\nb", "a\x85b", "a\u2028b", "a\n", "\n"])
def test_text_with_any_line_break_is_one_line_in_quotes(text):
    dumped = dump({"text": text}).rstrip("\n")
    assert "\n" not in dumped
    assert dumped.startswith('text: "')
    assert parse_yaml(dumped, "x") == {"text": text}


def test_values_that_stand_twice_are_written_out_twice():
    shared = [1, 2]
    assert dump({"a": shared, "b": shared}) == "a:\n- 1\n- 2\nb:\n- 1\n- 2\n"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: 2\na: 3\n", "a is set twice (lines 1 and 3)"),
        ("a:\n  - b: 1\n  - c: 1\n    c: 2\n", "a[1].c is set twice (lines 3 and 4)"),
        ("- [{x: 1, x: 2}]\n", "[0][0].x is set twice (lines 1 and 1)"),
        ("a: {b: {c: 1, d: 2, c: 3}}", "a.b.c is set twice (lines 1 and 1)"),
        ("1: a\n'1': b\n", "1 is set twice (lines 1 and 2)"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_place_and_lines(text, where):
    with pytest.raises(WagleError) as caught:
        parse_yaml(text, "r.yaml")
    assert str(caught.value) == f"r.yaml: {where}; keep one"


def test_one_key_in_two_sections_and_an_anchor_used_twice_are_fine():
    assert parse_yaml("a: {x: 1}\nb: {x: 2}\n", "x") == {"a": {"x": 1}, "b": {"x": 2}}
    text = "a: &one {x: 1}\nb: *one\nc: [*one, *one]\n"
    assert parse_yaml(text, "x")["c"] == [{"x": 1}, {"x": 1}]


@pytest.mark.parametrize("text", ["a: &x [1, *x]", "a: &x {b: [*x]}"])
def test_an_anchor_that_holds_itself_is_refused(text):
    with pytest.raises(WagleError, match=r"^x is not valid YAML \(it holds itself\)$"):
        parse_yaml(text, "x")


def test_an_error_in_one_line_of_text_names_no_line():
    with pytest.raises(WagleError, match=r"^override is not valid YAML \(.+\)$"):
        parse_yaml("[1, 2", "override")
    with pytest.raises(WagleError, match=r"^r, line 2, is not valid YAML \(.+\)$"):
        parse_yaml("a: 1\nb: ]\n", "r")


def test_no_code_is_run_by_a_tag():
    with pytest.raises(WagleError, match="could not determine a constructor for the tag"):
        parse_yaml("!!python/object/apply:os.getcwd []", "x")


def _bomb(levels):
    """A list of nine lists of nine lists and so on, in one line for each level."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for one, inner in zip("bcdefghij"[:levels], "abcdefghi", strict=False):
        lines.append(f"{one}: &{one} [{', '.join(['*' + inner] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("levels", [4, 9])
def test_aliases_that_stand_for_very_many_values_are_refused_before_any_is_made(levels):
    """Nine lines of 459 bytes stood for so many values that reading them took 15 seconds."""
    started = time.process_time()
    with pytest.raises(WagleError, match=r"^x, line 5, .+it stands for more than 50,000 values"):
        parse_yaml(_bomb(levels), "x")
    assert time.process_time() - started < 1


def test_merged_mappings_count_as_often_as_they_are_merged():
    with pytest.raises(WagleError, match="it stands for more than 50,000 values"):
        parse_yaml("a: &a {b: 1}\nc: {<<: [" + "*a, " * 30_000 + "]}", "x")


def test_a_few_aliases_are_read_as_ever():
    assert parse_yaml("a: &a {k: [1]}\nb: *a\nc: {<<: *a, d: 2}", "x")["c"] == {"k": [1], "d": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "9" * 5000, "x is not valid YAML (a number has 5,000 characters)"),
        ("a: 0x" + "f" * 5000, "x is not valid YAML (a number has 5,002 characters)"),
        ("[" * 101 + "]" * 101, "x is not valid YAML (it is nested too deeply)"),
        (
            'a: "\\ud800"',
            "x is not valid YAML (it holds half of a surrogate pair, which is not a character)",
        ),
        ("x" * 262_145, "x has 262,145 characters; at most 262,144 are read"),
        ("a: !!bool x", "x is not valid YAML ('x' is not of the type !!bool)"),
        ("a: !!int ''", "x is not valid YAML ('' is not of the type !!int)"),
        (
            "a: !!timestamp x",
            "x is not valid YAML (could not determine a constructor for the tag "
            "'tag:yaml.org,2002:timestamp')",
        ),
    ],
)
def test_yaml_out_of_bounds_is_one_line(text, said):
    with pytest.raises(WagleError) as caught:
        parse_yaml(text, "x")
    assert str(caught.value) == said


def test_one_hundred_levels_are_read():
    found = parse_yaml("[" * 100 + "]" * 100, "x")
    for _ in range(99):
        (found,) = found
    assert found == []
