"""What the runs of a comparison say, on runs made up for it."""

from __future__ import annotations

import pytest

from wagle.comparison.arms import Cell
from wagle.comparison.results import Found, differs, say, summarise
from wagle.comparison.tuning import Tuned
from wagle.recipe.reading import load_recipe

RECIPE = {"name": "x", "model": "m", "forget": {"source": "a.json", "take": 9}, "finetune": {}}


def run(figure, end=0.9):
    """A run that reads ``figure`` where half of the way from 1 to 0.9 is gone; or ends early."""
    looks = [
        {"step": 0, "retain": 0.8, "forget": 0.9, "heldout": 0.6},
        {"step": 4, "retain": 0.8 * end, "forget": 0.1, "heldout": 2 * figure - 0.6},
    ]
    return {"selected": 50, "trajectory": looks, "stopped": None, "seconds": 1.0}


def early(figure):
    found = run(figure, end=0.99)
    found["trajectory"][1]["heldout"] = figure
    return found


def summary(runs, references=None, **recipe):
    tuned = {cell: Tuned(1e-5, edge=False) for cell in runs}
    return summarise(load_recipe({**RECIPE, **recipe}), Found(runs, tuned, references), trials=4)


WAGLE, RANDOM, DENSE = Cell("wagle", 0.5), Cell("random", 0.5), Cell("dense", None)
CONTROL = [0.30, 0.32, 0.28, 0.31, 0.29]


def test_an_arm_that_forgets_more_on_every_unit_is_named():
    lower = [value - 0.1 - 0.01 * i for i, value in enumerate(CONTROL)]
    found = summary({WAGLE: list(map(run, lower)), RANDOM: list(map(run, CONTROL))})
    (one,) = found["differences"]
    assert one["mean"] == pytest.approx(-0.12)
    # spread of 0.1, 0.11, .. 0.14 is 0.0158114, t(0.975; 4) = 2.776445: -0.12 -+ 0.019632
    assert one["interval"] == pytest.approx((-0.139632, -0.100368), abs=1e-5)
    assert one["holm"] == one["p"] < 0.001
    assert differs(one)
    assert one["without_unit_0"]["mean"] == pytest.approx(-0.125)
    assert one["without_unit_0"]["units"] == 4
    assert not found["exploratory"]
    assert (
        "wagle at ratio 0.5 forgets more (-0.120, 95 % interval -0.140 to -0.100)"
        in (found["sentence"])
    )
    assert found["arms"][0]["mean"] == pytest.approx(0.18)
    assert found["before"] == [0.6] * 5


def test_arms_that_differ_by_chance_only_are_not_named():
    mixed = [value + (-1) ** i * 0.02 for i, value in enumerate(CONTROL)]
    found = summary({WAGLE: list(map(run, mixed)), RANDOM: list(map(run, CONTROL))})
    assert found["sentence"].startswith("No arm differs from random at the 5 % level")
    assert f"{found['differences'][0]['smallest']:.3f}" in found["sentence"]


def test_what_has_no_ratio_is_compared_with_the_control_of_every_ratio_in_one_family():
    half, tenth = Cell("random", 0.5), Cell("random", 0.1)
    runs = {
        tenth: list(map(run, CONTROL)),
        half: list(map(run, reversed(CONTROL))),
        DENSE: list(map(run, [0.2, 0.2, 0.21, 0.2, 0.19])),
    }
    found = summary(runs)
    assert [(one["arm"], one["ratio"]) for one in found["differences"]] == [
        ("dense", 0.1),
        ("dense", 0.5),
    ]
    low = min(found["differences"], key=lambda one: one["p"])
    assert low["holm"] == pytest.approx(2 * low["p"])


@pytest.mark.parametrize(
    ("own", "control", "bound", "counts"),
    [
        (run, run, "", True),
        (early, run, "at most", True),
        (run, early, "at least", False),
        (early, early, "open", False),
    ],
)
def test_a_lower_arm_counts_unless_the_control_ended_before_it_could_be_read(
    own, control, bound, counts
):
    lower = [value - 0.1 - 0.01 * i for i, value in enumerate(CONTROL)]
    found = summary({WAGLE: list(map(own, lower)), RANDOM: list(map(control, CONTROL))})
    (one,) = found["differences"]
    assert one["bound"] == bound
    assert differs(one) is counts
    assert found["arms"][0]["at_least"] is (own is early)
    assert ("are undecided" in found["sentence"]) is not counts


def test_a_higher_arm_counts_unless_it_ended_before_it_could_be_read():
    one = {"mean": 0.1, "holm": 0.01}
    assert [differs({**one, "bound": b}) for b in ("", "at least", "at most", "open")] == [
        True,
        True,
        False,
        False,
    ]


def test_few_units_are_exploratory_and_one_shows_nothing():
    runs = {WAGLE: list(map(run, CONTROL[:2])), RANDOM: list(map(run, CONTROL[1:3]))}
    found = summary(runs)
    assert found["exploratory"]
    assert found["sentence"].startswith("Exploratory, with 2 units: no arm differs")
    found = summary({WAGLE: [run(0.2)], RANDOM: [run(0.3)]})
    assert found["sentence"] == (
        "Exploratory, with 1 unit: one unit shows no difference between arms."
    )
    (one,) = found["differences"]
    assert (one["p"], one["interval"], one["without_unit_0"]) == (None, None, None)
    assert one["mean"] == pytest.approx(-0.1)


def test_the_figure_of_the_reference_tells_over_unlearning():
    runs = {WAGLE: [run(0.1), run(0.14)], RANDOM: [run(0.2), run(0.2)]}
    found = summary(runs, [{"heldout": 0.25, "forget": 0.9}, {"heldout": 0.25, "forget": 0.9}])
    assert found["reference"] == [0.25, 0.25]
    assert [arm["over"] for arm in found["arms"]] == [True, False]  # 0.12 and 0.2 to 0.125
    assert [arm["over"] for arm in summary(runs)["arms"]] == [False, False]


def test_curves_are_shares_of_before():
    found = summary({WAGLE: [run(0.5)], RANDOM: [run(0.5)]})
    first, last = found["arms"][0]["units"][0]["curve"]
    assert first == [1.0, 0.6]
    assert last == pytest.approx([0.9, 0.4])


def test_one_family_of_nothing_significant_says_what_could_have_been_seen():
    base = {"arm": "a", "ratio": 0.5, "mean": 0.0, "interval": (-1, 1), "holm": 1.0, "bound": ""}
    text = say([{**base, "smallest": 0.02}, {**base, "smallest": 0.015}], 6, False)
    assert "over 2 differences, 6 units" in text
    assert "differences of 0.015 to 0.020 or more" in text
