"""The section of attacks: what was brought back, beside which models, and how far it is evidence."""

from __future__ import annotations

from typing import Any

import pytest

from wagle.recipe.reading import load_recipe
from wagle.report.attack_findings import strongest
from wagle.report.disclosure import public, public_recipe
from wagle.report.html.sections.attacks import attack_part

LOOKS = "the attack only looks"


def figure(value: float | None, note: str | None = None, n: int = 4) -> dict[str, Any]:
    interval = None if value is None else [value - 0.1, value + 0.1]
    return {"value": value, "interval": interval, "n": n, "unit": "share", "note": note}


def effect(
    rise: float | None, recovered: float | None, gap: float | None, note: str | None = None
) -> dict[str, Any]:
    return {"rise": rise, "recovered": recovered, "gap": gap, "note": note}


def attack(
    name: str, roles: dict[str, Any], effects: dict[str, Any], **more: Any
) -> dict[str, Any]:
    return {
        "schema": "wagle-attack/1",
        "attack": name,
        "settings": {},
        "seed": 0,
        "roles": {role: {"states": states, "details": {}} for role, states in roles.items()},
        "effects": effects,
        **more,
    }


def relearning(reference: bool = True) -> dict[str, Any]:
    def model(*values: float) -> dict[str, Any]:
        return {
            f"step {step}": {"forget.probability": figure(v), "forget.nll": figure(9.0)}
            for step, v in zip((0, 2, 10), values, strict=True)
        }

    roles = {"after": model(0.1, 0.2, 0.5), "before": model(0.9, 0.9, 0.9)}
    if reference:
        roles["reference"] = model(0.1, 0.15, 0.3)
    gaps = (0.05, 0.2) if reference else (None, None)
    effects = {
        "step 2": {
            "forget.probability": effect(0.1, 0.125, gaps[0]),
            "forget.nll": effect(0.0, None, 9.0),
        },
        "step 10": {"forget.probability": effect(0.4, 0.5, gaps[1])},
    }
    return attack("relearning", roles, effects)


def sampling() -> dict[str, Any]:
    def model(p: float) -> dict[str, Any]:
        leaks = {f"leak@{k}": figure(p * k, "leaks from 0.5 on") for k in range(1, 7)}
        return {"forget": {**leaks, "rouge_l@1": figure(0.5)}}

    roles = {"after": model(0.1), "before": model(0.15), "reference": model(0.05)}
    effects = {"forget": {f"leak@{k}": effect(None, None, 0.05 * k, LOOKS) for k in range(1, 7)}}
    return attack("sampling", roles, effects)


def probe(reference: bool = True) -> dict[str, Any]:
    def model(value: float) -> dict[str, Any]:
        return {
            "forget_or_holdout": {
                "auc_block_0": figure(0.99),
                "auc_maximum": figure(value),
                "auc_maximum_shuffled": figure(0.55, "of shuffled labels"),
            }
        }

    roles = {"after": model(0.8), "before": model(0.9)}
    roles |= {"reference": model(0.6)} if reference else {}
    gap = 0.2 if reference else None
    effects = {
        "forget_or_holdout": {
            "auc_maximum": effect(None, None, gap, LOOKS),
            "auc_maximum_shuffled": effect(None, None, 5.0, LOOKS),
        }
    }
    return attack("probe", roles, effects)


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
    assert made["notes"] == {
        "no share of it can be told: too little was forgotten": "forget.probability"
    }


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


def test_the_largest_gap_is_named_and_that_of_a_loss_or_of_shuffled_labels_is_not():
    assert strongest(relearning()) == (
        "largest gap to the reference +0.200 (forget.probability, step 10)"
    )
    assert strongest(sampling()) == "largest gap to the reference +0.300 (leak@6, forget)"
    assert strongest(probe()) == (
        "largest gap to the reference +0.200 (auc_maximum, forget_or_holdout)"
    )


def test_without_a_reference_nothing_is_called_evidence():
    assert strongest(relearning(reference=False)) == (
        "at most 50 % recovered (forget.probability, step 10); no evidence without a reference"
    )
    assert strongest(probe(reference=False)) == (
        "auc_maximum 0.800 (before 0.900, shuffled labels 0.550)"
    )
    alone = relearning(reference=False)
    alone["effects"] = {}
    assert strongest(alone) == "what it brought back cannot be told"


def test_an_attack_of_another_name_shows_all_of_its_figures():
    found = {**relearning(), "attack": "another"}
    assert list(section(found)["groups"]) == ["forget.probability", "forget.nll"]
    assert section(found)["curves"] == []


def test_what_is_given_record_by_record_is_counted_and_not_shown():
    settings = {"limit": 3, "groups": {"forget[0]": "Ada", "forget[1]": "Bo"}}
    assert public(settings) == {"limit": 3, "groups": "of 2 records"}
    assert public(public(settings)) == public(settings)
    recipe = {
        "name": "trial",
        "model": "demo",
        "forget": "demo:forget",
        "attacks": [{"name": "probe", "settings": settings}],
    }
    hidden = public_recipe(load_recipe(recipe))
    assert hidden.attacks[0].settings == public(settings)
    shown = load_recipe({**recipe, "report": {"show_text": True}})
    assert public_recipe(shown).attacks[0].settings == settings
