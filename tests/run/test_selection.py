"""Which weights train: those of the mask, all of them, or all of an adapter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unlearning.conftest import mask_of
from wagle.mask.mask import Mask
from wagle.recipe.reading import load_recipe
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask, unmasked
from wagle.run.stages.making.gradients import asked_quantities, no_mask


def recipe(unlearning=None, attribution=None):
    return load_recipe(
        {
            "name": "x",
            "model": "demo",
            "forget": "demo:forget",
            "retain": "demo:retain",
            "unlearning": unlearning or {},
            "attribution": attribution or {},
        }
    )


@pytest.mark.parametrize(
    ("unlearning", "attribution", "why"),
    [
        ({}, {}, None),
        ({}, {"ratio": 0.5}, None),
        ({"lora": {}}, {}, "LoRA trains its whole adapter: there is no mask"),
        ({"lora": {"masked": True}}, {}, None),
        ({"dynamic_mask": "sign_agreement"}, {}, "all weights, selected afresh at every step"),
        ({"dynamic_mask": "sign_agreement"}, {"ratio": 0.5}, None),
    ],
)
def test_there_is_a_mask_unless_all_weights_train_and_then_it_is_said_why(
    unlearning, attribution, why
):
    found = unmasked(recipe(unlearning, attribution))
    assert (found is None) is (why is None)
    assert why is None or (found or "").startswith(why)


@pytest.fixture
def folder(tmp_path):
    """A run folder with a mask of one ratio."""
    mask_of(nn.Linear(8, 8), 0.25).save(tmp_path / "mask.safetensors")
    return tmp_path


def test_the_mask_of_a_run_is_read_from_its_folder(folder):
    found = chosen_mask(Run(folder, recipe()))
    assert found is not None
    assert found.ratio == 0.25
    assert found.digest() == Mask.load(folder / "mask.safetensors").digest()


def test_of_a_ladder_the_ratio_that_the_recipe_uses_is_taken(tmp_path):
    levels = {"weight": torch.tensor([[2, 1], [0, 1]], dtype=torch.uint8)}
    metadata = {"model": "0" * 64, "candidates": 4}
    ladder = Mask.from_levels(levels, ratios=[0.25, 0.75], counts=[1, 3], metadata=metadata)
    ladder.save(tmp_path / "mask.safetensors")
    for use, selected in (
        (0.25, [[True, False], [False, False]]),
        (0.75, [[True, True], [False, True]]),
    ):
        found = chosen_mask(Run(tmp_path, recipe(None, {"ratio": [0.25, 0.75], "use": use})))
        assert found is not None
        assert (found.ratio, found["weight"].tolist()) == (use, selected)


def test_a_dense_arm_and_a_plain_adapter_have_no_mask_even_where_a_file_is_there(folder):
    assert chosen_mask(Run(folder, recipe(), arm="dense")) is None
    assert chosen_mask(Run(folder, recipe({"lora": {}}))) is None
    assert chosen_mask(Run(folder, recipe(), arm="random")) is not None


@pytest.mark.parametrize(
    ("asked", "collected"),
    [
        ({"score": "magnitude"}, []),
        ({"score": "wagle"}, ["grad_forget", "grad_retain"]),
        ({"score": "magnitude", "quantities": ["square_retain"]}, ["square_retain"]),
        (
            {"score": "wagle", "quantities": ["square_retain"]},
            ["grad_forget", "grad_retain", "square_retain"],
        ),
    ],
)
def test_the_gradient_pass_collects_what_the_score_needs_and_what_the_recipe_adds(asked, collected):
    assert asked_quantities(recipe(None, asked).attribution) == collected


def test_a_stage_that_makes_no_mask_says_why_and_has_read_no_records():
    assert no_mask("because") == {"records": None, "skipped": "because"}
