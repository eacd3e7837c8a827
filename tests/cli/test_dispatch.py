"""What every command hands on and prints: nothing runs here."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from wagle.cli import app as cli
from wagle.cli import starting
from wagle.run.importing.finding import Asked
from wagle.system.errors import WagleError


@pytest.fixture
def call(monkeypatch, capsys):
    """A command in this process, with a run that does nothing: what it asked for, what it printed."""
    asked = []
    run = SimpleNamespace(
        folder=Path("runs/x"),
        models=SimpleNamespace(base=Path("runs/x/base")),
        state={"stages": {"mask": {}}},
    )

    def execute(source, overrides, out, until, redo=False, again=None, **more):
        assert more in ({}, {"asked": Asked()})
        asked.append((source, list(overrides or []), out, until, again or redo))
        return run

    def table(made, as_json, everything, no_fail):
        sys.stdout.write(f"{'json' if as_json else 'table'} {'all' if everything else ''}\n")
        assert (made, no_fail) == (run, False)

    monkeypatch.setattr(cli, "_execute", execute)
    monkeypatch.setattr(cli, "_table", table)

    def one(*arguments):
        asked.clear()
        cli.app(args=list(arguments), standalone_mode=False)
        return (asked[0] if asked else None), capsys.readouterr().out.split()

    one.run = run  # type: ignore[attr-defined]
    return one


@pytest.mark.parametrize(
    ("arguments", "asked", "printed"),
    [
        (["run", "r.yaml"], ("r.yaml", [], None, "report", False), ["table"]),
        (
            ["run", "r.yaml", "seed=1", "name=x", "--out", "o", "--all"],
            ("r.yaml", ["seed=1", "name=x"], "o", "report", False),
            ["table", "all"],
        ),
        (["run", "r.yaml", "--json"], ("r.yaml", [], None, "report", False), ["json"]),
        (
            ["run", "r.yaml", "--again", "after"],
            ("r.yaml", [], None, "report", "after"),
            ["table"],
        ),
        (["demo", "seed=1"], ("bundled:demo", ["seed=1"], None, "report", False), ["table"]),
        (["finetune", "r.yaml"], ("r.yaml", [], None, "teach", False), ["runs/x/base"]),
        (["attribute", "r.yaml"], ("r.yaml", [], None, "mask", False), ["runs/x/mask.safetensors"]),
        (["unlearn", "r.yaml"], ("r.yaml", [], None, "unlearn", False), ["runs/x/model"]),
        (["evaluate", "r.yaml", "--all"], ("r.yaml", [], None, "after", False), ["table", "all"]),
        (["report", "runs/x"], ("runs/x", [], None, "report", True), ["runs/x/report.html"]),
    ],
)
def test_a_command_runs_a_recipe_up_to_its_stage_and_says_where_to_look(
    call, arguments, asked, printed
):
    assert call(*arguments) == (asked, printed)


def test_attribute_says_why_there_is_no_mask(call):
    call.run.state["stages"]["mask"]["skipped"] = "all weights train"
    _, printed = call("attribute", "r.yaml")
    assert " ".join(printed) == "no mask: all weights train"


@pytest.mark.parametrize("option", ["--before", "--reference", "--patch", "--cache"])
def test_what_is_of_one_model_goes_with_a_benchmark(call, option):
    with pytest.raises(WagleError, match=f"^{option} needs --benchmark; without it, set this in"):
        call("evaluate", "r.yaml", option, "x")


def test_a_benchmark_asks_one_model_and_writes_what_it_found(call, monkeypatch, tmp_path):
    from wagle.evaluation.figures import Figure
    from wagle.evaluation.result import Evaluation
    from wagle.report.verdict_json import evaluation_json
    from wagle.run import single

    details = {"benchmark": "qa", "model": {"path": "folder", "fingerprint": "ab" * 32}}
    found = Evaluation({"forget": {"know": Figure(0.5, None, "none")}}, details=details)
    given = []

    def measure(source, words, **more):
        given.append((source, list(words), more))
        return found

    monkeypatch.setattr(single, "measure_model", measure)
    out = tmp_path / "found.json"
    asked, printed = call(
        *("evaluate", "folder", "forget=f.jsonl", "--benchmark", "qa", "--patch", "a"),
        *("--patch", "b", "--before", "run", "--out", str(out)),
    )
    assert asked is None  # no recipe was run
    assert given == [
        (
            "folder",
            ["forget=f.jsonl"],
            {
                "benchmark": "qa",
                "before": "run",
                "reference": None,
                "patch": ["a", "b"],
                "tokenizer": None,
                "cache": None,
                "precision": "float32",
            },
        )
    ]
    told = json.loads(out.read_text())
    assert told == json.loads(json.dumps(evaluation_json(found)))
    assert found.to_json().items() <= told.items()
    assert "forget.know" in printed
    _, printed = call("evaluate", "folder", "--benchmark", "qa", "--json")
    assert json.loads(" ".join(printed)) == told


def test_compare_hands_its_lists_on_in_parts(call, monkeypatch):
    from wagle.comparison import compare
    from wagle.report.text import comparison
    from wagle.run import finding

    given = []

    def arms(recipe, arms, out, **more):
        given.append((recipe, arms, out, more))
        return {"found": 1}

    monkeypatch.setattr(finding, "find_run", lambda *asked: (asked, None))
    monkeypatch.setattr(compare, "compare_arms", arms)
    monkeypatch.setattr(comparison, "arms_table", lambda found: f"a table of {found}")
    _, printed = call("compare", "r.yaml", "seed=1", "--ratios", "0.05,0.5", "--out", "o")
    assert " ".join(printed) == "a table of {'found': 1}"
    ((recipe, arms, out, more),) = given
    assert recipe == ("r.yaml", ["seed=1"], None)
    assert (arms, out) == (["wagle", "random", "dense"], "o")
    assert more == {
        "ratios": ["0.05", "0.5"],
        "units": 5,
        "trials": 4,
        "steps": None,
        "keep_models": False,
    }
    given.clear()
    call("compare", "r.yaml", "--arms", "random,lora", "--units", "2", "--keep-models")
    assert given[0][1] == ["random", "lora"]
    assert (given[0][3]["ratios"], given[0][3]["keep_models"]) == (None, True)
    _, printed = call("compare", "r.yaml", "--json")
    assert json.loads(" ".join(printed)) == {"found": 1}


@pytest.mark.parametrize(
    ("command", "name"), [("run", "RECIPE"), ("evaluate", "RECIPE|MODEL"), ("ledger", "RUN")]
)
def test_a_command_without_its_argument_says_which_one_is_missing(call, command, name):
    with pytest.raises(Exception, match="Missing") as told:
        call(command)
    assert told.value.format_message() == f"Missing argument '{name}'."


# ----- the process -----


@pytest.fixture
def outer(monkeypatch):
    """``main`` without the set-up of a process, around what ``raises``."""

    def one(error):
        def fail(**_):
            raise error

        monkeypatch.setattr(cli, "set_up", lambda: None)
        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(BaseException) as told:  # noqa: PT011
            cli.main([])
        return told.value

    return one


def test_what_a_user_can_mend_is_a_line_and_2_and_a_stop_130_and_a_bug_keeps_its_traceback(
    outer, capsys
):
    assert outer(WagleError("mend this")).code == 2
    assert capsys.readouterr().err == "wagle: mend this\n"
    assert outer(KeyboardInterrupt()).code == 130
    assert capsys.readouterr().err == "wagle: stopped; the same command resumes from here\n"
    bug = ValueError("ours")
    assert outer(bug) is bug
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (logging.INFO, "3 of 4"),
        (logging.WARNING, "warning: 3 of 4"),
        (logging.ERROR, "error: 3 of 4"),
    ],
)
def test_a_line_of_the_log_says_what_it_is_where_that_matters(level, shown):
    record = logging.LogRecord("wagle", level, "", 0, "%d of %d", (3, 4), None)
    assert starting._Lines().format(record) == shown
