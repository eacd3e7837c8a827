"""Tables and JSON of masks, their scores and comparisons."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from wagle.mask.mask import Mask
from wagle.report.text.mask import (
    comparison_json,
    comparison_table,
    mask_json,
    mask_table,
    scores_table,
)

NAMES = ["embed.weight", *(f"h.{i}.mlp.up_proj.weight" for i in range(11))]


HISTOGRAM = {
    "embed.weight": [[None, 7], [-3, 3]],
    "0": [[-9, 1], [-8, 8], [-7, 4]],
    "10": [[-8, 1], [-2, 8]],
    "9": [],
}


def ladder(**changes: Any) -> Mask:
    """Ten weights a parameter: block i selects i of them at 0.5, and half of these at 0.25."""
    levels = {"embed.weight": torch.zeros(10, dtype=torch.uint8)}
    for i, name in enumerate(NAMES[1:]):
        levels[name] = torch.tensor([2] * (i // 2) + [1] * (i - i // 2) + [0] * (10 - i)).byte()
    counts = [sum(int((level >= need).sum()) for level in levels.values()) for need in (2, 1)]
    metadata = {
        "score": "wagle",
        "settings": {"gamma": 5.876054e-05},
        "candidates": 120,
        "thresholds": None,
        "model": "a1" * 32,
        "score_histogram": HISTOGRAM,
        **changes,
    }
    return Mask.from_levels(levels, ratios=[0.25, 0.5], counts=counts, metadata=metadata)


def line(table: str, start: str) -> list[str]:
    (found,) = [line.split() for line in table.splitlines() if line.startswith(start + " ")]
    return found[1:]


def test_a_ladder_has_a_column_per_ratio():
    table = mask_table(ladder())
    assert line(table, "density per block") == ["per", "block", "0.25", "0.5"]
    assert line(table, "7") == ["0.300", "0.700"]
    assert line(table, "10") == ["0.500", "1.000"]
    assert line(table, "mlp.up_proj.weight") == ["0.227", "0.500"]  # 25 and 55 of 110
    assert line(table, "score") == ["wagle", "(gamma", "5.87605e-05)"]
    assert "theta_share" not in table


def test_only_a_count_that_is_the_floor_is_called_so():
    table = mask_table(ladder())  # 25 of 120 is not a quarter, 55 is not a half
    assert "exactly" not in table
    mask = Mask.from_levels(
        {"w": torch.tensor([1, 0, 0], dtype=torch.uint8)},
        ratios=[0.5],
        counts=[1],
        metadata={**ladder().metadata, "candidates": 3},
    )
    assert "1 weights, exactly floor(ratio * N)" in mask_table(mask)


def test_the_share_of_the_weight_term_stands_beside_its_ratio():
    table = mask_table(ladder(theta_share=[0.25, None]))
    assert "25 weights; theta_share 0.250" in table
    assert table.count("theta_share") == 2  # once with its figure, once explained
    assert "share of selected weights where the weight term dominates" in table


def test_json_has_the_densities_of_every_ratio():
    found = json.loads(json.dumps(mask_json(ladder())))
    assert list(found["density"]) == ["0.25", "0.5"]
    assert found["density"]["0.5"]["block"]["7"] == [7, 10]
    assert found["score_histogram"] == json.loads(json.dumps(HISTOGRAM))


def test_scores_are_shown_in_the_order_of_the_model_with_median_and_bar():
    table = scores_table(ladder())
    rows = [row.split()[0] for row in table.splitlines()[1:]]
    assert rows == ["embed.weight", "0", "10"]  # block 9 has none
    assert line(table, "embed.weight")[:2] == ["<=", "0"]  # its median
    assert "70.0%" in line(table, "embed.weight")
    assert line(table, "0") == ["2^-8", "0.0%", "▁█▄"]
    assert line(table, "10") == ["2^-2", "0.0%", "▁", "█"]
    assert "2^-9 to 2^-1" in table.splitlines()[0]


def test_rare_scores_do_not_widen_the_bars_of_a_table():
    bins = [[e, 10_000] for e in range(-130, -20)] + [[100, 1]]
    table = scores_table(ladder(score_histogram={"0": bins}))
    assert "2^-130 to 2^-20, 3 powers a column" in table
    assert all(len(row) <= 100 for row in table.splitlines())


@pytest.mark.parametrize("histogram", [None, {}, {"0": []}, {"0": [[None, 4]]}])
def test_a_mask_without_scores_says_so(histogram):
    assert "stores no histogram" in scores_table(ladder(score_histogram=histogram))


def test_a_comparison_stands_overall_first_and_then_by_block():
    mask = ladder()
    found = mask.at(0.25).compare(mask.at(0.5))
    table = comparison_table(found)
    assert "A selects 25, B 55, both 25" in table
    # by chance block i shares i // 2 * i / 10: 18 in all, and 18 / (25 + 55 - 18) is 0.290
    assert line(table, "all") == ["120", "0.208", "0.458", "1.000", "0.455", "0.290"]
    assert line(table, "10") == ["10", "0.500", "1.000", "1.000", "0.500", "0.500"]
    assert line(table, "0")[-3:] == ["-", "-", "-"]
    rows = table.splitlines()
    assert [row.split()[0] for row in rows[-12:]] == ["embed.weight", *map(str, range(11))]
    assert "two different models" not in table
    assert all(len(row) <= 100 for row in rows)


def test_a_comparison_of_two_models_has_a_note_and_is_json():
    found = ladder().at(0.5).compare(ladder(model="b2" * 32).at(0.5))
    assert "made for two different models" in comparison_table(found)
    plain = json.loads(json.dumps(comparison_json(found)))
    assert plain["overall"]["jaccard"] == 1.0
    assert plain["places"]["0"]["jaccard"] is None
    assert plain["same_model"] is False
