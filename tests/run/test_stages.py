import json
import os
import re
import shlex

import pytest
import torch
import yaml

from tests.conftest import OTHERS, RECORDS, make_model
from wagle.model.loading import load_model
from wagle.model.weights import fingerprint
from wagle.patch.verification import Verification
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.finding import find_run
from wagle.run.stages.making import patch as patch_stage
from wagle.run.stages.making import teach as stages
from wagle.run.stages.making import training
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning.training.trainer import UnlearnTrainer

BREAKS = ["optimizer=SGD", "learning_rate=50", "warmup_steps=4", "max_grad_norm=0"]


class Killed(Exception):
    """What ends a run from outside."""


@pytest.fixture
def recipe_file(tmp_path, tokenizer):
    """A recipe whose model is saved in bfloat16 and loaded in float32."""
    folder = tmp_path / "tiny"
    make_model("llama-tied").to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, rows in (("forget", RECORDS), ("retain", OTHERS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    training = {"learning_rate": 5e-3, "batch_size": 4, "epochs": 2, "checkpoint_minutes": 0}
    recipe = {
        "name": "tiny",
        "model": str(folder),
        "forget": str(tmp_path / "forget.json"),
        "retain": str(tmp_path / "retain.json"),
        "finetune": training,
        "attribution": {"ratio": 0.5},
        "unlearning": {**training, "when_unknown": "go"},
        "evaluation": {"generate": False},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def _unlearning(settings):
    return [f"unlearning.{setting}" for setting in settings]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_weights_that_changed_are_those_of_the_patch(recipe_file, tmp_path, rounding):
    settings = _unlearning(["learning_rate=1e-5", f"rounding={rounding}", "evaluate_every=2"])
    run = execute(load_recipe(recipe_file, settings), tmp_path / "out", until="patch")
    done = run.state["stages"]
    assert 0 < done["unlearn"]["changed"] == done["patch"]["changed"] < done["unlearn"]["selected"]
    assert done["unlearn"]["steps"] == 3  # twice 6 records, 4 at once


def test_a_run_that_the_saved_model_does_not_show_is_an_error(recipe_file, tmp_path):
    settings = _unlearning(["learning_rate=1e-12"])
    with pytest.raises(
        WagleError, match="selected weights in bfloat16, the precision they are saved in; raise"
    ):
        execute(load_recipe(recipe_file, settings), tmp_path / "out", until="unlearn")


@pytest.mark.parametrize(("stage", "name"), [("teach", "base"), ("unlearn", "model")])
def test_what_is_lost_between_training_and_saving_is_not_trained_again(
    recipe_file, tmp_path, monkeypatch, stage, name
):
    calm, out = tmp_path / "calm", tmp_path / "out"
    recipe = load_recipe(recipe_file)
    undisturbed = execute(recipe, calm, until=stage)
    save, trained = stages.save_model, []

    def killed(model, like, folder):
        if folder.name == name:
            raise Killed
        save(model, like, folder)

    for module in (stages, training):
        monkeypatch.setattr(module, "save_model", killed)
    with pytest.raises(Killed):
        execute(recipe, out, until=stage)
    for module in (stages, training):
        monkeypatch.setattr(module, "save_model", save)
    monkeypatch.setattr(UnlearnTrainer, "training_step", lambda *_, **__: trained.append(1))
    run = execute(recipe, out, until=stage)
    assert not trained
    assert fingerprint(out / name) == fingerprint(calm / name)
    steps = [[h for h in r.logged(stage) if "step" in h] for r in (run, undisturbed)]
    assert steps[0] == steps[1] != []
    assert not list((out / "private" / f"checkpoint-{stage}").glob("*.safetensors"))


def test_a_diverged_run_says_where_the_last_good_weights_are_and_how_to_go_on(
    recipe_file, tmp_path, monkeypatch
):
    out = tmp_path / "an out"
    recipe = load_recipe(recipe_file, _unlearning([*BREAKS, "stop_when=[]"]))
    with pytest.raises(TrainingStopped) as caught:
        execute(recipe, out, until="unlearn")
    said = str(caught.value)
    assert "\n" not in said
    found = re.search(
        r"diverged at step 3: .* back at step 1, kept in (.*); resume with: (.*)$", said
    )
    kept, command = found.groups()
    assert fingerprint(kept) == fingerprint(out / "base")  # the first step's rate is 0
    program, verb, source, override, option, folder = shlex.split(command)
    assert (program, verb, option) == ("wagle", "run", "--out")
    assert override == "unlearning.learning_rate=25"
    assert not list((out / "private" / "checkpoint-unlearn").glob("*.safetensors"))

    monkeypatch.setattr(stages, "finetune", None)  # nothing is taught again
    lower, place = find_run(source, ["unlearning.learning_rate=1e-3"], folder)
    run = execute(lower, place, until="unlearn")
    assert run.recipe.unlearning.learning_rate == 1e-3
    assert load_recipe(out / "recipe.yaml") == lower
    assert not run.last_good.exists()


def test_a_teaching_that_breaks_off_goes_on_with_another_rate_too(recipe_file, tmp_path):
    breaks = [f"finetune.{setting}" for setting in BREAKS]
    with pytest.raises(TrainingStopped, match=r"kept in .*last-good; resume with: ") as caught:
        execute(load_recipe(recipe_file, breaks), tmp_path / "out", until="teach")
    _, _, source, override, _, folder = shlex.split(str(caught.value).split("resume with: ")[1])
    assert override == "finetune.learning_rate=25"
    lower, place = find_run(source, ["finetune.learning_rate=1e-3"], folder)
    assert execute(lower, place, until="teach").models.base.is_dir()


def test_a_reference_that_breaks_off_is_taught_anew_with_the_model_in_another_folder(
    recipe_file, tmp_path, monkeypatch
):
    recipe = load_recipe(recipe_file, ["reference=retrained"])
    execute(recipe, tmp_path / "out", until="teach")

    def breaks(*_, **__):
        raise TrainingStopped("the loss is nan; the model is as it was before training")

    monkeypatch.setattr(stages, "finetune", breaks)
    with pytest.raises(
        TrainingStopped,
        match=r"before training; resume with: .* finetune.learning_rate=0.0025 --out \S*/out-again$",
    ):
        execute(recipe, tmp_path / "out", until="retrain")
    assert not (tmp_path / "out" / "last-good").exists()


def test_how_unlearning_trains_may_change_until_it_is_finished_and_nothing_else(
    recipe_file, tmp_path
):
    out = tmp_path / "out"
    execute(load_recipe(recipe_file), out, until="mask")
    for other in ("attribution.ratio=0.4", "unlearning.objective=grad_diff", "seed=1"):
        with pytest.raises(WagleError, match="holds a run of another recipe"):
            execute(load_recipe(recipe_file, [other]), out, until="unlearn")
    slower = load_recipe(recipe_file, ["unlearning.learning_rate=1e-3", "unlearning.epochs=1"])
    run = execute(slower, out, until="unlearn")
    assert run.state["stages"]["unlearn"]["steps"] == 2
    with pytest.raises(WagleError, match=r"rate: 0\.001' there, 'learning_rate: 0\.002' here"):
        execute(
            load_recipe(recipe_file, ["unlearning.learning_rate=2e-3", "unlearning.epochs=1"]), out
        )


# ----- what changes while a patch is made -----


def _flip(path):
    """Another byte, in neither size nor time."""
    told, data = path.stat(), bytearray(path.read_bytes())
    data[-8] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("out/base", "was edited since the stage teach wrote it; put it back, or make it again:"),
        (
            "out/model",
            "was edited since the stage unlearn wrote it; put it back, or make it again:",
        ),
        ("tiny", "has changed since the stage teach read it; put it back, or start the run"),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_model_that_changes_before_its_patch_is_made_is_named_and_no_patch_is_left(
    recipe_file, tmp_path, monkeypatch, place, said, when
):
    untaught = ["finetune=null"] if place == "tiny" else []
    recipe = load_recipe(recipe_file, [*untaught, "patch.undo=true"])
    out, changed = tmp_path / "out", tmp_path / place / "model.safetensors"
    execute(recipe, out, until="unlearn")
    if when == "before":
        _flip(changed)
    else:
        verify = patch_stage.verify
        monkeypatch.setattr(
            patch_stage, "verify", lambda *a, **k: (_flip(changed), verify(*a, **k))[1]
        )
    with pytest.raises(WagleError) as told:
        execute(recipe, out, until="patch")
    assert str(told.value).startswith(f"{changed} {said}")
    assert "\n" not in str(told.value)
    for file in ("patch.safetensors", "private/undo.safetensors"):
        assert not (out / file).exists()


def test_a_patch_that_does_not_match_is_a_bug_if_nothing_changed_and_is_not_left(
    recipe_file, tmp_path, monkeypatch
):
    recipe, out = load_recipe(recipe_file), tmp_path / "out"
    execute(recipe, out, until="unlearn")
    wrong = Verification(1, 2, {}, outside={"a": 1})
    monkeypatch.setattr(patch_stage, "verify", lambda *_, **__: wrong)
    with pytest.raises(RuntimeError, match="please report this bug"):
        execute(recipe, out, until="patch")
    assert not (out / "patch.safetensors").exists()


def test_a_recipe_trains_by_stream_and_its_models_are_those_of_the_engine_whole(
    recipe_file, tmp_path
):
    runs = {}
    for engine in ("whole", "stream"):
        chosen = [f"finetune.engine={engine}", f"unlearning.engine={engine}"]
        recipe = load_recipe(recipe_file, [*chosen, "unlearning.stop_when=[]"])
        runs[engine] = execute(recipe, tmp_path / engine, until="patch")
        assert not list((tmp_path / engine / "private").glob("checkpoint-*/*.safetensors"))
    for stage in ("teach", "unlearn"):
        whole, stream = (runs[engine].state["stages"][stage] for engine in ("whole", "stream"))
        assert stream["engine"] == "stream"
        assert "engine" not in whole
        assert stream["changed"] == pytest.approx(whole["changed"], rel=0.01)
    for name in ("base", "model"):
        one, other = (load_model(tmp_path / engine / name) for engine in ("whole", "stream"))
        for (_, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0.01, atol=1e-4)  # of bfloat16: a rounding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["unlearning.engine=stream", "unlearning.dropout=true"], "dropout: true does not work"),
        (["finetune.engine=stream", "finetune.dropout=true"], "dropout: true does not work"),
        (
            ["finetune.engine=stream", "finetune.optimizer=AdamW8bit"],
            "optimizer AdamW8bit does not",
        ),
        (["finetune.engine=stream", "model.shard=true"], "does not work with a model in shards"),
        (["unlearning.engine=stream", "unlearning.lora.rank=4"], "unlearning.engine is stream"),
    ],
)
def test_what_the_engine_stream_cannot_give_is_one_line_before_any_work(
    recipe_file, tmp_path, settings, message
):
    with pytest.raises(WagleError, match=message) as caught:
        execute(load_recipe(recipe_file, settings), tmp_path / "out", until="unlearn")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "base").exists()


def test_a_teaching_by_stream_that_diverges_keeps_its_last_good_weights(recipe_file, tmp_path):
    out = tmp_path / "out"
    settings = [*_unlearning([*BREAKS, "stop_when=[]"]), "unlearning.engine=stream"]
    with pytest.raises(TrainingStopped, match=r"back at step 1, kept in (.*); resume with"):
        execute(load_recipe(recipe_file, settings), out, until="unlearn")
    kept = next(out.glob("**/last-good*"))
    assert fingerprint(kept) == fingerprint(out / "base")  # the first step's rate is 0
