"""The section of training."""

from __future__ import annotations

from dataclasses import replace

from tests.report.pages import full, part, text
from wagle.report.html.charts import POINTS
from wagle.report.html.rendering import render


def test_a_long_run_says_how_many_of_its_steps_are_drawn():
    history = [{"step": i, "forget_nll": 1.0, "retain_nll": 0.1} for i in range(1, POINTS + 2)]
    found = part(render(replace(full(), history=history)), "training")
    assert f"{POINTS + 1} steps. The forget loss should rise" in text("<body>" + found)
    assert f"About {POINTS} steps are drawn." in found


def test_a_model_that_was_not_taught_here_is_said_to_be_so(html):
    said = "The model was not taught in this run."
    assert said not in html
    assert said in part(render(replace(full(), teaching=[])), "training")
