"""What is printed of patches: the result, the overlaps, and the proof."""

from __future__ import annotations

import pytest

from wagle.patch.application import Applied
from wagle.patch.stack import Shared
from wagle.patch.verification import Verification
from wagle.report.text.patch import applied_table, verification_table

MARK = "0123456789abcdef" * 4


def said(table: str) -> list[str]:
    """The lines without the blanks of their columns."""
    return [" ".join(line.split()) for line in table.splitlines()]


@pytest.mark.parametrize(
    ("patches", "promised", "words"),
    [
        (["a"], True, "as the patch promises"),
        (["a", "b"], True, "as the last patch promises"),
        (["a", "b"], False, "which no patch promises: they were made independently"),
    ],
)
def test_a_result_is_named_by_its_fingerprint_and_by_who_promises_it(patches, promised, words):
    assert said(applied_table(Applied(MARK, promised, {}), patches)) == [
        f"result 0123456789ab, {words}"
    ]


def test_an_overlap_names_both_patches_and_counts_per_tensor():
    shared = Shared({"a.weight": 1200, "b.weight": 34}, 30)
    table = applied_table(Applied(MARK, False, {(0, 2): shared}), ["one", "two", "three"])
    assert said(table)[1:] == [
        "overlap one and three both change 1,234 weights, 30 to different values",
        "a.weight: 1,200",
        "b.weight: 34",
    ]


def test_without_mask_and_patch_the_counts_are_the_proof():
    found = Verification(1234, 10_000, {"a.weight": 1234})
    assert said(verification_table(found)) == [
        "changed 1,234 of 10,000 weights, in 1 tensors",
        "proof holds",
    ]


def test_equal_models_are_said_to_be_equal():
    assert said(verification_table(Verification(0, 10, {})))[1:] == [
        "note the two models are equal",
        "proof holds",
    ]


def test_a_mask_that_holds_says_how_many_weights_stayed():
    found = Verification(5, 10_000, {"a": 5}, mask_count=3000, mask_of_base=True, outside={})
    assert said(verification_table(found))[1:] == [
        "mask selects 3,000; the other 7,000 are all bit-identical",
        "proof holds",
    ]


def test_weights_that_changed_outside_the_mask_are_named_and_break_the_proof():
    outside = {"a.weight": 1000, "b.weight": 2}
    found = Verification(1005, 10_000, {"a.weight": 1005}, mask_count=3000, outside=outside)
    assert said(verification_table(found))[1:] == [
        "mask selects 3,000; the other 7,000 are 1,002 CHANGED",
        "a.weight: 1,000 outside the mask",
        "b.weight: 2 outside the mask",
        "proof FAILS",
    ]


@pytest.mark.parametrize(("own", "noted"), [(False, True), (True, False), (None, False)])
def test_only_a_mask_that_is_known_to_be_of_another_model_is_noted(own, noted):
    found = Verification(5, 10, {"a": 5}, mask_count=6, mask_of_base=own, outside={})
    assert ("made for another model" in verification_table(found)) is noted


@pytest.mark.parametrize(
    ("patches", "problems", "row"),
    [
        (1, (), "patch gives the result bit for bit"),
        (2, (), "patches give the result bit for bit, in this order"),
        (1, ("a.weight differs",), "patch DOES NOT FIT"),
        (2, ("a.weight differs",), "patches DO NOT FIT"),
    ],
)
def test_patches_fit_or_say_why_not(patches, problems, row):
    found = Verification(5, 10, {"a": 5}, patches=patches, patch_problems=problems)
    assert said(verification_table(found))[1:] == [
        row,
        *problems,
        f"proof {'FAILS' if problems else 'holds'}",
    ]
