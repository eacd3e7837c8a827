import errno
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import make_model
from tests.unlearning.conftest import (
    Killed,
    bits_equal,
    kill_at,
    mask_of,
    same,
    unlearn,
    weights,
)
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.training.checkpoints import Checkpoints, clear_checkpoints
from wagle.unlearning.training.optimizers import SophiaG
from wagle.unlearning.training.weights.selected import SelectedWeights

STEPS = 8
EVERY = {"checkpoint_minutes": 0, "max_steps": STEPS, "seed": 3}
RUNS = {
    "adamw": {"weight_decay": 0.1},
    "sgd": {"optimizer": "SGD", "optimizer_settings": {"momentum": 0.9}, "learning_rate": 0.3},
    "sophia": {"optimizer": "SophiaG", "curvature_every": 3, "learning_rate": 1e-3},
    "gru": {"wrapper": "gru"},
    "sam": {"wrapper": "sam", "wrapper_settings": {"rho": 0.1}},
    "smooth": {"wrapper": "smooth", "wrapper_settings": {"rho": 0.1}},
    "task_vector": {"wrapper": "task_vector", "objective": "forget_finetune"},
    "row_norm": {"dynamic_mask": "row_norm"},
    "pdu": {"objective": "pdu", "objective_settings": {"warmup": 0.5, "dual_start": 1.0}},
    "npo": {"objective": "npo"},
    "rounding": {"rounding": "stochastic", "learning_rate": 1e-4},
    "schedule": {"schedule": "linear", "warmup_steps": 3},
    "best": {"best": "min forget.probability", "check_every": 1, "learning_rate": 0.05},
    "accumulation": {"batch_size": 2, "accumulation": 2},
    "dropout": {"dropout": True},
    "looks": {
        "stop_when": ["forget.probability <= 1.7 * reference"],
        "reference": {"forget.probability": 0.0011},
        "check_every": 3,
    },
    "landing": {
        "stop_when": ["forget.probability <= 0.0018"],
        "land": True,
        "check_every": 2,
        "learning_rate": 0.02,
    },
    "landing best": {
        "best": "min forget.probability where retain.probability <= 0.0036",
        "land": True,
        "check_every": 1,
        "learning_rate": 0.02,
    },
}
LOOKED_AT_AGAIN = ("task_vector", "landing", "landing best")  # once more at the end


def _settings(name):
    return {**EVERY, **RUNS[name]}


def _start(name):
    family = "gpt2" if name == "dropout" else "llama-tied"
    model = make_model(family)
    if name == "rounding":
        model = model.to(torch.bfloat16)
    return model, (mask_of(model) if name not in ("dropout", "npo") else None)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_five_times_ends_with_the_weights_of_an_undisturbed_one(name, tmp_path):
    model, mask = _start(name)
    wanted = unlearn(model, mask=mask, **_settings(name))
    after = weights(model)
    kills = sorted(random.Random(name).sample(range(1, len(wanted.history) + 1), 5))
    told = []

    def watched(step):
        kill = kill_at(step)

        def on_step(figures):
            told.append(figures["step"])
            kill(figures)

        return on_step

    for step in kills:
        model, mask = _start(name)
        with pytest.raises(Killed):
            unlearn(
                model,
                mask=mask,
                checkpoint_folder=tmp_path,
                on_step=watched(step),
                **_settings(name),
            )
    model, mask = _start(name)
    got = unlearn(
        model, mask=mask, checkpoint_folder=tmp_path, on_step=watched(0), **_settings(name)
    )
    assert same(model, after)
    assert got == wanted
    turned = name in LOOKED_AT_AGAIN
    if name.startswith("landing"):
        assert wanted.landed or wanted.best["landed"]
    assert (
        len(told) == len(wanted.history) + 5 + turned
    )  # only what was not in a checkpoint ran again


def test_checkpoints_outlast_the_run_so_that_what_follows_may_fail_and_the_call_be_repeated(
    tmp_path,
):
    settings = {**EVERY, "checkpoint_folder": tmp_path}
    model, told = make_model("llama-tied"), []
    wanted = unlearn(model, **settings)
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["last.safetensors"]
    again = make_model("llama-tied")
    assert unlearn(again, **settings, on_step=told.append) == wanted
    assert told == []  # no step ran again
    assert same(again, weights(model))
    (tmp_path / "of a tracker").touch()
    clear_checkpoints(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["of a tracker"]


def test_a_run_killed_between_two_checkpoints_goes_on_from_the_one_before(tmp_path):
    settings = {**EVERY, "checkpoint_folder": tmp_path}
    wanted = make_model("llama-tied")
    unlearn(wanted, **EVERY)
    with pytest.raises(Killed):
        unlearn(make_model("llama-tied"), **settings, on_step=kill_at(4))
    (tmp_path / "last.safetensors").rename(tmp_path / "good.safetensors")
    model, told = make_model("llama-tied"), []
    with pytest.raises(Killed):
        unlearn(model, **settings, on_step=lambda h: (told.append(h["step"]), kill_at(5)(h)))
    assert told == [4, 5]
    model = make_model("llama-tied")
    unlearn(model, **settings)
    assert same(model, weights(wanted))


def test_the_runs_above_look_stop_and_choose_where_it_matters():
    model, mask = _start("looks")
    looked = unlearn(model, mask=mask, **_settings("looks"))
    assert looked.stopped == "forget.probability <= 1.7 * reference"
    # The second look is within twice the reference, and from there no step is left out.
    assert [h["step"] for h in looked.history if "forget.probability" in h] == [3, 6, 7]
    model, mask = _start("best")
    best = unlearn(model, mask=mask, **_settings("best")).best
    assert best["step"] >= 1


@pytest.mark.parametrize("call", [1, 4, 6, 9])
def test_a_kill_in_the_middle_of_accumulation_costs_that_step_alone(call, tmp_path):
    calls = []

    def counted(forget, retain):
        calls.append(1)
        if len(calls) == call and armed:
            raise Killed
        return Terms(-forget.nll_mean, retain.nll_mean)

    settings = {**EVERY, "max_steps": 3, "objective": counted, "accumulation": 3}
    armed = False
    model = make_model("llama-tied")
    unlearn(model, **settings)
    after = weights(model)
    calls.clear()
    armed = True
    with pytest.raises(Killed):
        unlearn(make_model("llama-tied"), checkpoint_folder=tmp_path, **settings)
    armed = False
    model = make_model("llama-tied")
    unlearn(model, checkpoint_folder=tmp_path, **settings)
    assert same(model, after)


_SCRIPT = """
import os, signal, sys
from tests.conftest import make_model
from tests.unlearning.conftest import mask_of, unlearn
from tests.unlearning.training.test_checkpoints import EVERY

def die(figures):
    if figures["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

model = make_model("llama-tied")
unlearn(model, mask=mask_of(model), checkpoint_folder=sys.argv[1], on_step=die, **EVERY)
"""


def test_a_process_that_is_really_killed_goes_on_in_another_one(tmp_path):
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root / "src"), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["last.safetensors"]
    wanted, model = make_model("llama-tied"), make_model("llama-tied")
    expected = unlearn(wanted, mask=mask_of(wanted), **EVERY)
    told = []
    got = unlearn(
        model, mask=mask_of(model), checkpoint_folder=tmp_path, on_step=told.append, **EVERY
    )
    assert [figures["step"] for figures in told] == [5, 6, 7, 8]
    assert got == expected
    assert same(model, weights(wanted))


_ASKED = """
import os, signal, sys
from tests.conftest import make_model
from tests.unlearning.conftest import mask_of, unlearn
from tests.unlearning.training.test_checkpoints import EVERY
from wagle.system.progress import heed_signals

def ask(figures):
    if figures["step"] == 5:
        os.kill(os.getpid(), signal.SIGTERM)

heed_signals()
model = make_model("llama-tied")
settings = {**EVERY, "checkpoint_minutes": 60.0}  # not one is due
folder = sys.argv[1] or None
unlearn(model, mask=mask_of(model), checkpoint_folder=folder, on_step=ask, **settings)
"""


@pytest.mark.parametrize("lasting", [True, False])
def test_a_process_that_is_asked_to_end_finishes_its_step_and_keeps_it(tmp_path, lasting):
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root / "src"), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", _ASKED, str(tmp_path) if lasting else ""],
        env={**os.environ, "PYTHONPATH": path},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == "wagle.system.errors.Stopped"
    wanted, model = make_model("llama-tied"), make_model("llama-tied")
    expected = unlearn(wanted, mask=mask_of(wanted), **EVERY)
    told = []
    got = unlearn(
        model, mask=mask_of(model), checkpoint_folder=tmp_path, on_step=told.append, **EVERY
    )
    first = 6 if lasting else 1
    assert [figures["step"] for figures in told] == [*range(first, 9)]
    assert got == expected
    assert same(model, weights(wanted))


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"learning_rate": 2e-2}, "training"),
        ({"seed": 4}, "records, seed"),
        ({"objective": "npo"}, "objective"),
        ({"retain_term": "none"}, "records, objective"),
        ({"wrapper": "sam"}, "gradient"),
        ({"stop_when": ["forget.nll >= 100"]}, "rules"),
        ({"reference": {"forget.probability": 0.1}}, "rules"),
        ({"check_every": 1}, "rules"),
        ({"full_reference": "topk"}, "full_reference"),
        ({"mask": None}, "mask"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_in_one_line(change, differs, tmp_path):
    model = make_model("llama-tied")
    settings = {**EVERY, "mask": mask_of(model), "checkpoint_folder": tmp_path}
    with pytest.raises(Killed):
        unlearn(model, **settings, on_step=kill_at(3))
    model = make_model("llama-tied")
    before = weights(model)
    with pytest.raises(WagleError, match=rf"belongs to another run \({differs} differs\); delete"):
        unlearn(model, **{**settings, **change})
    assert same(model, before)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_checkpoint_is_a_line_that_says_to_delete_it_and_then_nothing_is_lost(
    tmp_path, damage
):
    settings = {**EVERY, "checkpoint_folder": tmp_path}
    with pytest.raises(Killed):
        unlearn(make_model("llama-tied"), **settings, on_step=kill_at(3))
    last = tmp_path / "last.safetensors"
    damage(last)
    with pytest.raises(WagleError, match=r"corrupt.*; delete it: training then resumes") as told:
        unlearn(make_model("llama-tied"), **settings)
    assert str(last) in str(told.value)
    last.unlink()
    model, wanted = make_model("llama-tied"), make_model("llama-tied")
    unlearn(model, **settings)
    unlearn(wanted, **EVERY)
    assert same(model, weights(wanted))


def test_what_does_not_change_the_result_may_change_before_a_run_goes_on(tmp_path):
    settings = {**EVERY, "checkpoint_folder": tmp_path}
    with pytest.raises(Killed):
        unlearn(make_model("llama-tied"), **settings, on_step=kill_at(3))
    got = unlearn(make_model("llama-tied"), **{**settings, "checkpoint_minutes": 5.0})
    assert len(got.history) == STEPS


def test_a_run_that_fails_does_not_go_back_to_the_best_checkpoint_of_another_one(tmp_path):
    settings = {**EVERY, "checkpoint_minutes": 5.0, "checkpoint_folder": tmp_path}
    with pytest.raises(Killed):
        unlearn(
            make_model("llama-tied"),
            **settings,
            best="min forget.nll",
            check_every=1,
            on_step=kill_at(3),
        )
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["best.safetensors"]

    def broken(forget):
        return forget.nll_mean * float("nan")

    model = make_model("llama-tied")
    before = weights(model)
    with pytest.raises(WagleError, match="the model is as it was before training"):
        unlearn(model, **settings, objective=broken)
    assert same(model, before)


# ---------------------------------------------------------------------------------------------
# The files


def _state(seed):
    model = make_model("llama-tied", seed)
    selected = SelectedWeights(model, mask_of(model, 0.1))
    optimizer = SophiaG([m for _, m in selected.named_masters()])
    return model, selected, optimizer


def test_masters_optimizer_state_and_more_come_back_as_they_were_saved(tmp_path):
    _, selected, optimizer = _state(0)
    for _, master in selected.named_masters():
        master.grad = torch.full_like(master, 0.5)
    optimizer.step()
    optimizer.update_curvature({m: torch.ones_like(m) for _, m in selected.named_masters()}, 3)
    more = {"a": torch.arange(3.0)}
    with Checkpoints(tmp_path / "c", {"seed": 0, "betas": (0.9, 0.99)}) as checkpoints:
        assert not checkpoints.has("last")
        checkpoints.save("last", selected, {"step": 4}, optimizer, more)
        assert checkpoints.has("last")
        kept = {n: t.clone() for n, t in selected.masters().items()}
        _, other, fresh = _state(1)
        masters, found, state = checkpoints.load("last", other, fresh)
    assert all(bits_equal(masters[n], kept[n]) for n in kept)
    assert (state, found["a"].tolist()) == ({"step": 4}, [0.0, 1.0, 2.0])
    for one, new in zip(selected.named_masters(), other.named_masters(), strict=True):
        old, loaded = optimizer.state[one[1]], fresh.state[new[1]]
        assert old.keys() == loaded.keys()
        assert all(bits_equal(old[k], loaded[k]) for k in old)


def test_the_files_are_private_and_outlive_the_process_only_in_a_folder_that_was_given(tmp_path):
    _, selected, _ = _state(0)
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.save("best", selected, {"step": 1})
        assert checkpoints.lasting
    path = tmp_path / "c" / "best.safetensors"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    checkpoints.clear()
    assert not path.exists()
    with Checkpoints(None, {}) as passing:
        passing.save("best", selected, {"step": 1})
        assert not passing.lasting
    assert not passing.folder.exists()


def test_a_checkpoint_of_other_weights_does_not_fit(tmp_path):
    _, selected, _ = _state(0)
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save("last", selected, {"step": 1})
        model = make_model("llama-tied")
        with pytest.raises(WagleError, match="does not fit the selected weights; delete it"):
            checkpoints.load("last", SelectedWeights(model, mask_of(model, 0.2)))


def fails(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    ("call", "does"),
    [("unlink", "drop"), ("unlink", "clear"), ("replace", "rename")],
)
def test_a_checkpoint_that_cannot_be_moved_or_deleted_is_one_line(
    tmp_path, monkeypatch, call, does
):
    (tmp_path / "last.safetensors").touch()
    checkpoints = Checkpoints(tmp_path, {})
    monkeypatch.setattr(os, call, fails)
    asked = {"drop": ["last"], "clear": [], "rename": ["last", "good"]}[does]
    with pytest.raises(WagleError, match=rf"^cannot write {tmp_path}.*: Read-only file system"):
        getattr(checkpoints, does)(*asked)
