"""Attacks on a model whose blocks are on disk: the figures of the whole one, and it is restored."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from tests.conftest import OTHERS, RECORDS, make_model
from wagle.attacks.kinds.relearning.curve import relearn
from wagle.attacks.shapes import Scene
from wagle.attacks.table import make_attack
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.models import Way
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.streaming.stream import Laid
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning.forgetting import forget_probability

TAUGHT = {"steps": (0, 1, 3), "learning_rate": 1e-2, "batch_size": 2}


@pytest.fixture
def scene(tokenizer):
    sets = {
        "forget": read_records(RECORDS, name="forget"),
        "retain": read_records(OTHERS[:4], name="retain"),
        "general": read_records(OTHERS, name="general"),
    }
    return Scene(Way(Encoder(tokenizer)), sets)


@pytest.fixture
def folder(tmp_path):
    make_model("llama-tied").save_pretrained(tmp_path)
    return tmp_path


def logits(model):
    ids = torch.randint(0, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits


def figures(series):
    return {
        (state, name): figure.value
        for state, found in series.states.items()
        for name, figure in found.items()
    }


ASKING = {  # an attack of each kind of request, and how often the model is read for it
    "probe": ({"readings": ["forget_or_holdout"]}, 1),
    "sampling": ({"samples": 3, "max_new_tokens": 6}, 6),
    "prompts": ({}, None),
    "relearning": ({**TAUGHT, "steps": [0, 1, 3], "share": 0.5}, None),
}


@pytest.mark.parametrize("attack", ASKING)
def test_an_attack_finds_what_it_finds_in_the_whole_model(scene, folder, attack):
    settings, sweeps = ASKING[attack]
    trial = make_attack(attack, scene, settings)
    whole = trial(make_model("llama-tied"))
    opened = open_streamed(folder)
    found = trial(opened)
    assert figures(found) == pytest.approx(figures(whole), rel=1e-5, abs=1e-6, nan_ok=True)
    assert found.texts == whole.texts
    if sweeps is not None:
        assert stream_of(opened).sweeps == sweeps


def relearned(model, tokenizer, **more):
    tokens = Encoder(tokenizer).encode(read_records(RECORDS))
    look = more.pop("look", lambda live: {"probability": forget_probability(live, tokens)})
    return relearn(model, tokenizer, RECORDS[:3], **{**TAUGHT, **more}, evaluate=look)


def test_the_curve_is_that_of_the_whole_model_and_the_model_is_what_it_was(folder, tokenizer):
    whole = relearned(make_model("llama-tied"), tokenizer)
    opened = open_streamed(folder)
    before, trained = logits(opened), set(stream_of(opened).trained)
    made = relearned(opened, tokenizer)
    assert made.losses == pytest.approx(whole.losses, rel=1e-5)
    assert made.rise("probability") == pytest.approx(whole.rise("probability"), rel=1e-4, abs=1e-7)
    assert made.points[3]["probability"] > 1.01 * made.points[0]["probability"]
    assert torch.equal(logits(opened), before)
    assert stream_of(opened).overlay == {}
    assert stream_of(opened).trained == trained
    again = relearned(opened, tokenizer)  # from where it was
    assert again.losses == made.losses


def test_it_is_restored_after_an_error_too(folder, tokenizer):
    opened = open_streamed(folder)
    before = logits(opened)
    looks = []

    def look(_):
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt
        return {"x": 0.0}

    with pytest.raises(KeyboardInterrupt):
        relearned(opened, tokenizer, look=look)
    assert torch.equal(logits(opened), before)
    with pytest.raises((TrainingStopped, WagleError)):
        relearned(opened, tokenizer, learning_rate=1e30, steps=(0, 9))
    assert torch.equal(logits(opened), before)


def test_a_patched_model_and_lora_are_refused_in_a_line(folder, tokenizer):
    opened = open_streamed(folder)
    if importlib.util.find_spec("peft") is not None:
        with pytest.raises(WagleError, match=r"leave lora out, or set evaluation\.engine: whole"):
            relearned(opened, tokenizer, lora=True)
    name = "model.layers.1.mlp.up_proj.weight"
    laid = Laid(torch.tensor([3], dtype=torch.int32), torch.ones(1))
    stream_of(opened).overlay[name] = laid
    with pytest.raises(WagleError, match="has been trained already; save it with"):
        relearned(opened, tokenizer)
    assert stream_of(opened).overlay == {name: laid}


def test_looks_use_the_budget_of_the_way(scene, folder):
    narrow = replace(scene, way=replace(scene.way, batch_tokens=20))
    settings = ASKING["relearning"][0]
    one, other = (
        figures(make_attack("relearning", s, settings)(open_streamed(folder)))
        for s in (scene, narrow)
    )
    assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
