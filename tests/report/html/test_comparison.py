"""The page of a comparison: what it shows, says and never does."""

from __future__ import annotations

import copy
import re

import pytest

from wagle.report.html.comparison import render_comparison, shown, write_comparison
from wagle.report.text.comparison import arms_table

EVIL = "<script>alert('x')</script>"


def unit(figure: float, stopped: str | None = None) -> dict:
    return {
        "figure": figure,
        "at_least": False,
        "step": 2.0,
        "stopped": stopped,
        "seconds": 1.0,
        "curve": [[1.0, 0.8], [0.97, 0.5], [0.6, 0.1]],
    }


def arm(name: str, ratio: float | None, mean: float, **changes) -> dict:
    return {
        "name": name if ratio is None else f"{name}@{ratio:g}",
        "arm": name,
        "ratio": ratio,
        "learning_rate": 1.5e-5,
        "edge": False,
        "selected": 12345,
        "mean": mean,
        "at_least": False,
        "over": False,
        "units": [unit(mean - 0.01), unit(mean + 0.01)],
        **changes,
    }


def difference(name: str, mean: float, **changes) -> dict:
    return {
        "arm": name,
        "ratio": 0.5,
        "mean": mean,
        "interval": [mean - 0.05, mean + 0.05],
        "p": 0.02,
        "holm": 0.04,
        "smallest": 0.08,
        "units": 2,
        "bound": "",
        "without_unit_0": {"mean": mean + 0.01, "interval": None, "p": None, "units": 1},
        **changes,
    }


def comparison(**changes) -> dict:
    return {
        "format": "wagle-compare/1",
        "name": f"trial {EVIL}",
        "seed": 3,
        "objective": "npo",
        "share": 0.95,
        "trials": 4,
        "steps": 24,
        "units": 2,
        "exploratory": True,
        "forget_set_varies": True,
        "before": [0.7, 0.9],
        "reference": [0.1, 0.3],
        "arms": [
            arm("wagle", 0.5, 0.35),
            arm("random", 0.5, 0.45),
            arm("dense", None, 0.25),
        ],
        "differences": [difference("wagle", -0.1), difference("dense", -0.2)],
        "sentence": "Exploratory, with 2 units: what is said here.",
        "environment": {"wagle": "0.1.0", "torch": "2"},
        **changes,
    }


def text(html: str) -> str:
    body = html[html.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render_comparison(comparison())


def test_the_page_gives_every_arm_with_its_figure_and_its_difference(html):
    page = text(html)
    assert "Exploratory, with 2 units: what is said here." in page
    assert "wagle 12,345 1.5e-05 0.350 -0.100 [-0.150, -0.050] 0.040 0.080 -0.090" in page
    assert "random 12,345 1.5e-05 0.450" in page
    assert "dense 12,345 1.5e-05 0.250 -0.200" in page
    assert "Before 0.800" in page
    assert "Reference 0.200" in page


def test_the_page_says_what_was_tuned_on_what_and_that_few_units_are_exploratory(html):
    page = text(html)
    assert "under five: exploratory" in page
    assert "Unit 0 is therefore also the unit that was tuned on" in page
    five = text(render_comparison(comparison(units=5, exploratory=False, sentence="Done.")))
    assert "xploratory" not in five


def test_every_arm_has_a_chart_with_the_control_behind_it(html):
    assert html.count("<svg role") == 3
    assert text(html).count("behind it random@0.5") == 2  # not behind the control itself
    one = html[html.index("<strong>dense") :]
    one = one[: one.index("</figure>")]
    assert one.count('stroke="var(--after)"') == 2  # a line per unit
    assert one.count('stroke="var(--retain)"') == 2
    assert "var(--reference)" in one


def test_the_page_needs_no_network_runs_nothing_and_escapes_its_texts(html):
    assert EVIL not in html
    assert "<script" not in html
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)(?:https?:|//)""", html)
    assert render_comparison(comparison()) == html


def test_a_page_without_reference_draws_and_says_none():
    html = render_comparison(comparison(reference=None))
    assert "Reference none" in text(html)
    assert 'stroke="var(--reference)"' not in html


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"at_least": True}, "≤ at least this much is forgotten"),
        (
            {"edge": True},
            "† the best learning rate is the lowest or highest one tried (wagle@0.5)",
        ),
        ({"over": True}, "Over-unlearned, under half of the reference's figure: wagle@0.5."),
        (
            {"units": [unit(0.3), unit(0.4, "the loss is nan")]},
            "Broke off, so read up to that point: wagle@0.5 (unit 1).",
        ),
    ],
)
def test_what_an_arm_went_through_is_said_in_the_page_and_in_the_table(changes, note):
    found = comparison()
    assert note not in arms_table(found)
    found["arms"][0] = arm("wagle", 0.5, 0.35, **changes)
    assert note in arms_table(found)
    assert note.replace("'", "&#39;") in render_comparison(found)


def test_a_figure_and_a_difference_of_runs_that_ended_early_are_marked():
    found = comparison()
    found["arms"][0]["at_least"] = True
    found["differences"][0]["bound"] = "at most"
    found["differences"][1]["bound"] = "at least"
    page = text(render_comparison(found))
    assert "≤ 0.350 ≤ -0.100" in page
    assert "≥ -0.200" in page


def test_units_that_forget_the_same_records_and_a_missing_dense_run_are_said():
    found = comparison(forget_set_varies=False)
    found["arms"] = [arm("wagle", 0.5, 0.3), arm("random", 0.5, 0.4), arm("complement", 0.5, 0.4)]
    table = arms_table(found)
    assert "Every unit forgets the same records" in table
    assert "There is no dense run to compare the masks with" in table
    assert "complement at a ratio selects all weights that wagle leaves out" in table


def test_one_unit_has_no_interval_and_no_p():
    found = comparison(units=1)
    for one in found["differences"]:
        one.update(interval=None, p=None, smallest=None, without_unit_0=None)
        del one["holm"]
    assert "wagle 12,345 1.5e-05 0.350 -0.100 random" in text(render_comparison(found))


def test_the_table_has_the_figures_of_every_ratio():
    found = comparison()
    for name in ("wagle", "random"):
        found["arms"].insert(0, arm(name, 0.05, 0.6))
    lines = arms_table(found).splitlines()
    assert [line for line in lines if line.startswith("ratio")] == ["ratio 0.05", "ratio 0.5"]
    assert [line.split()[0] for line in lines if line.startswith("  ")].count("dense") == 2
    assert found["sentence"] in lines


def test_a_curve_ends_where_it_first_falls_to_what_is_drawn():
    curve = [[1.0, 0.8], [0.9, 0.6], [0.7, 0.2], [0.95, 0.1]]
    assert shown(curve, 0.8) == [[1.0, 0.8], [0.9, 0.6], [0.8, pytest.approx(0.4)]]
    assert shown(curve[:2], 0.8) == curve[:2]


def test_writing_leaves_what_was_given_as_it_was(tmp_path):
    found = comparison()
    before = copy.deepcopy(found)
    write_comparison(found, tmp_path / "page.html")
    assert found == before
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
