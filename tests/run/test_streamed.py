"""A run that is asked and attacked with one block in memory has the figures of the other."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.cli import app as cli
from wagle.evaluation.served import engines
from wagle.model.streaming.opening import stream_of
from wagle.patch.extraction import extract
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json


@pytest.fixture
def recipe(tmp_path):
    """A recipe with attacks of all kinds of requests."""
    make_model("llama-tied").save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    for name, rows in (("forget", RECORDS), ("retain", OTHERS[:4]), ("general", OTHERS[4:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    training = {"learning_rate": 5e-3, "batch_size": 4, "epochs": 2, "engine": "whole"}
    sets = {name: str(tmp_path / f"{name}.json") for name in ("forget", "retain", "general")}
    found = {
        "name": "tiny",
        "model": str(tmp_path / "tiny"),
        **sets,
        "attribution": {"ratio": 0.5},
        "unlearning": {**training, "when_unknown": "go"},
        "evaluation": {"max_new_tokens": 5},
        "attacks": [
            {"name": "probe", "settings": {"readings": ["forget_or_holdout"]}},
            {"name": "relearning", "settings": {"steps": [0, 2], "learning_rate": 5e-3}},
            {"name": "sampling", "settings": {"samples": 2, "max_new_tokens": 4}},
        ],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(found))
    return tmp_path / "recipe.yaml"


def figures(folder):
    """All figures of evaluations and attacks, by file and place."""
    files = sorted([*folder.glob("evaluation/*.json"), *folder.glob("attacks/*.json")])
    return figures_of({file.name: read_json(file) for file in files})


def figures_of(told):
    """All figures in nested dictionaries, by their places."""
    found = {}

    def walk(at, value):
        if isinstance(value, dict):
            if isinstance(value.get("value"), float):
                found[at] = value["value"]
            for key, inside in value.items():
                walk((*at, key), inside)

    walk((), told)
    return found


def test_every_figure_of_a_run_is_the_same(recipe, tmp_path, monkeypatch):
    opened = []
    own = engines.open_streamed
    monkeypatch.setattr(
        engines,
        "open_streamed",
        lambda *args, **how: opened.append(own(*args, **how)) or opened[-1],
    )
    whole = execute(
        load_recipe(recipe, ["evaluation.engine=whole"]), tmp_path / "w", until="attacks"
    )
    assert not opened
    run = execute(
        load_recipe(recipe, ["evaluation.engine=stream"]), tmp_path / "s", until="attacks"
    )
    one, other = figures(whole.folder), figures(run.folder)
    assert len(one) > 60
    assert other == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert sum(stream_of(model).sweeps > 0 for model in opened) > 4


def test_the_command_takes_an_engine_and_patches(recipe, tmp_path):
    model = make_model("llama-tied", seed=1)
    model.save_pretrained(tmp_path / "made")
    make_tokenizer().save_pretrained(tmp_path / "made")
    extract(tmp_path / "tiny", tmp_path / "made", tmp_path / "p.safetensors")
    words = ["--benchmark", "qa", f"forget={tmp_path / 'forget.json'}"]
    found = []
    for source in (
        [str(tmp_path / "made"), "--engine", "whole"],
        [str(tmp_path / "tiny"), "--patch", str(tmp_path / "p.safetensors"), "--engine", "stream"],
    ):
        out = tmp_path / f"{source[-1]}.json"
        command = ["evaluate", *source, *words, "evaluation.max_new_tokens=4", "--out", str(out)]
        assert not cli.app(command, standalone_mode=False)
        found.append(figures_of(read_json(out)))
    assert len(found[0]) > 5
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    with pytest.raises(WagleError, match="--engine needs --benchmark; without it, set this in the"):
        cli.app(["evaluate", str(recipe), "--engine", "stream"], standalone_mode=False)
