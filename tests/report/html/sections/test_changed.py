"""The section of what changed: a row for every metric, its place at the reference, other sets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.report.pages import (
    bare,
    evaluation,
    figure,
    full,
    part,
    text,
)
from wagle.evaluation.figures import Figure
from wagle.metrics.table import METRICS
from wagle.report.html.rendering import render


def test_every_metric_has_a_row_for_the_forget_set_measured_or_not():
    for page in (full(), bare()):
        table = re.search(r'<table class="figures forget-table">.*?</table>', render(page), re.S)
        assert table
        for metric, kind in METRICS.items():
            assert re.search(rf'<th scope="row">{metric}\b.*{kind.unit}', table[0])


def test_what_classifiers_say_has_a_row_where_it_was_measured():
    page = full()
    rows = r'<th scope="row">(fluency|entailment)\b'
    assert re.findall(rows, render(page)) == []
    for found in page.evaluations.values():
        found.figures["forget"]["fluency"] = figure(0.9)
    html = render(page)
    assert re.findall(rows, html) == ["fluency"]
    assert "probability of clean language" in text(html)


def test_figures_have_three_decimals_intervals_and_their_place_at_the_reference(html):
    shown = text(html)
    row = "0.900 [0.850, 0.950] 0.200 [0.150, 0.250] 0.210 [0.160, 0.260] inside its interval"
    assert f"probability * probability per token {row}" in shown
    assert "0.750" in shown  # the retain set after over before, 0.6 / 0.8


@pytest.mark.parametrize(("value", "where"), [(0.261, "above"), (0.26, "inside"), (0.159, "below")])
def test_a_figure_is_above_inside_or_below_the_interval_of_the_reference(value, where):
    page = full()
    after = evaluation(value, 0.6)
    found = render(replace(page, evaluations={**page.evaluations, "after": after}))
    assert text(found).count(f"{where} its interval") == len(METRICS)


def test_a_figure_without_a_value_has_a_dash_and_no_place_at_the_reference():
    page = full()
    nothing = Figure(None, None, "none", note="no answer has a letter")
    for found in page.evaluations.values():
        for name in ("forget", "retain"):
            found.figures[name]["rouge_l"] = nothing
    html = render(page)
    table = re.search(r'<table class="figures forget-table">.*?</table>', html, re.S)
    row = re.search(r'<th scope="row">rouge_l\b.*?</tr>', table[0], re.S)
    assert row[0].count('title="not defined"') == 3
    assert "its interval" not in row[0]


def test_only_the_probes_that_were_declared_count_in_the_verdict():
    page = full()
    after = page.evaluations["after"]
    declared = replace(after, details={**after.details, "probes": [["forget", "rouge_l"]]})
    shown = text(render(replace(page, evaluations={**page.evaluations, "after": declared})))
    assert "rouge_l * recall" in shown
    assert "probability * probability per token" not in shown


def test_a_kept_set_tells_of_empty_answers_only_where_there_are_more_than_before():
    page = full()
    kept = page.evaluations["after"].figures["retain"]
    for value, rows in ((0.8, 1), (0.81, 2)):  # it was 0.8 before
        kept["empty"] = figure(value)
        html = render(page)
        assert len(re.findall(r'<th scope="row">empty\b', html)) == rows
        assert len(re.findall(r'<th scope="row">at_limit\b', html)) == 1


def test_a_small_figure_is_not_called_zero():
    page = full()
    after = evaluation(0.0004, 0.6)
    assert "&lt; 0.001" in render(replace(page, evaluations={**page.evaluations, "after": after}))


def test_a_metric_of_other_records_than_the_set_says_so():
    page = full()
    after = replace(page.evaluations["after"])
    after.figures["forget"]["paraphrased"] = figure(0.2, count=3)
    found = text(render(replace(page, evaluations={**page.evaluations, "after": after})))
    assert "paraphrased * probability per token, n = 3 or 4" in found


def test_what_is_made_beside_the_reference_is_no_set_of_records(more):
    shown = text("<body>" + part(more, "changed"))
    assert "Against the reference figure before after reference better forget_quality" in shown
    assert "overall 80 records" not in shown
