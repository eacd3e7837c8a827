"""Which figures lead."""

from __future__ import annotations

from wagle.evaluation.figures import OVERALL
from wagle.report.leading import headlines


def test_memorization_truth_ratio_and_composites_lead_in_this_order():
    known = [
        (OVERALL, "privleak"),
        (OVERALL, "model_utility"),
        ("retain", "extraction_strength"),
        ("forget", "probability"),
        ("forget", "truth_ratio"),
        ("forget", "extraction_strength"),
    ]
    assert headlines(known) == [
        ("forget", "extraction_strength"),
        ("forget", "truth_ratio"),
        (OVERALL, "model_utility"),
        (OVERALL, "privleak"),
    ]


def test_of_a_group_of_tasks_the_group_leads_and_its_tasks_do_not():
    known = [(f"mmlu_{i}", metric) for i in range(57) for metric in ("acc", "acc_norm")]
    assert headlines([*known, ("mmlu", "acc"), ("mmlu", "acc_norm")]) == [("mmlu", "acc")]


def test_without_known_figures_composites_lead_or_the_first_figure_of_every_set():
    known = [("unlearn", "accuracy"), ("unlearn", "nll"), ("retention", "accuracy")]
    assert headlines([*known, (OVERALL, "unlearn_success")]) == [(OVERALL, "unlearn_success")]
    assert headlines(known) == [("unlearn", "accuracy"), ("retention", "accuracy")]
    assert headlines([]) == []


def test_a_benchmark_with_many_sets_has_at_most_eight_leading_figures():
    assert len(headlines([(f"set {i}", "accuracy") for i in range(20)])) == 8


def test_of_own_records_the_sets_lead_in_the_order_of_the_recipe():
    known = [
        ("general", "probability"),
        ("retain", "probability"),
        ("retain", "extraction_strength"),
        ("forget", "paraphrased"),
        ("forget", "truth_ratio"),
        ("forget", "probability"),
    ]
    assert headlines(known, own_records=True) == [
        ("forget", "probability"),
        ("forget", "paraphrased"),
        ("retain", "probability"),
        ("general", "probability"),
    ]


def test_a_figure_leads_once_however_often_it_is_given():
    assert headlines([("forget", "know")] * 3) == [("forget", "know")]


def test_a_pattern_lets_the_figures_of_every_set_lead():
    known = [(f"set_{i}", metric) for i in range(10) for metric in ("nll", "toxic_rate")]
    assert headlines(known) == [(f"set_{i}", "toxic_rate") for i in range(10)]  # all of them


def test_composites_lead_before_the_groups_of_tasks():
    known = [("wmdp", "acc"), ("wmdp_bio", "acc"), (OVERALL, "average")]
    assert headlines(known) == [(OVERALL, "average"), ("wmdp", "acc")]
