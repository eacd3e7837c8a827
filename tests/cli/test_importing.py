"""Configs of other projects on the command line, up to whole runs of a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from bench.published import SOUL, WAGLE

from tests.conftest import OTHERS, RECORDS
from wagle.cli import app as cli
from wagle.recipe.reading import load_recipe
from wagle.system.errors import WagleError

TEXTS = ["The harbour was quiet, and Ada slept.", "Lanterns burned until the morning came."]
OTHER_TEXTS = ["A winter garden needs no lantern.", "The painter lives near the sea today."]
PAGED = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
GO = "unlearning.when_unknown=go"  # a tiny model never knew anything


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tofu(folder):
    """Tiny files of TOFU's form."""
    more = {
        "paraphrased_question": "Say it.",
        "paraphrased_answer": "So it is.",
        "perturbed_answer": ["No.", "A horse.", "Never."],
    }
    world = [{**row, "perturbed_answer": more["perturbed_answer"]} for row in OTHERS[:2]]
    lines(folder / "forget10.json", RECORDS)
    lines(folder / "forget10_perturbed.json", [{**row, **more} for row in RECORDS])
    lines(folder / "retain90.json", OTHERS)
    lines(folder / "retain_perturbed.json", [{**row, **more} for row in OTHERS[:4]])
    lines(folder / "real_authors_perturbed.json", world)
    lines(folder / "world_facts_perturbed.json", world)


def books(folder):
    """Tiny files of MUSE's form."""
    rows = [[{"text": text} for text in texts] for texts in (TEXTS, OTHER_TEXTS)]
    passages = [{"prompt": "The harbour", "gt": "was quiet, and Ada slept."}]
    asked = [{"question": row["question"], "answer": row["answer"]} for row in RECORDS[:2]]
    shots = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(10)]
    lines(folder / "raw/forget.jsonl", rows[0])
    lines(folder / "raw/retain1.jsonl", rows[1])
    lines(folder / "verbmem/forget.jsonl", passages)
    for name in ("forget_qa", "retain_qa"):
        lines(folder / f"knowmem/{name}.jsonl", asked)
        lines(folder / f"knowmem/{name}_icl.jsonl", shots)
    lines(folder / "privleak/forget.jsonl", rows[0])
    lines(folder / "privleak/retain.jsonl", rows[1])
    lines(folder / "privleak/holdout.jsonl", rows[1])


@pytest.fixture
def place(tmp_path, model_folder, model, monkeypatch):
    """A folder with the published files, tiny data sets and a published mask of the tiny model."""
    monkeypatch.chdir(tmp_path)
    for name, config in WAGLE.items():
        path = tmp_path / "configs/unlearn" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
    tofu(tmp_path / "sets/TOFU")
    books(tmp_path / "sets/books")
    (tmp_path / "mask").mkdir()
    torch.manual_seed(0)
    mask = {n: torch.rand(p.shape) < 0.95 for n, p in model.named_parameters()}
    torch.save(mask, tmp_path / "mask/tofu_0.95.pt")
    shutil.copytree(model_folder, tmp_path / "models/tiny")
    return tmp_path


def call(*arguments):
    cli.app(args=[*map(str, arguments)], standalone_mode=False)


def report_of(run):
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return (run / "report.html").read_text(), [one["warning"] for one in log if "warning" in one]


def test_a_published_file_runs_with_its_mask_to_its_report(place):
    call(
        "run",
        "configs/unlearn/Tofu/NPO+WAGLE.json",
        *("--unlearn.mask_path", "mask/tofu_0.95.pt", "--dataset.forget_ratio", "6"),
        *("--unlearn.max_steps=2", GO),
        *("--model", "models/tiny", "--data", "sets", "--no-fail"),
    )
    run = place / "runs/tofu"
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.attribution.mask == "tofu_0.95.safetensors"
    assert (place / "tofu_0.95.safetensors").is_file()
    assert recipe.unlearning.objective_settings == {"beta_token_mean": True}
    state = json.loads((run / "state.json").read_text())["stages"]
    assert state["unlearn"]["steps"] == 2
    page, warnings = report_of(run)
    said = [one for one in warnings if one.startswith("imitated: ")]
    for switch in ("beta_token_mean", "llama2_published", "pairing: random", "variant: published"):
        assert any(switch in one for one in said)
    assert "beta_token_mean: true, since its NPO takes the mean over tokens" in page
    assert any(one.startswith("not imitated: score_last_prompt_token") for one in warnings)


@PAGED
@pytest.mark.parametrize(
    ("line", "name"),
    [
        (
            "python src/train.py --config-name=unlearn.yaml experiment=unlearn/tofu/default "
            "trainer=NPO task_name=b",
            "b",
        ),
        (
            "python src/train.py --config-name=unlearn.yaml experiment=unlearn/muse/default "
            "data_split=Books trainer=GradDiff trainer.method_args.retain_loss_type=KL task_name=d",
            "d",
        ),
    ],
)
def test_a_line_of_open_unlearning_runs_to_its_report(place, line, name):
    here = ("trainer.args.max_steps=2", GO, "evaluation.max_new_tokens=4")
    call("run", *line.split(), *here, "--model", "models/tiny", "--data", "sets", "--no-fail")
    run = place / "runs" / name
    assert json.loads((run / "state.json").read_text())["stages"]["unlearn"]["steps"] == 2
    page, warnings = report_of(run)
    assert "recipe made from a config of OpenUnlearning, faithful" in warnings
    assert "recipe made from a config of OpenUnlearning, faithful" in page


@PAGED
def test_the_notes_outlast_a_run_that_is_resumed_by_its_folder(place):
    line = "experiment=unlearn/tofu/default trainer=GradDiff task_name=r trainer.args.max_steps=2"
    more = (
        GO,
        "evaluation.benchmarks=[]",
        "evaluation.generate=false",
        "--model",
        "models/tiny",
        "--data",
        "sets",
    )
    call("run", *line.split(), *more, "--no-fail")
    call("report", "runs/r")
    assert any("imitated" in one for one in report_of(place / "runs/r")[1])


@pytest.mark.parametrize("name", sorted(WAGLE))
@pytest.mark.parametrize("corrected", [[], ["--corrected"]])
def test_every_published_file_is_written_as_a_recipe(place, name, corrected, capsys):
    call("import", f"configs/unlearn/{name}.json", "-o", "recipe.yaml", *corrected)
    recipe = load_recipe(place / "recipe.yaml")
    assert recipe.name == ("tofu" if name.startswith("Tofu") else "wmdp")
    head = (place / "recipe.yaml").read_text()
    assert ("# imitated: " in head) == (not corrected)
    said = capsys.readouterr().err
    assert "no counterpart: overall.cache_dir" in said
    assert "missing: " in said
    assert "the published code fetches the model" in said


@pytest.mark.parametrize("name", sorted(SOUL))
def test_every_file_of_soul_is_printed_as_a_recipe(place, name, capsys):
    (place / "soul.json").write_text(json.dumps(SOUL[name]))
    call("import", "soul.json", "--corrected")
    found = capsys.readouterr()
    assert load_recipe(yaml.safe_load(found.out)).seed == 0
    assert "recipe made from a config of SOUL, corrected" in found.err


LINES = [
    "experiment=unlearn/tofu/idk forget_split=forget05 retain_split=retain95 task_name=c",
    "experiment=unlearn/muse/default trainer=SimNPO trainer.method_args.beta=3 task_name=e",
    "experiment=unlearn/wmdp/default task_name=f",
    "experiment=unlearn/tofu/default trainer=RMU task_name=g trainer.args.gradient_checkpointing=true",
]


@pytest.mark.parametrize("line", LINES)
def test_other_lines_of_open_unlearning_become_recipes_as_they_are(place, line, capsys):
    call("import", "python", "src/train.py", "--config-name=unlearn.yaml", *line.split())
    recipe = load_recipe(yaml.safe_load(capsys.readouterr().out))
    assert f"task_name={recipe.name}" in line
    call("import", f"python src/train.py --config-name=unlearn.yaml {line}", "-o", "whole.yaml")
    assert load_recipe(place / "whole.yaml") == recipe


@pytest.mark.usefixtures("place")
def test_the_environment_says_where_things_are(monkeypatch, capsys):
    monkeypatch.setenv("WAGLE_MODEL", "models/tiny")
    monkeypatch.setenv("WAGLE_DATA", "sets")
    call("import", LINES[0].replace("forget05", "forget10").replace("retain95", "retain90"))
    found = capsys.readouterr()
    assert yaml.safe_load(found.out)["forget"]["source"] == "sets/TOFU"
    assert "missing" not in found.err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [
                "run",
                "configs/unlearn/Tofu/PO+WAGLE.json",
                "--data",
                "sets",
                "--model",
                "models/tiny",
            ],
            "./mask/tofu_0.8.pt does not exist; the published code fetches that file",
        ),
        (
            ["run", "configs/unlearn/Tofu/PO+WAGLE.json", "--data", "sets"],
            "tofu_ft_llama2-7b does not exist; the published code fetches the model "
            "locuslab/tofu_ft_llama2-7b: give its folder: --model FOLDER",
        ),
        (["run", "demo", "--corrected"], "--corrected goes with a config of another project"),
        (["run", "demo", "--ouut", "x"], "there is no option --ouut"),
        (["import", "demo"], "demo is no config of the published WAGLE code"),
        (
            ["run", "configs/unlearn/Tofu/PO+WAGLE.json", "--unlearn.lrr", "3"],
            "nearest: unlearn.lr",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(words, message):
    with pytest.raises(WagleError) as error:
        call(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("runs").exists()
