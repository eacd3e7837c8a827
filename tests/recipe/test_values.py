"""Kinds of values: what each becomes, and the rule that is named where it does not fit."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from wagle.recipe.sections.base import Named, Section, item_of, section_of
from wagle.recipe.values import (
    Damping,
    GammaSetting,
    Name,
    Number,
    Ratio,
    Rows,
    ScoreName,
    Setting,
    SourceName,
    Take,
    kind_of,
    plain,
    shown,
)

INF, NAN = float("inf"), float("nan")


def read(kind, value):
    return TypeAdapter(kind).validate_python(value)


def refusal(kind, value):
    """The type of the error, and what it says in our words."""
    with pytest.raises(ValidationError) as caught:
        read(kind, value)
    first = caught.value.errors()[0]
    return first["type"], first.get("ctx", {})


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (Number, "1e-5", 1e-5),
        (Number, 3, 3.0),
        (Setting, "1e-2", 0.01),
        (Setting, 4, 4),
        (Setting, "linear", "linear"),
        (Setting, ["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        (Ratio, None, None),
        (Ratio, "0.5", 0.5),
        (Ratio, 1, 1.0),
        (Ratio, [0.1, "0.5", 1], [0.1, 0.5, 1.0]),
        (Ratio, [0.2], [0.2]),
        (GammaSetting, "1e-3", 1e-3),
        (GammaSetting, {"mu": "1e-6", "accumulation": 4}, {"mu": 1e-6, "accumulation": 4.0}),
        (Damping, "2.5", 2.5),
        (Damping, "auto", "auto"),
        (ScoreName, {"by_name": ["ffn"]}, {"by_name": ["ffn"]}),
        (Take, "007", 7),
        (Take, "05%", "5%"),
        (Take, 1, 1),
        (Name, "a.B_c-9", "a.B_c-9"),
        (Rows, ":5", ":5"),
        (SourceName, ["a", "b"], ["a", "b"]),
        (SourceName, "complement", "complement"),
    ],
)
def test_a_value_that_fits_becomes_this(kind, given, value):
    found = read(kind, given)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (Number, True, "float_type"),
        (Number, "many", "float_type"),
        (Number, None, "float_type"),
        (Number, 10**400, "float_type"),
        (Number, "nan", "finite_number"),
        (Setting, INF, "finite_number"),
        (Setting, "inf", "finite_number"),
        (Setting, "", "float_type"),
        (Setting, {}, "float_type"),
        (Setting, [], "float_type"),
        (Setting, ["a", ""], "float_type"),
        (Ratio, 0, "greater_than"),
        (Ratio, NAN, "finite_number"),
        (Ratio, 1.0000001, "less_than_equal"),
        (Ratio, [0.5, 2], "less_than_equal"),
        (ScoreName, 3, "string_type"),
        (ScoreName, "", "string_too_short"),
    ],
)
def test_a_value_of_another_kind_breaks_a_known_rule(kind, value, error):
    assert refusal(kind, value)[0] == error


@pytest.mark.parametrize(
    ("kind", "value", "key", "said"),
    [
        (Ratio, [], "", "has 0 ratios; a ladder has 1 to 15"),
        (Ratio, [0.5, 0.5], "", "is [0.5, 0.5]; a ladder must ascend without repeats"),
        (GammaSetting, {"theta_share": 0}, "theta_share", "is 0; it must lie between 0 and 1"),
        (GammaSetting, {"theta_share": 1}, "theta_share", "is 1; it must lie between 0 and 1"),
        (GammaSetting, {"mu": 0}, "mu", "is 0; it must be above 0"),
        (GammaSetting, {"mu": "x"}, "mu", "is 'x'; it must be a number"),
        (GammaSetting, {"mu": 1, "records": 1.5}, "records", "is 1.5; it must be a whole number"),
        (Damping, 0, "", "is 0; it must be 'auto' or a number above 0"),
        (Damping, True, "", "is true; it must be 'auto' or a number above 0"),
        (ScoreName, {"complement": ""}, "complement", "is ''; it must be the path of a mask"),
        (ScoreName, {"by_name": ["a", 1]}, "by_name", "is ['a', 1]; it must be a list, such as ["),
        (
            ScoreName,
            {},
            "",
            "is {}; it must have exactly one of the keys random_like, complement, by_name",
        ),
        (Take, 0.25, "", "write a share as 25%, a count as a whole number"),
        (Take, 3.0, "", "is 3.0, which could be a share or a count; write a share as 10%"),
        (Take, "101%", "", "is '101%'; it must be all, a count above 0, or a whole percentage"),
        (Take, True, "", "is true; it must be all"),
        (Take, "0", "", "is '0'; it must be all"),
        (Take, "\u0661", "", "it must be all"),  # a digit of another script
        (Rows, ":", "", "is ':'; write FIRST:LAST"),
        (Rows, "1-2", "", "is '1-2'; write FIRST:LAST"),
        (Name, "a/b", "", "is 'a/b'; use letters, digits, '.', '_' and '-' only"),
        (Name, "..", "", "is '..'; it needs a letter or a digit"),
        (Name, "a\n", "", "use letters"),
        (SourceName, [], "", "is []; it must be a file, a folder, demo:SET, or a list of these"),
        (
            SourceName,
            ["a", "complement"],
            "",
            "has 'complement' in a list; it can only stand alone",
        ),
        (SourceName, ["a", ""], "", "is ['a', '']; it must be a file"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_our_words(kind, value, key, said):
    error, context = refusal(kind, value)
    assert error == "refused"
    assert context["key"] == key
    assert said in context["said"]


def test_a_value_is_shown_in_the_words_of_yaml_and_short():
    assert [shown(v) for v in (True, False, None, 1, 0, "a")] == [
        *("true", "false", "null", "1", "0", "'a'")
    ]
    assert shown("x" * 58) == repr("x" * 58)  # 60 with its quotes
    assert shown("x" * 59) == "'" + "x" * 56 + "..."
    assert len(shown("x" * 59)) == 60


def test_what_yaml_cannot_hold_is_made_plain_or_refused():
    assert plain({"a": (1, Path("b/c")), "d": {"e": [Path("f")]}}) == {
        "a": [1, "b/c"],
        "d": {"e": ["f"]},
    }
    for value, said in (([{1, 2}], "holds a set; a"), ({"a": b"x"}, "holds a bytes; a recipe")):
        with pytest.raises(ValueError, match=said):
            plain(value)
    with pytest.raises(ValueError, match="finite number"):
        plain([1.0, NAN])


# ---------------------------------------------------------------------------------------------
# Fields


class Part(Section):
    """A section with a list of sections."""

    bare = "path"
    path: str = "x"
    share: float = 0.5
    count: int | None = 3
    on: bool = False
    each: list[Named] = Field(default=[])


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (int, int),
        (int | None, int),
        (Annotated[int, Field(ge=1)] | None, int),
        (Annotated[Annotated[int, 1] | None, 2], int),
        (float | str, float | str),
        (list[int], list[int]),
        (Literal["a", "b"], Literal["a", "b"]),
    ],
)
def test_the_kind_of_a_field_is_what_may_stand_there_beside_null(annotation, kind):
    assert kind_of(annotation) == kind


def test_sections_are_found_in_fields_and_in_lists():
    assert section_of(Part | None) is Part
    assert section_of(list[Part]) is section_of(int) is section_of(Part | int) is None
    assert item_of(list[Part] | None) is Part
    assert item_of(Annotated[list[Annotated[Named, 1]], 2]) is Named
    assert item_of(list[int]) is item_of(Part) is None


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("share", True, "float_type"),
        ("count", True, "int_type"),
        ("count", 3.0, "int_type"),
        ("count", "3", "int_type"),
        ("on", 1, "bool_type"),
        ("on", "yes", "bool_type"),
        ("path", 3, "string_type"),
        ("share", NAN, "finite_number"),
        ("other", 1, "extra_forbidden"),
    ],
)
def test_no_value_is_taken_for_one_of_another_kind(key, value, error):
    assert refusal(Part, {key: value})[0] == error


def test_a_section_may_be_left_empty_or_written_as_its_bare_setting():
    assert Part.model_validate(None) == Part.model_validate({}) == Part()
    assert Part.model_validate("a/b").path == Part.model_validate(Path("a/b")).path == "a/b"
    assert Part.model_validate({"count": None, "share": "0.25"}).count is None
    each = Part.model_validate({"each": ["tofu", {"name": "muse", "label": "m.1"}]}).each
    assert [(one.name, one.called) for one in each] == [("tofu", "tofu"), ("muse", "m.1")]
    assert refusal(Part, {"each": [{"name": "a", "label": "a b"}]})[0] == "string_pattern_mismatch"
