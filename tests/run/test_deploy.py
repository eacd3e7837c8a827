"""What is served is part of the verdict: the stage, its files, the table and the page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import LEAKS
from wagle.model.gguf_file import is_gguf
from wagle.recipe.reading import load_recipe
from wagle.report.text.run import summary_table
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.run.stages.measuring import after as judging
from wagle.run.stages.measuring import deploy
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import read_json
from wagle.system.files.seals import sha256_of

FORMS = ["int8", "f16"]
TRAINING = {"learning_rate": 5e-3, "batch_size": 6}


def write_recipe(home, **more):
    make_model("llama-tied").save_pretrained(home / "tiny")
    make_tokenizer().save_pretrained(home / "tiny")
    for name, rows in (("forget", RECORDS), ("retain", OTHERS)):
        (home / f"{name}.json").write_text(json.dumps(rows))
    recipe = {
        "name": "tiny",
        "model": str(home / "tiny"),
        "reference": "untaught",
        "forget": str(home / "forget.json"),
        "retain": str(home / "retain.json"),
        "finetune": {**TRAINING, "epochs": 5},
        "unlearning": {**TRAINING, "epochs": 2},
        "evaluation": {"generate": False},
        "deploy": FORMS,
        **more,
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return load_recipe(home / "recipe.yaml")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished run that serves three forms."""
    home = tmp_path_factory.mktemp("deploy")
    execute(write_recipe(home), home / "run")
    return home


@pytest.fixture
def run(home):
    return Run(home / "run", load_recipe(home / "recipe.yaml"))


def test_every_form_is_asked_what_the_model_is_asked(run):
    plain = run.evaluation("after")
    for form in FORMS:
        found = run.evaluation("served", form)
        assert found.figures["forget"].keys() == plain.figures["forget"].keys()
        gap = found.figures["forget"]["probability"].value
        gap -= plain.figures["forget"]["probability"].value
        assert abs(gap) < 0.05
        assert found.details["data"]["sets"] == plain.details["data"]["sets"]
    near = run.evaluation("served", "f16").figures["forget"]["probability"].value
    assert near == pytest.approx(plain.figures["forget"]["probability"].value, abs=1e-4)


def test_the_file_that_was_judged_stays_and_is_told_by_its_digest(run):
    file = run.folder / "served" / "model-f16.gguf"
    assert is_gguf(file)
    told = run.evaluation("served", "f16").details["model"]
    assert told["fingerprint"] == sha256_of(file)
    assert told["fingerprint_of"] == "the file"
    assert [path.name for path in (run.folder / "served").iterdir()] == ["model-f16.gguf"]


def test_table_and_page_have_a_row_per_form(run):
    table = " ".join(summary_table(run.folder).split())
    page = (run.folder / "report.html").read_text()
    section = page[page.index('id="served"') :]
    for form in FORMS:
        assert f"served {form}: forget.probability" in table
        assert f">{form}</th>" in section
    assert deploy.COMPARED in table
    assert "as it is" in section
    assert set(read_json(run.folder / "evaluation.json")["served"]) == set(FORMS)


@pytest.mark.parametrize(("served", "leaks"), [("reference", False), ("before", True)])
def test_a_leak_of_one_form_is_a_leak_of_the_run(run, monkeypatch, served, leaks):
    """The model is as the reference; one form is as the reference, or as the model before."""
    figures = {role: run.evaluation(role).figures for role in ("before", "reference")}
    sides = {"after": "reference", "served-f16": "reference", "served-int8": served}
    monkeypatch.setattr(judging, "measure", lambda *_: {})
    kept = {}
    try:
        for name, like in sides.items():
            path = run.folder / "evaluation" / f"{name}.json"
            kept[path] = path.read_text()
            own = Evaluation.from_json(read_json(path))
            write_json(path, replace(own, figures=figures[like]).to_json())
        names = [path.relative_to(run.folder).as_posix() for path in kept]
        run.reseal(names)
        found = judging.after(run)
    finally:
        for path, text in kept.items():
            path.write_text(text)
        run.reseal(names)
    assert (found["verdict"] == LEAKS) == leaks
    assert (found["served"]["int8"]["verdict"] == LEAKS) == leaks
    assert found["served"]["f16"]["verdict"] != LEAKS
    assert any(line.startswith("served as int8: ") for line in found["reasons"])


@pytest.mark.parametrize(
    ("forms", "said"),
    [
        (["q4_0", "nf5"], "unknown form 'nf5'; did you mean 'nf4'"),
        (["q4_k_m"], "q4_k_m needs llama.cpp's quantiser: pip install llama-cpp-python"),
    ],
)
def test_a_form_that_cannot_be_made_is_refused_before_any_work(tmp_path, forms, said, monkeypatch):
    monkeypatch.setattr("wagle.model.quantization.kinds._quantizer", lambda: None)
    with pytest.raises(WagleError, match=said):
        execute(write_recipe(tmp_path, deploy=forms), tmp_path / "run")
    assert not (tmp_path / "run" / "base").exists()


def test_a_form_named_twice_is_refused(tmp_path):
    with pytest.raises(WagleError, match=r"deploy\[1\] repeats 'int8'; remove it"):
        write_recipe(tmp_path, deploy=["int8", "int8"])
