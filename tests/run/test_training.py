"""What the stages that train have in common, and what unlearning is told of the reference."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import load_recipe
from wagle.run.opening import Run
from wagle.run.stages.making import training
from wagle.run.stages.making.training import (
    clear_training,
    how_to_resume,
    keep_last_good,
    save_trained,
    training_entry,
)
from wagle.run.stages.making.unlearn import reference_figures
from wagle.system.errors import TrainingStopped
from wagle.unlearning.execution import TrainResult


@pytest.fixture
def run(tmp_path):
    """A run whose folder has a blank in its name; its rates are 1e-5 and 4e-5."""
    recipe = {
        "name": "x",
        "model": "demo",
        "forget": "demo:forget",
        "finetune": {"learning_rate": 4e-5},
        "unlearning": {"learning_rate": 1e-5},
    }
    made = Run(tmp_path / "my run", load_recipe(recipe))
    made.folder.mkdir()
    (made.folder / "recipe.yaml").touch()
    return made


@pytest.mark.parametrize(
    ("stage", "setting", "tail"),
    [
        ("unlearn", "unlearning.learning_rate=5e-06", ""),
        ("teach", "finetune.learning_rate=2e-05", ""),
        ("retrain", "finetune.learning_rate=2e-05", "-again"),  # beside the model that it is of
    ],
)
def test_a_run_that_broke_off_resumes_at_half_its_rate(run, stage, setting, tail):
    said = how_to_resume(run, stage)
    assert said.startswith("resume with: ")
    assert shlex.split(said.removeprefix("resume with: ")) == [
        "wagle",
        "run",
        str(run.folder / "recipe.yaml"),
        setting,
        "--out",
        f"{run.folder}{tail}",
    ]


def test_a_control_has_no_recipe_to_change_and_its_run_begins_again(run):
    (run.folder / "recipe.yaml").unlink()
    assert how_to_resume(run, "unlearn") == (
        "start the run again in another folder with a lower unlearning.learning_rate"
    )


def test_the_last_good_weights_are_kept_where_there_is_a_step_that_made_them(run):
    saved = []
    said = keep_last_good(run, TrainingStopped("it diverged", 7), saved.append)
    assert (said, saved) == (f"it diverged, kept in {run.last_good}", [run.last_good])
    saved.clear()
    for step in (0, None):
        assert keep_last_good(run, TrainingStopped("it diverged", step), saved.append) == (
            "it diverged"
        )
    assert saved == []


def test_what_a_training_needed_is_gone_once_its_model_is_saved(run):
    checkpoints = run.private / "checkpoint-unlearn"
    for folder, name in ((checkpoints, "last.safetensors"), (run.last_good, "config.json")):
        folder.mkdir(parents=True)
        (folder / name).touch()
    (checkpoints / "events.log").touch()  # of a tracker
    clear_training(run, checkpoints)
    assert [path.name for path in checkpoints.iterdir()] == ["events.log"]
    assert not run.last_good.exists()
    clear_training(run, checkpoints)  # nothing is left, and that is no error


@pytest.mark.parametrize(("history", "steps"), [([], 0), ([{"step": 0}, {"step": 9}], 9)])
def test_the_entry_of_a_training_has_its_steps_and_no_history(history, steps):
    found = training_entry(TrainResult(history, 12, 7, "end", {"name": "npo"}))
    assert found == {
        "selected": 12,
        "changed": 7,
        "stopped": "end",
        "objective": {"name": "npo"},
        "best": None,
        "landed": None,
        "steps": steps,
    }


@pytest.mark.parametrize(("lora", "wanted"), [(None, "model"), ({"rank": 2}, "adapter")])
def test_what_was_trained_is_written_the_model_or_its_adapter(run, monkeypatch, lora, wanted):
    written = []
    monkeypatch.setattr(training, "save_model", lambda *given: written.append(("model", given)))
    monkeypatch.setattr(training, "save_adapter", lambda *given: written.append(("adapter", given)))
    recipe = load_recipe(
        {"name": "x", "model": "demo", "forget": "demo:forget", "finetune": {}}
        | {"unlearning": {"lora": lora}}
    )
    own = Run(run.folder, recipe)
    save_trained(own, "live", run.folder / "out")
    ((kind, given),) = written
    assert kind == wanted
    assert set(given) == {"live", run.folder / "out", run.folder / "base"}


# ----- the figures of a reference that rules compare with -----


def reference(figures):
    """A run whose reference has these figures by set."""
    made = {
        name: {
            metric: Figure(value, value and (value - 0.125, value + 0.125), "bootstrap")
            for metric, value in found.items()
        }
        for name, found in figures.items()
    }
    return SimpleNamespace(evaluation=lambda role: {"reference": Evaluation(made)}.get(role))


def test_rules_are_told_what_they_can_compare_and_the_ends_of_the_bands():
    found = reference_figures(
        reference(
            {
                "forget": {"probability": 0.25, "nll": 3.0, "rouge_l": 0.5},
                "retain": {"probability": 0.75, "extraction_strength": 0.5},
                "general": {"probability": 0.5},
            }
        )  # type: ignore[arg-type]
    )
    values = {
        "forget.probability": 0.25,
        "forget.nll": 3.0,
        "retain.probability": 0.75,
        "retain.extraction_strength": 0.5,
    }
    ends = {
        f"{name}.{end}": value + by
        for name, value in values.items()
        for end, by in (("low", -0.125), ("high", 0.125))
    }
    assert found == {**values, **ends}


def test_a_figure_without_a_value_is_not_compared_with_and_one_of_0_is():
    found = reference_figures(
        reference({"forget": {"probability": None, "exact_memorization": 0.0}})  # type: ignore[arg-type]
    )
    assert found is not None
    assert {name for name in found if not name.endswith((".low", ".high"))} == {
        "forget.exact_memorization"
    }
    assert found["forget.exact_memorization"] == 0.0


def test_without_a_reference_there_is_nothing_to_compare_with():
    nothing = SimpleNamespace(evaluation=lambda _: None)
    assert reference_figures(nothing) is None  # type: ignore[arg-type]
