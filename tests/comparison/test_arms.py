"""Arms: which are known, and which weights each of them moves."""

from __future__ import annotations

import pytest
import torch

import wagle
from wagle.attribution.scoring.scores import SCORES
from wagle.comparison.arms import (
    ARMS,
    ArmMasks,
    Cell,
    arm_quantities,
    cells_of,
    read_arms,
    read_ratios,
)
from wagle.recipe.sections.attribution import Attribution
from wagle.system.errors import WagleError


def test_every_score_is_an_arm_and_so_are_the_controls():
    assert {*SCORES, "random_like", "complement", "dense", "lora"} == set(ARMS)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["wagel", "random"], "unknown arm 'wagel'; did you mean 'wagle'?"),
        (["wagle", "random", "wagle"], "the arm wagle is given twice"),
        (["wagle", "dense"], "do not include random"),
        (["random"], "random alone is not a comparison"),
        (["dense", "random", "complement"], "complement refers to the mask of the first arm"),
        (["random_like", "random"], "random_like refers to the mask of the first arm"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(arms, message):
    with pytest.raises(WagleError, match=message.replace("?", r"\?")):
        read_arms(arms)


def test_ratios_are_sorted_and_checked():
    assert read_ratios(["0.5", "0.05"]) == [0.05, 0.5]
    for wrong, message in (
        (["0.5", "half"], "not all numbers"),
        (["0.5", "1.5"], "outside"),
        ([0.5, "0.5"], "without repeats"),
    ):
        with pytest.raises(WagleError, match=message):
            read_ratios(wrong)


def test_an_arm_without_a_ratio_is_one_cell():
    cells = cells_of(["wagle", "dense", "random"], [0.05, 0.5])
    names = ["wagle@0.05", "random@0.05", "wagle@0.5", "random@0.5", "dense"]
    assert [cell.name for cell in cells] == names


def test_the_quantities_of_all_arms_are_collected_once():
    settings = Attribution()
    arms = ["wagle", "fisher", "random_like", "magnitude", "dense"]
    assert arm_quantities(arms, settings) == ["grad_forget", "grad_retain", "fisher_retain"]
    assert arm_quantities(["random", "magnitude", "lora"], settings) == []


@pytest.fixture(scope="module")
def make_masks(tmp_path_factory):
    from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer

    store = wagle.gradients(make_model("llama-tied"), make_tokenizer(), RECORDS, OTHERS)

    def make(seed=0, **settings):
        folder = tmp_path_factory.mktemp("masks")
        return ArmMasks(store, folder, "wagle", [0.1, 0.5], Attribution(**settings), seed)

    return make


def counts(mask):
    return {name: int(chosen.sum()) for name, chosen in mask.items()}


def test_a_cell_has_the_mask_of_its_arm_at_its_ratio(make_masks):
    masks = make_masks()
    found = masks.of(Cell("wagle", 0.1))
    alone = wagle.Mask.from_scores(masks.store, score="wagle", ratio=0.1)
    assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert masks.of(Cell("dense", None)) is None
    assert masks.of(Cell("lora", None)) is None


def test_random_like_and_complement_follow_the_first_arm(make_masks):
    masks = make_masks()
    first = masks.of(Cell("wagle", 0.1))
    like, rest = masks.of(Cell("random_like", 0.1)), masks.of(Cell("complement", 0.1))
    assert counts(like) == counts(first)
    assert any(not torch.equal(like[name], first[name]) for name in first)
    assert all(torch.equal(rest[name], ~first[name]) for name in first)


def test_a_mask_is_made_once_and_then_read_from_its_file(make_masks):
    masks = make_masks()
    masks.of(Cell("random_like", 0.5))
    stamps = {p.name: p.stat().st_mtime_ns for p in masks.folder.iterdir()}
    assert set(stamps) == {"wagle.safetensors", "random_like.safetensors"}
    masks.of(Cell("complement", 0.1))
    assert stamps == {p.name: p.stat().st_mtime_ns for p in masks.folder.iterdir()}


def test_units_have_random_masks_of_their_own(make_masks):
    one, other = (make_masks(seed).of(Cell("random", 0.5)) for seed in (0, 1))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_settings_of_a_score_count_for_the_score_of_the_recipe_only(make_masks):
    masks = make_masks(score="grad_ratio", score_settings={"eps": 1.0})
    own, plain = (m.of(Cell("grad_ratio", 0.1)) for m in (masks, make_masks()))
    assert own.metadata["settings"]["eps"] == 1.0
    assert plain.metadata["settings"]["eps"] == 1e-12
    assert "eps" not in masks.of(Cell("wagle", 0.1)).metadata["settings"]
