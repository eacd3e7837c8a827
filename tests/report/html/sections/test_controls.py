"""The section of control arms."""

from __future__ import annotations

from dataclasses import replace

from tests.report.attack_files import relearning
from tests.report.pages import evaluation, full, part, text
from wagle.report.html.page import Arm
from wagle.report.html.rendering import render


def test_arms_stand_next_to_the_run_with_figures_and_curves_of_relearning():
    arm = Arm(evaluation(0.3, 0.5), {"relearning": relearning()}, 12, 3, "leaks")
    page = replace(full(), attacks={"relearning": relearning()}, controls={"random": arm})
    found = part(render(page), "controls")
    shown = text("<body>" + found)
    assert "this mask 3,000 3" in shown
    assert "random 12 3 leaks" in shown
    row = "0.200 [0.150, 0.250] 0.300 [0.250, 0.350] 0.210 [0.160, 0.260]"
    assert f"forget.probability {row}" in shown
    assert "forget.probability, step 10 0.500 [0.400, 0.600] 0.500 [0.400, 0.600]" in shown
    assert found.count('<svg role="img"') == 1


def test_without_arms_there_is_no_section():
    assert 'id="controls"' not in render(full())
