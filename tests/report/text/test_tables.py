"""The tables of the command line: of a run, and of masks, scores and comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.report.html.test_attacks import relearning
from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.mask.mask import Mask
from wagle.report.text.mask import (
    comparison_json,
    comparison_table,
    mask_json,
    mask_table,
    scores_table,
)
from wagle.report.text.run import summary_json, summary_table

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
    assert "share of selected weights in which the weight term dominates" in table


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
    assert "keeps no histogram" in scores_table(ladder(score_histogram=histogram))


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


# ---------------------------------------------------------------------------------------------
# A run


def evaluation(benchmark: str = "qa", **figures: Any) -> dict[str, Any]:
    """A result file with one set: values, or values with the ends of an interval."""
    made: dict[str, dict[str, Figure]] = {}
    for key, given in figures.items():
        name, _, metric = key.partition("__")
        value, *ends = given if isinstance(given, tuple) else (given,)
        made.setdefault(name, {})[metric] = Figure(value, (ends[0], ends[1]) if ends else None, "")
    return Evaluation(made, details={"benchmark": benchmark}).to_json()


CHANGES = {"forget.probability": {"mean": -0.65, "interval": [-0.7, -0.6], "p": 0.01, "n": 3}}


def run_folder(folder: Path, **benchmarks: dict[str, dict[str, Any]]) -> Path:
    """The files of a run that its table is made of."""
    state = {
        "mask": {"candidates": 10},
        "unlearn": {"selected": 5, "changed": 4},
        "patch": {},
        "after": {"verdict": "inconclusive", "reasons": ["There is no reference."]},
        "attacks": {"attacks": {"mine": "relearning"}},
    }
    stages = {name: {"seconds": 1.0, "peak_bytes": 1e9, **found} for name, found in state.items()}
    (folder / "attacks").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    after = evaluation(forget__probability=(0.25, 0.2, 0.3), forget__nll=1.0)
    before = evaluation(forget__probability=(0.9, 0.85, 0.95), overall__forget_quality=2e-9)
    files = {"before": before, "after": {**after, "changes": CHANGES}}
    for label, by_role in benchmarks.items():
        files |= {f"{role}-{label}": found for role, found in by_role.items()}
    for name, found in files.items():
        (folder / "evaluation" / f"{name}.json").write_text(json.dumps(found))
    summary = {"before": {}, "after": {}, "benchmarks": {label: {} for label in benchmarks}}
    (folder / "state.json").write_text(json.dumps({"stages": stages}))
    (folder / "evaluation.json").write_text(json.dumps(summary))
    (folder / "attacks" / "mine.json").write_text(json.dumps(relearning()))
    return folder


def test_a_run_prints_its_figures_and_a_small_p_is_not_zero(tmp_path):
    rows = summary_table(run_folder(tmp_path)).splitlines()
    assert rows[0].split() == ["value", "[95", "%", "interval]", "before", "after"]
    assert rows[1].split() == [
        "forget.probability",
        *("0.900", "[0.850,", "0.950]"),
        *("0.250", "[0.200,", "0.300]"),
    ]
    assert rows[2].split() == ["overall.forget_quality", "2.0e-09", "-"]
    assert rows[4].split() == ["paired", "difference", "after", "-", "before"]
    assert rows[5].split() == ["forget.probability", "-0.650", "[-0.700,", "-0.600]"]
    assert rows[6] == "(1 more figure: --all)"
    assert not any(row.startswith("benchmark") for row in rows)


def test_all_figures_of_a_run_are_printed_where_they_are_asked_for(tmp_path):
    table = summary_table(run_folder(tmp_path), everything=True)
    assert line(table, "forget.nll") == ["-", "1.000"]
    assert "--all" not in table


def test_a_run_prints_a_table_per_benchmark_and_a_line_per_attack(tmp_path):
    tofu = {
        "before": evaluation("tofu", forget__know=0.9, overall__forget_quality=3e-8),
        "after": evaluation("tofu", forget__know=0.2, forget__nll=3.0),
        "reference": evaluation("tofu", forget__know=0.21),
    }
    table = summary_table(run_folder(tmp_path, mine=tofu))
    rows = table[table.index("benchmark mine") :].splitlines()
    assert rows[1].split()[-3:] == ["before", "after", "reference"]
    assert rows[2].split() == ["forget.know", "0.900", "0.200", "0.210"]
    assert rows[3].split() == ["overall.forget_quality", "3.0e-08", "-", "-"]
    (attack,) = [row for row in table.splitlines() if row.startswith("attack")]
    assert (
        attack
        == "attack       mine: largest gap to the reference +0.200 (forget.probability, step 10)"
    )


def test_json_of_a_run_carries_its_differences_and_attacks(tmp_path):
    found = summary_json(run_folder(tmp_path))
    assert found["differences"] == {"qa": {"changes": CHANGES}}
    assert found["attacks"] == {"mine": relearning()}
    (tmp_path / "state.json").write_text(json.dumps({"stages": {}}))
    assert "attacks" not in summary_json(tmp_path)
