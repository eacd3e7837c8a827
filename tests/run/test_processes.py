"""One run on several processes: rank 0 leads, the result is that of one, and a loss ends them all."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.conftest import OTHERS, RECORDS
from tests.processes import Ranks, on
from tests.run.test_execution import _rows
from wagle.cli import app as cli


@pytest.fixture
def recipe(tmp_path, model_folder):
    for name, rows in (("forget", RECORDS), ("retain", OTHERS[:5]), ("heldout", OTHERS[5:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(_rows(rows)))
    training = {"learning_rate": 5e-3, "batch_size": 4, "checkpoint_minutes": 0}
    told = {
        "name": "tiny",
        "model": str(model_folder),
        "reference": "retrained",
        "forget": str(tmp_path / "forget.json"),
        "retain": str(tmp_path / "retain.json"),
        "retain_heldout": str(tmp_path / "heldout.json"),
        "finetune": {**training, "epochs": 10},
        "attribution": {"ratio": 0.5},
        "unlearning": {**training, "epochs": 6, "check_every": 1, "when_unknown": "go"},
        "evaluation": {"max_new_tokens": 8},
        "attacks": [
            {"name": "relearning", "settings": {"steps": [0, 2]}},
            {"name": "quantization", "settings": {"group_size": 16}},
        ],
        "controls": ["random"],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def command(log, *arguments):
    """A command in this process, which is one of several; returns its exit code."""
    sys.stdout = sys.stderr = Path(f"{log}-{os.environ['RANK']}").open("w")  # noqa: SIM115
    cli.main([*map(str, arguments)])


def codes(ranks):
    return [what for how, what in ranks.ends() if how in ("exit", "died")]


def figures(folder):
    found = {}
    for path in sorted(Path(folder).glob("evaluation/*.json")):
        for name, figure in json.loads(path.read_text())["metrics"].items():
            found[path.stem, name] = figure["value"]
    return found


def stages(folder):
    return json.loads((Path(folder) / "state.json").read_text())["stages"]


def check_same_run(found, alone):
    assert list(stages(found)) == list(stages(alone))
    one, other = stages(found), stages(alone)
    assert one["after"]["verdict"] == other["after"]["verdict"]
    assert one["unlearn"]["steps"] == other["unlearn"]["steps"]
    assert figures(found) == pytest.approx(figures(alone), rel=1e-3, abs=1e-3)


def test_a_run_on_several_processes_is_that_of_one(recipe, tmp_path):
    [alone] = codes(Ranks(1, command, tmp_path / "log1", "run", recipe, "--out", tmp_path / "one"))
    for world in (2, 3):
        out = tmp_path / f"on{world}"
        ends = codes(Ranks(world, command, tmp_path / f"log{world}", "run", recipe, "--out", out))
        assert alone in (0, 1, 3)
        assert ends == [alone] * world
        check_same_run(out, tmp_path / "one")
        said = [(tmp_path / f"log{world}-{rank}").read_text() for rank in range(world)]
        assert "verdict" in said[0]
        assert said[1:] == [""] * (world - 1)  # the others keep silent


def test_bad_input_is_one_line_of_the_first_process(recipe, tmp_path):
    log = tmp_path / "log"
    assert codes(Ranks(2, command, log, "run", recipe, "unlearning.objective=nop")) == [2, 2]
    said = [Path(f"{log}-{rank}").read_text() for rank in (0, 1)]
    assert said[0].count("\n") == 1
    assert "did you mean 'npo'" in said[0]
    assert said[1] == ""


@pytest.fixture
def taught(recipe, tmp_path):
    """The weights that one undisturbed process teaches."""
    codes(Ranks(1, command, tmp_path / "alone", "finetune", recipe, "--out", tmp_path / "one"))
    return load_file(tmp_path / "one" / "base" / "model.safetensors")


def check_taught(out, taught):
    found = load_file(out / "base" / "model.safetensors")
    # AdamW at this rate moves weights by up to 0.1, and scales rounding errors up with them
    assert all(float((found[name] - taught[name]).abs().max()) < 1e-4 for name in taught)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_loss_of_a_process_ends_all_and_the_run_resumes_on_another_number(
    recipe, taught, tmp_path, victim
):
    out, log = tmp_path / "out", tmp_path / "log"
    ranks = Ranks(2, command, log, "finetune", recipe, "--out", out)
    _wait_for_step(out / "log.jsonl", "teach", 10)
    os.kill(ranks.processes[victim].pid, signal.SIGKILL)
    began = time.monotonic()
    ends = ranks.ends(30)
    assert time.monotonic() - began < 30
    assert ends[victim] == ("died", -signal.SIGKILL)
    assert ends[1 - victim] in [("exit", 2), ("died", 1)]
    if victim == 1:
        assert "another process has ended" in Path(f"{log}-0").read_text()
    assert not (out / "base").exists()
    again = Ranks(3, command, tmp_path / "again", "finetune", recipe, "--out", out)
    assert codes(again) == [0, 0, 0]
    check_taught(out, taught)


def test_a_signal_to_the_first_process_keeps_the_step_and_ends_all(recipe, taught, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    ranks = Ranks(2, command, log, "finetune", recipe, "--out", out)
    _wait_for_step(out / "log.jsonl", "teach", 10)
    for process in ranks.processes:  # as torchrun passes it on
        os.kill(process.pid, signal.SIGTERM)
    assert ranks.ends(30) == [("exit", 143), ("exit", 143)]
    assert "stopped; the same command resumes" in Path(f"{log}-0").read_text()
    assert Path(f"{log}-1").read_text() == ""
    steps = len((out / "log.jsonl").read_text().splitlines())
    [code] = codes(Ranks(1, command, tmp_path / "again", "finetune", recipe, "--out", out))
    assert code == 0
    check_taught(out, taught)
    assert steps < len((out / "log.jsonl").read_text().splitlines())


def _wait_for_step(log, stage, step):
    for _ in range(4000):
        lines = log.read_text().splitlines() if log.is_file() else []
        told = [json.loads(line) for line in lines if line.endswith("}")]
        if any(one["stage"] == stage and one.get("step", -1) >= step for one in told):
            return
        time.sleep(0.05)
    raise AssertionError(f"{stage} never came to step {step}")


def test_the_processes_agree_on_who_is_there():
    assert on(3, _who) == [(0, 3), (1, 3), (2, 3)]


def _who():
    from wagle.system.processes import group

    return group.rank(), group.world()
