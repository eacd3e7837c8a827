"""A mask selected by several processes is that of one, bit for bit, ties and all."""

from __future__ import annotations

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.processes import on
from wagle.attribution.scoring import candidates
from wagle.attribution.store import GradientStore

EVERY = ["grad_forget", "grad_retain", "square_retain", "input_square"]
CASES = [
    {"ratio": 0.3},
    {"ratio": [0.01, 0.2, 0.9]},
    {"ratio": 0.5, "score": "random"},
    {"ratio": 0.25, "scope": "tensor"},
    {"ratio": 0.25, "scope": "row"},
    {"ratio": 0.25, "scope": "block", "gamma": "curvature"},
    {"ratio": 0.4, "score": "wanda"},
    {"ratio": 0.1, "score": "wagle_gauss_newton"},
    {"ratio": 0.35, "score": "rounded"},
]


def rounded(weight):
    return (weight * 20).round()  # a handful of different scores: mostly ties


def make(store, asked):
    candidates._CHUNK = 1000  # of 28,000 weights
    if asked.get("score") == "rounded":
        asked = {**asked, "score": rounded}
    made = wagle.Mask.from_scores(store, **asked)
    return made.digest(), made.describe(), {n: made.level(n) for n in made.shapes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("stores")
    model = make_model("llama-tied")
    wagle.gradients(model, make_tokenizer(), RECORDS, OTHERS, path=home / "store", quantities=EVERY)
    return home / "store"


@pytest.mark.parametrize("world", [2, 3])
def test_the_mask_is_that_of_one_process(folder, world, monkeypatch):
    monkeypatch.setattr(candidates, "_CHUNK", candidates._CHUNK)
    alone = [make(GradientStore.open(folder), asked) for asked in CASES]
    for found in on(world, _make_all, folder):
        for asked, one, other in zip(CASES, alone, found, strict=True):
            assert all(torch.equal(one[2][n], other[2][n]) for n in one[2]), asked
            assert other[:2] == one[:2], asked


def _make_all(folder):
    return [make(GradientStore.open(folder), asked) for asked in CASES]


def test_a_score_that_is_not_finite_is_an_error_of_all(folder):
    for said in on(3, _not_finite, folder):
        assert "is not finite" in said


def _not_finite(folder):
    try:
        wagle.Mask.from_scores(GradientStore.open(folder), ratio=0.5, score=not_finite)
    except wagle.WagleError as error:
        return str(error)
    return "no error"


def not_finite(weight):
    return torch.where(weight == weight.max(), torch.inf, weight)
