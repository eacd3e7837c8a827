"""A run is made, or opened again where its recipe means the same."""

from __future__ import annotations

import errno
import os
import re
import stat

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.run.folder import RunFolder
from wagle.run.opening import Run, open_run, opened
from wagle.run.stages.measuring.controls import control_of
from wagle.system.errors import WagleError
from wagle.system.files import atomic
from wagle.system.files.atomic import write_json


def recipe(**more):
    return load_recipe({"name": "small", "model": "demo", "forget": "demo:forget", **more})


def rate(value, **more):
    return recipe(unlearning={"learning_rate": value, **more})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_a_new_run_holds_its_recipe_its_environment_and_a_private_salt(folder):
    run = open_run(recipe(), folder)
    assert (folder / "recipe.yaml").read_text() == dump_recipe(recipe())
    assert (folder / "environment.json").is_file()
    assert (run.private / "salt").is_file()
    assert stat.S_IMODE(run.private.stat().st_mode) == 0o700
    assert run.state == {"stages": {}}


def test_a_run_opened_again_keeps_its_salt_and_its_stages(folder):
    first = open_run(recipe(), folder)
    first.finish("teach", {"taught": 0})
    salt = (first.private / "salt").read_bytes()
    again = open_run(recipe(), folder)
    assert again.state == {"stages": {"teach": {"taught": 0}}}
    assert (again.private / "salt").read_bytes() == salt


def test_a_folder_with_something_else_in_it_is_refused_and_a_lock_is_nothing(folder):
    folder.mkdir()
    (folder / ".lock").touch()
    open_run(recipe(), folder)
    other = folder.with_name("other")
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(WagleError, match=r"other exists and is not a run; choose another folder"):
        open_run(recipe(), other)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_another_recipe_takes_the_place_of_one_that_has_finished_nothing(folder):
    open_run(recipe(), folder)
    open_run(recipe(seed=7), folder)
    assert "seed: 7" in (folder / "recipe.yaml").read_text()


def test_another_recipe_is_refused_by_the_first_line_that_differs(folder):
    open_run(recipe(), folder).finish("teach", {})
    said = re.escape("'seed: 0' there, 'seed: 7' here")
    with pytest.raises(WagleError, match=rf"holds a run of another recipe \({said}\)"):
        open_run(recipe(seed=7), folder)
    assert "seed: 0" in (folder / "recipe.yaml").read_text()


def test_how_unlearning_trains_may_change_until_it_is_finished(folder):
    open_run(rate(1e-5), folder).finish("teach", {})
    run = open_run(rate(2e-5), folder)
    assert run.recipe.unlearning.learning_rate == 2e-5
    assert load_recipe(folder / "recipe.yaml").unlearning.learning_rate == 2e-5
    run.finish("unlearn", {})
    with pytest.raises(WagleError, match="holds a run of another recipe"):
        open_run(rate(3e-5), folder)


def test_what_is_unlearned_otherwise_may_not_change(folder):
    open_run(rate(1e-5), folder).finish("teach", {})
    with pytest.raises(WagleError, match="another recipe"):
        open_run(rate(2e-5, objective="grad_diff"), folder)


def test_a_recipe_of_an_older_version_that_says_the_same_is_left_as_it_is(folder):
    open_run(recipe(), folder).finish("teach", {})
    path = folder / "recipe.yaml"
    text = path.read_text().replace("overlap: error\n", "")
    assert text != path.read_text()
    path.write_text(text)
    open_run(recipe(), folder)
    assert path.read_text() == text


def test_a_recipe_that_no_longer_reads_is_another_one(folder):
    open_run(recipe(), folder).finish("teach", {})
    path = folder / "recipe.yaml"
    path.write_text(path.read_text() + "of_a_later_version: 1\n")
    with pytest.raises(WagleError, match=r"another recipe \(\d+ lines there, \d+ here\)"):
        open_run(recipe(), folder)


# ----- a run's first moments -----


class Killed(BaseException):
    """What no handler of errors sees, like a kill."""


def dies_at(monkeypatch, number):
    """Die at one of the renames by which files appear, leaving what is there."""
    seen = []

    def rename(part, path):
        seen.append(path)
        if len(seen) == number:
            raise Killed
        os.rename(part, path)

    monkeypatch.setattr(atomic.os, "replace", rename)
    monkeypatch.setattr(atomic.Path, "unlink", lambda *_, **__: None)  # a kill cleans up nothing
    return seen


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_killed_in_its_first_moments_is_begun_anew(folder, monkeypatch, number):
    with monkeypatch.context() as patch:
        seen = dies_at(patch, number)
        with pytest.raises(Killed), opened(recipe(), folder):
            pass
    assert [path.name for path in seen] == ["salt", "environment.json", "recipe.yaml"][:number]
    assert (folder / f"{seen[-1].relative_to(folder)}.part").is_file()
    with opened(recipe(), folder) as run:
        assert run.state == {"stages": {}}
    names = {".lock", "environment.json", "private", "private/salt", "recipe.yaml"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == names


@pytest.mark.parametrize(
    "names",
    [
        ["environment.json"],  # without a salt it is not from a run
        ["private/salt", "notes.txt"],
        ["private/salt", "state.json"],  # a run whose recipe was deleted
        ["private/letters.txt"],
    ],
)
def test_what_others_left_is_no_run_in_its_first_moments(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    before = sorted(folder.rglob("*"))
    with pytest.raises(WagleError, match="run exists and is not a run"), opened(recipe(), folder):
        pass
    assert sorted(folder.rglob("*")) == before


def fails_in(folder, stage):
    """Open a run that says something in a stage and fails there."""

    def work():
        with opened(recipe(), folder) as run:
            run.log(stage, {"warning": "nearly"})
            raise WagleError("bad input")

    with pytest.raises(WagleError, match="bad input"):
        work()


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_refused_before_its_first_stage_leaves_nothing(folder, there):
    if there:
        folder.mkdir()
    fails_in(folder, "check")
    assert [*folder.parent.rglob("*")] == ([folder] if there else [])


def test_a_run_that_has_begun_its_first_stage_stays_where_it_failed(folder):
    fails_in(folder, "teach")
    fails_in(folder, "check")
    assert (folder / "recipe.yaml").is_file()
    assert [line["stage"] for line in RunFolder(folder).logged()] == ["teach", "check"]


# ----- where nothing can be written -----


@pytest.fixture
def read_only(folder, monkeypatch):
    """A run folder of one finished stage, in which nothing can be created."""
    open_run(recipe(), folder).finish("teach", {})
    opens = os.open

    def refuse(path, flags, *more, **named):
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and str(folder) in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opens(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.usefixtures("read_only")
def test_a_finished_run_opens_where_nothing_can_be_written_and_an_unfinished_one_does_not(folder):
    with opened(recipe(), folder, ["teach"]) as run:
        assert list(run.state["stages"]) == ["teach"]
    for enough in ((), ["teach", "mask"]):
        with pytest.raises(WagleError) as told, opened(recipe(), folder, enough):
            pass
        said = f"cannot write {folder}: Read-only file system ({folder / '.lock'})"
        assert str(told.value) == said


# ----- a control arm is a run inside another one -----


def test_a_control_reads_what_is_the_runs_and_writes_what_is_its_own(folder):
    asked = {"ratio": 0.25, "score": "wanda"}
    run = Run(folder, recipe(attribution=asked, controls=["random", "dense"]))
    arm = control_of(run, "random")
    assert arm.folder == folder / "controls/random"
    assert arm.models is run.models
    assert arm.inputs is run.inputs
    assert stat.S_IMODE(arm.private.stat().st_mode) == 0o700
    assert (arm.recipe.attribution.score, arm.recipe.attribution.ratio) == ("random", 0.25)
    assert arm.recipe.controls == []
    assert run.recipe.attribution.score == "wanda"
    assert [one.dense for one in (run, arm, control_of(run, "dense"))] == [False, False, True]


def test_a_control_has_an_evaluation_of_its_own_after_and_those_of_the_run_before(folder):
    run = Run(folder, recipe())
    arm = control_of(run, "random")
    for place, value in ((run, 0.25), (arm, 0.5)):
        for role in ("before", "after"):
            found = Evaluation({"forget": {"know": Figure(value, None, "none")}})
            write_json(place.folder / f"evaluation/{role}.json", found.to_json())
    values = {}
    for role in ("before", "after", "reference"):
        found = arm.evaluation(role)
        values[role] = found and found.figures["forget"]["know"].value
    assert values == {"before": 0.25, "after": 0.5, "reference": None}
