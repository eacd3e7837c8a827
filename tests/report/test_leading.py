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
