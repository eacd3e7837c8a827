"""Plug-ins in a recipe: the example package, installed and by its module."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import OTHERS, RECORDS
from wagle.run.tables import members
from wagle.system.errors import WagleError

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the example package is installed into."""
    home = tmp_path_factory.mktemp("site")
    asked = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(home)]
    copy = tmp_path_factory.mktemp("source") / "plugin"
    copy.mkdir()
    for name in ("pyproject.toml", "wagle_example.py"):
        (copy / name).write_text((EXAMPLE / name).read_text())
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *asked, str(copy)], check=True
    )
    return home


@pytest.fixture
def recipe(tmp_path, model_folder):
    (tmp_path / "forget.json").write_text(json.dumps(RECORDS))
    made = {
        "name": "plugged",
        "model": str(model_folder),
        "forget": str(tmp_path / "forget.json"),
        "retain": "harbours",
        "reference": "untaught",
        "finetune": {"learning_rate": 5e-3, "batch_size": 4, "epochs": 10},
        "attribution": {"score": "forget_only", "ratio": 0.5},
        "unlearning": {
            "objective": "gentle",
            "objective_settings": {"ceiling": 9.0},
            "retain_term": "squared",
            "max_steps": 2,
            "batch_size": 4,
            "stop_when": [],
        },
        "evaluation": {
            "max_new_tokens": 4,
            "benchmarks": [{"name": "capitals", "settings": {"most": 2}}],
        },
        "attacks": [{"name": "asked_twice", "settings": {"max_new_tokens": 4}}],
    }
    return made


def wagle(arguments, folder, path=None):
    """A command in a process of its own, which sees only what is installed there."""
    paths = [str(path)] if path else []
    more = {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", "from wagle.cli.app import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_package_is_listed_and_used_in_a_recipe(installed, recipe, tmp_path):
    listed = wagle(["list", "objectives", "--json"], tmp_path, installed)
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["npo"]["from"] == "wagle"
    assert rows["gentle"]["from"] == "wagle-example-plugin"
    assert rows["gentle"]["about"].startswith("Raise the loss of each record to forget")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    made = wagle(["run", "r.yaml", "--no-fail", "--out", "out"], tmp_path, installed)
    assert made.returncode == 0, made.stderr
    steps = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    losses = [row for row in steps if "forget_loss" in row and row["stage"] == "unlearn"]
    assert len(losses) == 2
    for row in losses:  # 9 - NLL, as the setting says
        assert row["forget_loss"] == pytest.approx(9.0 - row["forget_nll"], abs=1e-3)
    assert (tmp_path / "out/attacks/asked_twice.json").is_file()
    assert list((tmp_path / "out/evaluation").rglob("*capitals*"))
    without = wagle(["run", "r.yaml", "--out", "again"], tmp_path)
    assert without.returncode == 2
    assert without.stderr.strip().endswith("data file harbours does not exist")


def test_a_module_in_the_folder_is_used_only_with_permission(recipe, tmp_path):
    (tmp_path / "mine.py").write_text((EXAMPLE / "wagle_example.py").read_text())
    (tmp_path / "kept.json").write_text(json.dumps(OTHERS))
    recipe |= {"retain": "mine:harbours", "attacks": [], "evaluation": {"max_new_tokens": 4}}
    recipe["attribution"]["score"] = "mine:forget_only"
    recipe["unlearning"] |= {"objective": "mine:gentle", "retain_term": "mine:squared"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    refused = wagle(["run", "r.yaml", "--out", "out"], tmp_path)
    assert refused.returncode == 2
    assert "data mine:harbours is code outside wagle" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    made = wagle(["run", "r.yaml", "--no-fail", "--allow-code", "--out", "out"], tmp_path)
    assert made.returncode == 0, made.stderr
    other = wagle(
        ["run", "r.yaml", "allow_code=true", "unlearning.objective=mine:gentel"], tmp_path
    )
    assert other.returncode == 2
    assert "mine has no gentel; did you mean mine:gentle?" in other.stderr


def test_every_kind_is_listed_with_a_sentence_about_each():
    for kind in ("objectives", "retain_terms", "scores", "benchmarks", "attacks"):
        rows = members(kind)
        assert all(row["about"] and row["from"] == "wagle" for row in rows), kind
    assert "demo:forget" in {row["name"] for row in members("data")}
    with pytest.raises(WagleError, match="unknown kind of plug-in 'objective'; did you mean 'obj"):
        members("objective")
