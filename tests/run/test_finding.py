"""Which recipe and which run folder a command means."""

from __future__ import annotations

from pathlib import Path

import pytest

from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.run.finding import find_run
from wagle.system.errors import WagleError

RECIPE = {"name": "small", "model": "demo", "forget": "demo:forget"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(dump_recipe(load_recipe(RECIPE)))
    return path


def test_a_recipe_runs_in_a_folder_of_its_name_or_in_the_one_that_is_given(file):
    recipe, folder = find_run(str(file), ["seed=7"], None)
    assert (recipe.seed, folder) == (7, Path("runs/small"))
    assert find_run(str(file), ["name=other"], None)[1] == Path("runs/other")
    assert find_run(str(file), [], "elsewhere/x")[1] == Path("elsewhere/x")


def test_a_ready_recipe_is_meant_by_its_name():
    recipe, folder = find_run("demo", [], None)
    assert (recipe.name, folder) == ("demo", Path("runs/demo"))


def test_a_name_that_is_a_ready_recipes_and_a_runs_is_refused(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_run("demo", [], None)[0].name == "demo"  # a folder that is no run
    (tmp_path / "demo" / "recipe.yaml").write_text(file.read_text())
    with pytest.raises(WagleError, match=r"write bundled:demo for the recipe, \./demo for the run"):
        find_run("demo", [], None)
    assert find_run("bundled:demo", [], None)[1] == Path("runs/demo")
    assert find_run("./demo", [], None)[1] == Path("demo")


def test_a_run_folder_is_its_own_recipe_and_folder(file, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(file.read_text().replace("seed: 0", "seed: 5"))
    recipe, found = find_run(str(folder), [], None)
    assert (recipe.seed, found) == (5, folder)


@pytest.mark.parametrize(("overrides", "out"), [(["seed=7"], None), ([], "elsewhere")])
def test_settings_and_a_folder_go_with_a_recipe_and_not_with_a_run(tmp_path, overrides, out):
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(
        WagleError, match=f"{tmp_path} is a run; give settings and --out with a recipe only"
    ):
        find_run(str(tmp_path), overrides, out)


def test_a_folder_that_is_no_run_is_read_as_a_recipe_and_refused(tmp_path):
    with pytest.raises(WagleError):
        find_run(str(tmp_path), [], None)
