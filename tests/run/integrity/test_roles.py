"""Which models a run compares, and when it refuses them."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.evaluation.figures import mean_figure
from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.integrity.roles import run_roles
from wagle.run.opening import Run
from wagle.run.stages.measuring import before as stage
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json


@pytest.fixture
def home(tmp_path):
    make_model("llama-tied").to(torch.bfloat16).save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    write_json(tmp_path / "forget.json", RECORDS[:3])
    write_json(tmp_path / "retain.json", OTHERS[:3])
    return tmp_path


def recipe(home, **more):
    return load_recipe(
        {
            "name": "tiny",
            "model": str(home / "tiny"),
            "forget": str(home / "forget.json"),
            "retain": str(home / "retain.json"),
            "attribution": {"ratio": 0.5},
            "evaluation": {"generate": False},
            **more,
        }
    )


@pytest.mark.parametrize("how", ["itself", "a copy", "a wider copy", "its base"])
def test_a_reference_that_is_the_base_is_refused_before_any_work(home, how):
    other = home / "other"
    more = {}
    if how == "itself":
        other = home / "tiny"
    elif how == "a copy":
        shutil.copytree(home / "tiny", other)
    elif how == "a wider copy":
        make_model("llama-tied").to(torch.bfloat16).float().save_pretrained(other)
    else:
        shutil.copytree(home / "tiny", home / "out" / "base")
        other, more = home / "out" / "base", {"finetune": {"max_steps": 1}}
        (home / "out" / "recipe.yaml").touch()
    asked = recipe(home, reference=str(other), **more)
    with pytest.raises(
        WagleError, match=r"is a model of this run itself .* name a model that never"
    ):
        execute(asked, home / "out")
    assert not (home / "out" / "state.json").exists()


def test_another_model_is_a_reference(home):
    make_model("llama-tied", 1).save_pretrained(home / "other")
    make_tokenizer().save_pretrained(home / "other")
    asked = recipe(home, reference=str(home / "other"))
    run = execute(asked, home / "out", until="before")
    roles = run_roles(run, asked)
    assert roles["model"] == {"path": str(home / "out/model"), "fingerprint": None, "kind": "model"}
    before, reference = roles["before"], roles["reference"]
    assert before
    assert reference
    assert (before["path"], reference["path"]) == (asked.model.path, asked.reference)
    assert before["fingerprint"] == run.evaluation("before").details["model"]["fingerprint"]
    assert before["fingerprint"] != reference["fingerprint"]


def test_a_run_without_reference_has_two_roles(home):
    assert run_roles(Run(home / "out", recipe(home)), recipe(home))["reference"] is None


@pytest.mark.parametrize(
    ("reference", "path"), [("untaught", "bundled:demo"), ("retrained", "out/retrained")]
)
def test_a_reference_that_the_run_makes_has_its_kind_and_the_models_name(home, reference, path):
    asked = recipe(home, model="bundled:demo", reference=reference, finetune={})
    roles = run_roles(Run(home / "out", asked), asked)
    told = roles["reference"]
    assert told is not None
    assert told["path"] in (path, str(home / path))
    assert told["kind"] == reference
    assert roles["before"] is not None
    assert roles["before"]["path"] == str(home / "out/base")


def test_a_reference_that_knows_ends_the_run_before_unlearning(home, monkeypatch):
    asked = recipe(home, reference=str(home / "tiny"), unlearning={"when_unknown": "go"})
    run = Run(home / "out", asked)

    def measure(own, role, folder):
        for one in ("before", "reference"):
            rows = {f"forget[{i}]": 0.9 - i / 100 for i in range(4)}
            found = {"forget": {"probability": mean_figure(rows, unit="share")}}
            write_json(own.folder / f"evaluation/{one}.json", Evaluation(found).to_json())
        return {"summary": {role: str(folder)}}

    monkeypatch.setattr(stage, "measure", measure)
    with pytest.raises(WagleError, match=r"reference .*/tiny \(.* knows the forget set as well as"):
        run.carry_out("before", lambda: stage.before(run))
    assert run.state == {"stages": {}}
