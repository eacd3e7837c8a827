"""What arguments are, and what is made ready for them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from bench.published import WAGLE

from wagle.mask.mask import Mask
from wagle.recipe.published.imported import MaskFile
from wagle.run.importing.finding import Asked, find_any, find_import
from wagle.run.importing.masks import make_mask


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(WAGLE["Tofu/GradDiff+WAGLE"]))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_what_is_missing_is_named_once_and_a_mask_file_stands_for_the_published_mask():
    found = find_import(["config.json"], Asked())
    paths = ["TOFU", "tofu_ft_llama2-7b", "./mask/tofu_0.95.pt"]
    assert [one.path for one in found.missing] == paths
    Path("tofu_0.95.safetensors").touch()
    Path("TOFU").mkdir()
    assert [one.path for one in find_import(["config.json"], Asked()).missing] == paths[1:2]


@pytest.mark.usefixtures("here")
def test_the_recipes_own_settings_have_the_last_word_and_are_written():
    found = find_import(
        ["config.json", "unlearning.max_steps=7", "--unlearn.max_steps", "9"], Asked()
    )
    assert found.recipe.unlearning.max_steps == found.made.recipe["unlearning"]["max_steps"] == 7


def test_a_recipe_of_its_own_is_found_as_ever():
    recipe, folder, notes = find_any("demo", ["seed=3"], None)
    assert (recipe.seed, folder, notes) == (3, Path("runs/demo"), [])


def test_a_mask_is_converted_once_and_again_if_it_changed(here, model, model_folder):
    ones = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}
    torch.save(ones, here / "m.pt")
    mask = MaskFile("m.pt", "m.safetensors")
    make_mask(mask, str(model_folder))
    assert Mask.load("m.safetensors").ratios == (1.0,)
    Path("m.safetensors").write_bytes(b"kept")
    make_mask(mask, str(model_folder))
    assert Path("m.safetensors").read_bytes() == b"kept"
    os.utime("m.pt", (2**33, 2**33))
    make_mask(mask, str(model_folder))
    assert Mask.load("m.safetensors").ratios == (1.0,)
