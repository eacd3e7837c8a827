"""The section of weights: counts, where the selected ones are, and their scores."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.report.pages import (
    full,
    opacities,
    text,
)
from wagle.report.html.page import Page
from wagle.report.html.rendering import render


def test_weights_are_counted_exactly(html):
    shown = text(html)
    assert "3,000 of 10,001 candidate weights (30.0 %): exactly ⌊0.3 " in shown
    assert "2,999 (100.0 % of the selected), of 10,001 in the model" in shown
    assert "outside the mask: 0" in shown
    assert "12.35 kB, 31.0 %" in shown
    assert "1,234" in shown  # records of the retain set


def test_a_weight_changed_outside_the_mask_is_called_out():
    page = full()
    patch = {**page.state["patch"], "outside_mask": 2}
    found = render(replace(page, state={**page.state, "patch": patch}))
    assert "outside the mask: 2" in found
    assert "do not ship this model" in found
    assert "bit-identical" not in found


def test_a_run_without_patch_says_what_was_checked_instead():
    page = full()
    found = render(replace(page, state={**page.state, "patch": {"patch": None, "seconds": 0.1}}))
    assert "the files were not compared" in found
    assert "outside the mask" not in found


def test_densest_block_and_share_of_every_kind_are_named(html):
    shown = text(html)
    assert "The lowest is block 0 with 20.0 %, the highest block 1 with 60.0 %." in shown
    assert "mlp.up_proj 200 40.0 %" in shown
    assert "embed outside the blocks 100 10.0 %" in shown


def with_cells(page: Page, cells: dict[str, tuple[int, int]]) -> Page:
    return replace(page, density={**page.density, "parameter": cells})


CELLS = {
    "model.embed_tokens.weight": (1, 1000),
    "model.layers.0.mlp.up_proj.weight": (200, 1000),
    "model.layers.0.norm.weight": (1, 1),
    "model.layers.1.mlp.up_proj.weight": (600, 1000),
    "model.layers.1.norm.weight": (0, 1),
}


def test_the_heat_map_has_a_cell_per_block_and_kind_shaded_by_its_share():
    drawn = render(with_cells(full(), CELLS))
    (chart,) = re.findall(r'<svg role="img"(?:(?!</svg>).)*var\(--heat\).*?</svg>', drawn, re.S)
    assert "per block and kind of module" in chart
    assert opacities(chart) == pytest.approx([0.05, 1.0, 1.0, 0.05])  # norms set no end: 20 to 60 %
    assert ">mlp.up_proj<" in chart
    assert ">norm<" in chart
    assert "embed" not in chart
    assert "20.0 % or less" in text(drawn)
    assert "60.0 % or more" in text(drawn)


@pytest.mark.parametrize(
    "cells", [{}, {"model.embed_tokens.weight": (1, 2)}, {"h.0.w": (1, 2)}, {"h.0.w": (0, 0)}]
)
def test_without_two_blocks_there_is_no_heat_map(cells):
    assert "Per block and kind of module" not in render(with_cells(full(), cells))


def test_the_noise_of_a_random_mask_is_no_pattern():
    cells = {f"h.{block}.w": (500 + block, 1000) for block in range(5)}
    drawn = render(with_cells(full(), cells))
    shades = opacities(drawn[drawn.index("Per block and kind of module") :])
    assert len(shades) == 5
    assert max(shades) - min(shades) < 0.05


def test_a_large_heat_map_is_a_small_page():
    cells = {
        f"model.layers.{block}.self_attn.kind_{kind}_proj.weight": (block + kind, 1000)
        for block in range(126)
        for kind in range(12)
    }
    assert len(render(with_cells(full(), cells)).encode()) < 700_000


HISTOGRAM = {"0": [[None, 10], [-4, 30]], "model.norm.weight": [[-4, 10], [-3, 50]]}


def with_scores(page: Page, **changes: Any) -> Page:
    mask = {**page.state["mask"], "score_histogram": HISTOGRAM, "thresholds": [0.1], **changes}
    return replace(page, state={**page.state, "mask": mask})


def test_scores_of_all_blocks_are_one_chart_with_the_least_selected_score():
    shown = text(render(with_scores(full())))
    assert "Scores of all candidate weights" in shown
    assert "10.0 % have a score of 0 or less; they are not drawn" in shown
    assert "The mask selects what lies right of the line." in shown
    assert "least selected score: 0.1" in shown


@pytest.mark.parametrize("thresholds", [None, [None], [0.0]])
def test_without_a_threshold_the_scores_have_no_line(thresholds):
    shown = text(render(with_scores(full(), thresholds=thresholds)))
    assert "Scores of all candidate weights" in shown
    assert "right of the line" not in shown


@pytest.mark.parametrize("histogram", [None, {}, {"0": []}, {"0": [[None, 3]]}])
def test_without_scores_there_is_no_chart_of_them(histogram):
    assert "Scores" not in text(render(with_scores(full(), score_histogram=histogram)))
