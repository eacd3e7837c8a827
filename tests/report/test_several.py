"""Several runs side by side: figures, what differs, and what cannot be compared."""

import csv
import io
import json

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.report.several import read_several
from wagle.report.text.several import (
    several_csv,
    several_json,
    several_latex,
    several_markdown,
    several_table,
)
from wagle.system.errors import WagleError

BASE = {
    "model": "/models/base",
    "forget": "demo:forget",
    "retain": "demo:retain",
    "attribution": {"ratio": 0.5},
    "evaluation": {"benchmarks": [{"name": "mmlu"}]},
}


def evaluation(forget, n=2):
    values = {f"forget[{i}]": forget for i in range(n)}
    figure = Figure(forget, (forget / 2, forget * 1.5), "bootstrap", values)
    return Evaluation({"forget": {"probability": figure, "nll": figure}}).to_json()


@pytest.fixture
def run(tmp_path):
    """Makes a finished run."""

    def make(where, known=0.25, n=2, verdict="leaks", **more):
        home = tmp_path / where
        (home / "evaluation").mkdir(parents=True)
        recipe = load_recipe({**BASE, "name": home.name, **more})
        (home / "recipe.yaml").write_text(dump_recipe(recipe))
        for role, value in (("before", 0.9), ("after", known)):
            (home / f"evaluation/{role}.json").write_text(json.dumps(evaluation(value, n)))
        other = Evaluation({"mmlu": {"acc": Figure(0.5, None, "none", count=7)}}).to_json()
        (home / "evaluation/after-mmlu.json").write_text(json.dumps(other))
        stages = {
            "unlearn": {"selected": 1234, "seconds": 60.0},
            "patch": {"bytes": 5000},
            "after": {"verdict": verdict, "seconds": 1.0},
        }
        (home / "state.json").write_text(json.dumps({"stages": stages}))
        return home

    return make


def test_figures_stand_beside_those_of_before_and_with_what_differs(run):
    found = read_several([run("a/npo"), run("a/sim", 0.125, unlearning={"objective": "simnpo"})])
    assert [row.name for row in found.rows] == ["npo", "sim"]
    assert list(found.figures) == ["forget.probability", "mmlu/mmlu.acc"]
    assert list(found.differs) == ["unlearning.objective"]
    assert list(found.notes) == []
    lines = [line.split("  ") for line in several_table(found).splitlines()]
    cells = {
        line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines if line[0]
    }
    assert cells["forget.probability"] == [
        "0.900 → 0.250 [0.125, 0.375]",
        "0.900 → 0.125 [0.062, 0.188]",
    ]
    assert cells["mmlu/mmlu.acc"] == ["0.500", "0.500"]
    assert cells["unlearning.objective"] == ["npo", "simnpo"]
    assert cells["weights"] == ["1,234", "1,234"]
    assert cells["time"] == ["1 min 01 s", "1 min 01 s"]


def test_csv_and_json_hold_the_numbers_in_full(run):
    found = read_several([run("npo", 1 / 3), run("sim", 0.125)])
    rows = list(csv.DictReader(io.StringIO(several_csv(found))))
    assert float(rows[0]["forget.probability"]) == 1 / 3
    assert (rows[1]["forget.probability low"], rows[1]["forget.probability n"]) == ("0.0625", "2")
    assert rows[0]["mmlu/mmlu.acc low"] == ""
    told = json.loads(several_json(found))
    assert told["runs"][0]["figures"]["forget.probability"]["value"] == 1 / 3
    assert told["runs"][0]["figures"]["forget.probability"]["before"] == 0.9
    assert told["runs"][0]["verdict"] == "leaks"


def test_latex_and_markdown_escape_what_they_must(run):
    found = read_several([run("a_b"), run("c")])
    text = several_latex(found)
    assert r"a\_b & leaks & 0.900 → 0.250" in text
    assert r"\begin{tabular}{lllllll}" in text
    lines = several_markdown(found).splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_what_cannot_be_compared_is_said(run):
    others = read_several([run("a"), run("b", forget="demo:forget@2")])
    assert list(others.notes) == [
        "Not comparable on forget: the runs do not ask about the same records."
    ]
    ways = read_several([run("c"), run("d", n=3, evaluation={"precision": "bfloat16"})])
    assert list(ways.notes) == [
        "Asked in different ways: evaluation.precision is not the same in all runs.",
        "Over different numbers of records: forget.probability.",
    ]


def test_runs_of_one_name_are_told_apart_by_their_folders(run):
    found = read_several([run("a/demo"), run("b/demo")], everything=True)
    assert [row.name for row in found.rows] == ["a/demo", "b/demo"]
    assert "forget.nll" in found.figures


def test_no_run_an_unfinished_one_and_one_given_twice_are_refused(run, tmp_path):
    with pytest.raises(WagleError, match=r"is no run; give run folders, such as runs/demo"):
        read_several([tmp_path])
    home = run("a")
    with pytest.raises(WagleError, match="is given twice; give each run once"):
        read_several([home, home])
    (home / "state.json").write_text(json.dumps({"stages": {}}))
    with pytest.raises(WagleError, match="has not evaluated its model after unlearning"):
        read_several([home])
