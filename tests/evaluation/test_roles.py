"""Each role is another model, and a reference that knows the forget set is none."""

from __future__ import annotations

import pytest

from wagle.evaluation.figures import Figure, Measured, mean_figure
from wagle.evaluation.roles import check_distinct, check_reference, role_text, roles_of
from wagle.system.errors import WagleError

ONE, TWO, THREE = ("a1" * 32, "b2" * 32, "c3" * 32)


def entry(mark, path="base", kind="model"):
    return {"path": path, "fingerprint": mark, "kind": kind}


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ((ONE, ONE, TWO), "^the model and the model before are the same model: m .* and b .*; as"),
        ((ONE, TWO, ONE), "^the model and the reference are the same model: m .* and r .*; as the"),
        ((ONE, TWO, TWO), "^the model before and the reference are the same model: b .* and r "),
    ],
)
def test_two_roles_with_one_fingerprint_are_refused_by_role_and_path(marks, message):
    roles = {
        role: entry(mark, role[0])
        for role, mark in zip(("model", "before", "reference"), marks, strict=True)
    }
    with pytest.raises(WagleError, match=message) as caught:
        check_distinct(roles)
    assert "\n" not in str(caught.value)


def test_other_models_and_unknown_fingerprints_pass():
    check_distinct({"model": entry(ONE), "before": entry(TWO), "reference": entry(THREE)})
    check_distinct({"model": entry(ONE), "before": entry(None), "reference": entry(None)})
    check_distinct({"model": entry(ONE), "before": None, "reference": {"kind": "result"}})


def test_what_was_left_unchanged_on_purpose_is_the_model_before_and_no_reference():
    check_distinct({"model": entry(ONE), "before": entry(ONE)}, unchanged=True)
    with pytest.raises(WagleError, match="the model and the reference"):
        check_distinct({"model": entry(ONE), "reference": entry(ONE)}, unchanged=True)


def test_a_role_is_shown_with_its_path_its_kind_and_twelve_digits():
    assert role_text(entry(ONE, "runs/x/base")) == "runs/x/base (a1a1a1a1a1a1)"
    told = {**entry(TWO, "m"), "patches": ["p", "q"]}
    assert role_text(told) == "m with p with q (b2b2b2b2b2b2)"
    assert role_text(entry(None, "r.json", "result")) == "r.json (result, fingerprint not known)"
    assert role_text(entry(ONE, None)) == "a live model (a1a1a1a1a1a1)"


def test_the_roles_of_a_result_are_those_that_it_names():
    found = roles_of({"model": {"path": "m", "fingerprint": ONE, "dtype": "x"}, "reference": None})
    assert found == {"model": entry(ONE, "m"), "before": None, "reference": None}
    given = {"kind": "result", "path": "r.json"}
    assert roles_of({"model": {}, "reference": given})["reference"] == entry(
        None, "r.json", "result"
    )


# ----- the reference -----


def measured(*values, metric="probability"):
    rows = {f"forget[{i}]": value for i, value in enumerate(values)}
    return Measured({"forget": {metric: mean_figure(rows, unit="share")}})


KNOWS = [0.9, 0.8, 0.95, 0.85, 0.9, 0.7]


@pytest.mark.parametrize("metric", ["probability", "verbmem"])
def test_a_reference_that_knows_as_well_as_the_model_before_is_refused(metric):
    almost = [value - 0.03 for value in KNOWS]  # surely below, by less than a tenth
    for other in (KNOWS, almost, [0.99] * 6):
        with pytest.raises(
            WagleError, match=f"^the reference knows the forget set as .*: {metric} 0"
        ) as caught:
            check_reference(measured(*KNOWS, metric=metric), measured(*other, metric=metric))
        assert "or neither model did and the answers are easy to guess" in str(caught.value)


def test_a_reference_that_falls_clearly_short_is_one_even_where_answers_are_easy():
    check_reference(measured(*KNOWS), measured(0.6, 0.5, 0.6, 0.5, 0.6, 0.5))
    check_reference(measured(*KNOWS), measured(*[0.1] * 6))


def test_where_the_model_before_never_knew_the_reference_is_innocent():
    low = [0.1, 0.2, 0.15, 0.1]
    check_reference(measured(*low), measured(*low))


def test_what_cannot_be_paired_is_compared_by_its_intervals():
    def figure(value, low, high):
        return Measured({"forget": {"probability": Figure(value, (low, high), "")}})

    check_reference(figure(0.9, 0.88, 0.92), figure(0.6, 0.5, 0.7))
    with pytest.raises(WagleError, match=r"reference m \(a1.* knows the forget set"):
        check_reference(
            figure(0.9, 0.8, 0.95), figure(0.75, 0.6, 0.9), {"reference": entry(ONE, "m")}
        )


def test_the_pairs_of_records_see_what_the_intervals_cannot():
    before = [0.99, 0.7, 0.95, 0.65, 0.97, 0.69]
    lower = [value - 0.15 for value in before]
    one, other = (measured(*v).figures["forget"]["probability"] for v in (before, lower))
    assert one.low < other.high
    check_reference(measured(*before), measured(*lower))
