"""What wagle says about itself: version, schema, doctor, ready recipes, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from wagle.cli.listing import about
from wagle.recipe.reading import load_recipe, ready_recipes
from wagle.system import machine
from wagle.system.errors import WagleError

ROOT = Path(__file__).parents[3]


def test_the_version_is_told_before_any_command(inside):
    assert inside("--version") == f"wagle {version('wagle')}\n"


def test_the_schema_is_the_published_one(inside):
    assert inside("schema") == (ROOT / "docs" / "recipe.schema.json").read_text()


def test_the_ready_recipes_are_listed_and_shown_as_they_are(inside, tmp_path):
    listed = inside("recipes").splitlines()
    assert [line.split()[0] for line in listed] == ready_recipes()
    assert "wagle-tofu-npo" in ready_recipes()
    text = inside("recipes", "show", "demo")
    assert text == (ROOT / "src" / "wagle" / "recipes" / "demo.yaml").read_text()
    inside("recipes", "show", "tofu", "-o", tmp_path / "mine.yaml")
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe("tofu")
    with pytest.raises(WagleError, match="exists; choose another file"):
        inside("recipes", "show", "tofu", "-o", tmp_path / "mine.yaml")
    with pytest.raises(WagleError, match="did you mean 'tofu'"):
        inside("recipes", "show", "tofo")


def test_the_doctor_tells_in_words_and_in_json(inside):
    found = json.loads(inside("doctor", "--json"))
    told = inside("doctor")
    for name, number in found["versions"].items():
        assert f"{name} " in told
        assert number in told
    assert "in the hub's cache" in told


def test_the_doctor_ends_with_1_if_something_is_missing(monkeypatch, capsys):
    found = machine.describe()
    monkeypatch.setattr(machine, "describe", lambda: {**found, "problems": ["torch is away"]})
    with pytest.raises(typer.Exit) as end:
        about.doctor_command()
    assert end.value.exit_code == 1
    assert "torch is away" in capsys.readouterr().out


def test_a_card_is_told_with_its_memory():
    found = machine.describe()
    card = {"name": "H200", "memory": {"total": 2 * 10**9, "free": 10**9}, "driver": "570"}
    told = about._lines({**found, "devices": [*found["devices"], card]})
    assert any("H200: 1.0 GB of 2.0 GB free, driver 570" in line for line in told)


def test_a_shell_can_complete_commands():
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "_WAGLE_COMPLETE": "complete_bash",
        "COMP_WORDS": "wagle imp",
        "COMP_CWORD": "1",
    }
    start = "import sys; sys.argv[0] = 'wagle'; from wagle.cli.app import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["import"]
