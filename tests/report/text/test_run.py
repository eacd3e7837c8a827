"""The table and the JSON of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.report.attack_files import relearning
from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.report.text.run import summary_json, summary_table


def line(table: str, start: str) -> list[str]:
    (found,) = [line.split() for line in table.splitlines() if line.startswith(start + " ")]
    return found[1:]


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
