"""The section of attacks: what was brought back, beside which models, and how far it is evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.report.attack_files import effect, figure, probe, relearning, sampling
from tests.report.pages import (
    full,
    part,
    text,
)
from wagle.report.html.rendering import render
from wagle.report.html.sections.attacks import attack_part


def section(found: dict[str, Any]) -> dict[str, Any]:
    return attack_part("mine", found, lambda text: text)


def test_a_table_has_a_row_per_state_and_what_it_brought_back():
    made = section(relearning())
    assert made["roles"] == ["before", "after", "reference"]
    assert list(made["groups"]) == ["forget.probability"]  # a loss is no figure that comes back
    group = made["groups"]["forget.probability"]
    assert group["n"] == "4"
    assert [(row["title"], row["recovered"], row["gap"]) for row in group["rows"]] == [
        ("step 0", "", ""),
        ("step 2", "12 %", "+0.050"),
        ("step 10", "50 %", "+0.200"),
    ]
    assert group["rows"][2]["figures"]["after"].interval == (0.4, 0.6)


def test_relearning_is_a_line_per_model_over_its_steps():
    (curve,) = section(relearning())["curves"]
    assert curve["title"] == "forget.probability"
    for role in ("before", "after", "reference"):
        assert f"var(--{role})" in curve["chart"]
    assert curve["chart"].count('aria-roledescription="circle"') == 9
    assert ">step<" in curve["chart"]


def test_relearning_at_several_rates_is_a_chart_per_rate_from_the_same_start():
    found = relearning()
    for role in found["roles"].values():
        states = role["states"]
        role["states"] = {"step 0": states["step 0"]} | {
            f"{rate}, {state}": states[state]
            for rate in ("5e-06", "1e-05")
            for state in ("step 2", "step 10")
        }
    curves = section(found)["curves"]
    titles = [f"forget.probability, learning rate {rate}" for rate in ("5e-06", "1e-05")]
    assert [curve["title"] for curve in curves] == titles
    assert {c["chart"].count('aria-roledescription="circle"') for c in curves} == {9}


def test_sampling_shows_powers_of_two_and_the_last_and_a_curve_of_all():
    made = section(sampling())
    rows = made["groups"]["forget"]["rows"]
    assert [row["title"] for row in rows] == ["leak@1", "leak@2", "leak@4", "leak@6"]
    assert [row["gap"] for row in rows] == ["+0.050", "+0.100", "+0.200", "+0.300"]
    assert (made["recovered"], made["gap"]) == (False, True)
    assert made["notes"] == {"leaks from 0.5 on": "leak@1, leak@2, leak@4 and 1 more"}
    (curve,) = made["curves"]
    assert curve["chart"].count('aria-roledescription="circle"') == 18
    assert ">k answers<" in curve["chart"]


def test_a_probe_shows_its_maximum_beside_that_of_shuffled_labels():
    made = section(probe())
    rows = made["groups"]["forget_or_holdout"]["rows"]
    assert [(row["title"], row["gap"]) for row in rows] == [
        ("auc_maximum", "+0.200"),
        ("auc_maximum_shuffled", ""),
    ]
    assert made["curves"] == []


def test_a_share_that_is_not_defined_is_a_dash_with_its_reason():
    found = relearning()
    none = effect(0.1, None, 0.05, "undefined: too little was forgotten")
    found["effects"]["step 2"]["forget.probability"] = none
    made = section(found)
    assert made["groups"]["forget.probability"]["rows"][1]["recovered"] == ""
    assert made["notes"] == {"no share is shown: too little was forgotten": "forget.probability"}


def test_a_figure_without_value_is_drawn_nowhere_and_keeps_its_note():
    found = relearning()
    found["roles"]["after"]["states"]["step 2"]["forget.probability"] = figure(None, "no answer")
    made = section(found)
    assert made["notes"] == {"no answer": "forget.probability (after)"}
    assert made["curves"][0]["chart"].count('aria-roledescription="circle"') == 8


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            {"weights": 3000, "changed": 3000, "code_changed": 0.81, "below_half_step": 0.12},
            "int4: 81 % of the 3,000 changed weights have another int4 code than in the original; "
            "12 % moved by less than half a step.",
        ),
        (
            {"weights": 4000, "changed": 3000, "code_changed": 0.5, "below_half_step": 0.12},
            "int4: 50 % of the 4,000 selected weights have another int4 code than in the original; "
            "12 % of the 3,000 that changed moved by less than half a step.",
        ),
        (
            {"weights": 0, "changed": 0, "code_changed": None, "below_half_step": None},
            "int4: none of the weights that changed is rounded.",
        ),
    ],
)
def test_codes_are_a_sentence(counts, said):
    codes = {"int4": {**counts, "not_quantized": 0}}
    assert section({**relearning(), "codes": codes})["codes"] == [said]
    codes["int4"]["not_quantized"] = 1200
    assert section({**relearning(), "codes": codes})["codes"] == [
        f"{said} 1,200 more stay unrounded."
    ]


def test_an_attack_of_another_name_shows_all_of_its_figures():
    found = {**relearning(), "attack": "another"}
    assert list(section(found)["groups"]) == ["forget.probability", "forget.nll"]
    assert section(found)["curves"] == []


def test_attacks_say_what_is_evidence_and_have_curves(more):
    found = part(more, "attacks")
    shown = text("<body>" + found)
    assert "Only the gap to the reference is evidence" in shown
    assert "nothing here is evidence" not in shown
    assert "Result: largest gap to the reference +0.200 (forget.probability, step 10)." in shown
    row = "step 10 0.900 [0.800, 1.000] 0.500 [0.400, 0.600] 0.300 [0.200, 0.400] 50 % +0.200"
    assert row in shown
    assert found.count('<svg role="img"') == 2


def test_attacks_without_a_reference_are_no_evidence():
    page = replace(full(), attacks={"relearning": relearning(reference=False)})
    shown = text(render(page))
    assert "This run has no reference, so nothing here is evidence." in shown
    assert "step 10 0.900 [0.800, 1.000] 0.500 [0.400, 0.600] 50 %" in shown
