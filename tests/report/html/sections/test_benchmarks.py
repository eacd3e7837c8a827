"""The section of benchmarks: what leads, and what stands beside each figure."""

from __future__ import annotations

from typing import Any

from tests.report.pages import (
    part,
    text,
)
from wagle.evaluation.figures import HIGHER, LOWER, OVERALL, Figure
from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import load_recipe
from wagle.report.html.sections.benchmarks import benchmark_parts

RECIPE = {
    "name": "trial",
    "model": "demo",
    "forget": "demo:forget",
    "evaluation": {
        "benchmarks": [
            {"name": "tofu", "label": "ten", "settings": {"data": "/srv/tofu", "rows": 3}},
            "mmlu",
        ]
    },
}


def figure(value: float | None, **more: Any) -> Figure:
    interval = None if value is None else (value - 0.1, value + 0.1)
    return Figure(value, interval, "bootstrap", {"forget[0]": 1.0, "forget[1]": 1.0}, **more)


def evaluation(note: str | None = None, **forget: float) -> Evaluation:
    known = {metric: figure(value, target="reference") for metric, value in forget.items()}
    lost = Figure(None, None, "none", target=0, note=note)
    return Evaluation({"forget": known, OVERALL: {"privleak": lost}})


def sections(**found: Evaluation) -> list[dict[str, Any]]:
    return benchmark_parts({"ten": found}, load_recipe(RECIPE), lambda text: text)


def test_leading_figures_stand_apart_from_the_rest():
    (found,) = sections(after=evaluation(know=0.5, probability=0.2, nll=1.0))
    assert found["roles"] == ["after"]
    (first,) = found["first"]["groups"].values()
    assert [(row["set"], row["metric"]) for row in first] == [
        ("forget", "know"),
        (OVERALL, "privleak"),
    ]
    assert [row["metric"] for row in found["rest"]["groups"]["forget"]] == ["probability", "nll"]
    assert found["count"] == 2


def test_a_row_has_what_each_model_has_of_it_with_records_and_direction():
    before = evaluation(know=0.9)
    (found,) = sections(before=before, after=evaluation(know=0.5), reference=Evaluation({}))
    know, privleak = found["first"]["groups"][""]
    assert {role: f.value for role, f in know["figures"].items()} == {"before": 0.9, "after": 0.5}
    assert (know["n"], know["better"]) == ("2", "as the reference")
    assert (privleak["n"], privleak["better"]) == ("", "0")


def test_directions_are_words():
    both = {"a": figure(1.0, direction=HIGHER), "b": figure(1.0, direction=LOWER), "c": figure(1.0)}
    (found,) = sections(after=Evaluation({OVERALL: both}))
    rows = found["first"]["groups"][""]
    assert [row["better"] for row in rows] == ["higher", "lower", ""]


def test_a_note_stands_once_and_names_whose_it_is():
    (found,) = sections(before=evaluation("no holdout"), after=evaluation("no holdout"))
    assert found["first"]["notes"] == {"no holdout": "overall.privleak"}
    (found,) = sections(before=evaluation(), after=evaluation("no holdout"))
    assert found["first"]["notes"] == {"no holdout": "overall.privleak (after)"}


def test_a_note_of_many_figures_names_three():
    many = {f"m{i}": figure(1.0, note="few records") for i in range(7)}
    (found,) = sections(after=Evaluation({"forget": {"know": figure(1.0), **many}}))
    assert found["rest"]["notes"] == {"few records": "forget.m0, forget.m1, forget.m2 and 4 more"}


def test_a_benchmark_says_how_it_was_asked_and_is_absent_where_nothing_was_found():
    (found,) = sections(after=evaluation(know=0.5))
    assert found["label"] == "ten"
    assert found["settings"] == "tofu (data /srv/tofu, rows 3)"
    assert sections() == []
    assert sections(after=Evaluation({})) == []


def test_a_benchmark_leads_with_its_headlines_and_folds_the_rest(more):
    found = part(more, "benchmarks")
    lead, rest = found.split("<details>")
    shown = text("<body>" + lead)
    assert "know forget; share, n = 4 0.400 [0.350, 0.450] 0.400 [0.350, 0.450]" in shown
    assert "forget_quality overall; p, n = 80 3.2e-09 3.2e-09 higher" in shown
    assert "privleak overall; per cent \N{EN DASH} \N{EN DASH} 0" in shown
    assert "overall.privleak: no holdout" in shown
    assert "<summary>1 more figure</summary>" in rest
