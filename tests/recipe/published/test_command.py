"""Which command of another project some arguments are."""

from __future__ import annotations

import json

import pytest
from bench.published import WAGLE

from wagle.recipe.published.command import find_command
from wagle.recipe.published.imported import Places
from wagle.recipe.published.open_unlearning.experiments import EXPERIMENTS
from wagle.system.errors import WagleError


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "NPO+WAGLE.json").write_text(json.dumps(WAGLE["Tofu/NPO+WAGLE"]))
    (tmp_path / "more.json").write_text('{"unlearn": {"lr": 1e-3}}')
    (tmp_path / "mine.json").write_text(json.dumps(EXPERIMENTS["unlearn/tofu/default"]))
    (tmp_path / "recipe.yaml").write_text("name: x\nmodel: demo\nforget: demo:forget\n")
    return "NPO+WAGLE.json"


@pytest.mark.parametrize(
    "line",
    [
        "NPO+WAGLE.json --unlearn.lr 2e-5 --unlearn.max_steps -1",
        "NPO+WAGLE.json --unlearn.lr=2e-5 --unlearn.max_steps=-1",
        "--config_file NPO+WAGLE.json --unlearn.lr 2e-5 --unlearn.max_steps -1",
        "-C NPO+WAGLE.json --config-file=more.json --unlearn.lr 2e-5 --unlearn.max_steps -1",
        "python src/exec/unlearn_model.py --config_file NPO+WAGLE.json --unlearn.lr 2e-5 "
        "--unlearn.max_steps -1",
        "CUDA_VISIBLE_DEVICES=0 python src/exec/unlearn_model.py --config_file=NPO+WAGLE.json "
        "--unlearn.lr 2e-5 --unlearn.max_steps -1",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_every_way_to_write_a_wagle_command_is_the_same_command(file, line, whole):
    command = find_command([line] if whole else line.split())
    assert command.project == "wagle"
    assert command.files[0][0] == file
    assert command.words == [("unlearn.lr", "2e-5"), ("unlearn.max_steps", "-1")]
    made = command.read(corrected=True, places=Places(), processes=1)
    assert made.recipe["unlearning"]["learning_rate"] == 2e-5
    assert made.recipe["unlearning"]["max_steps"] == 500


@pytest.mark.parametrize(
    "line",
    [
        "experiment=unlearn/tofu/default trainer=NPO task_name=b",
        "--config-name=unlearn.yaml experiment=unlearn/tofu/default trainer=NPO task_name=b",
        "python src/train.py --config-name=unlearn.yaml experiment=unlearn/tofu/default "
        "trainer=NPO task_name=b",
        "CUDA_VISIBLE_DEVICES=0,1 accelerate launch --config_file configs/accelerate/x.yaml "
        "--main_process_port 1234 src/train.py --config-name=unlearn.yaml "
        "experiment=unlearn/tofu/default trainer=NPO task_name=b",
        "mine.json trainer=NPO task_name=b",
    ],
)
@pytest.mark.usefixtures("file")
def test_every_way_to_write_an_open_unlearning_command_is_the_same_command(line):
    for words in (line.split(), [line]):
        command = find_command(words)
        assert command.project == "open_unlearning"
        made = command.read(corrected=True, places=Places(), processes=1)
        assert made.recipe["unlearning"]["objective"] == "npo"
        assert made.recipe["name"] == "b"


def test_settings_of_a_recipe_stand_besides(file):
    command = find_command([file, "unlearning.max_steps=2", "--unlearn.lr", "1"])
    assert command.own == ["unlearning.max_steps=2"]
    words = ["experiment=unlearn/tofu/default", "task_name=x", "evaluation.generate=false"]
    assert find_command(words).own == ["evaluation.generate=false"]


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize("words", [["demo"], ["recipe.yaml", "seed=3"], ["none.yaml"], ["runs/x"]])
def test_a_recipe_or_a_run_is_no_command_of_another_project(words):
    assert find_command(words) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python src/eval.py experiment=eval/tofu/default", "wagle evaluate MODEL"),
        ("python src/exec/Fine_tune_hp.py --lr 1e-5", "wagle finetune RECIPE, with epochs 10"),
        ("python src/train.py experiment=x --multirun", "--multirun is no option"),
        ("python src/train.py --config-name=train.yaml experiment=x", "does not unlearn"),
        ("NPO+WAGLE.json --unlearn.lr", "--unlearn.lr has no value"),
        ("NPO+WAGLE.json none.json", "none.json is no config file"),
        ("python src/exec/unlearn_model.py", "no config is given"),
    ],
)
@pytest.mark.usefixtures("file")
def test_what_is_no_command_that_unlearns_is_refused(line, message):
    with pytest.raises(WagleError, match=message):
        find_command(line.split())
