"""Masks made of masks and names."""

import math

import pytest
import torch

from tests.attribution.scoring.made import (
    SHAPES,
    TOTAL,
    as_sets,
    make_store,
)
from wagle.attribution.scoring import candidates
from wagle.mask.mask import Mask
from wagle.system.errors import WagleError


def test_a_mask_at_random_like_another_has_its_counts_in_every_tensor(store):
    other = Mask.from_scores(store, ratio=[0.1, 0.3, 1.0], exclude=["norms"])
    like = Mask.from_scores(store, score={"random_like": other}, seed=3)
    assert (like.ratios, like.counts) == (other.ratios, other.counts)
    assert like.metadata["names"] == other.metadata["names"]
    draws = {n: candidates.uniform_chunk(3, n, 0, math.prod(s)) for n, s in SHAPES.items()}
    for here, there in zip(as_sets(like), as_sets(other), strict=True):
        for name in SHAPES:
            count = int(there[name].sum())
            top = draws[name].argsort(descending=True)[:count]
            assert set(here[name].view(-1).nonzero().view(-1).tolist()) == set(top.tolist())


def test_a_complement_is_what_a_mask_leaves_out_of_its_candidates(store, tmp_path):
    other = Mask.from_scores(store, ratio=0.3, exclude=["norms"])
    other.save(tmp_path / "mask")
    rest = Mask.from_scores(store, score={"complement": tmp_path / "mask"})
    for name in SHAPES:
        expected = torch.zeros(SHAPES[name], dtype=torch.bool) if "ln_" in name else ~other[name]
        assert torch.equal(rest[name], expected)
    assert rest.count == other.candidates - other.count
    assert rest.ratio == rest.count / other.candidates
    assert rest.metadata["score"] == "complement"
    assert rest.metadata["score_histogram"] is None


def test_a_mask_by_name_has_all_the_weights_that_match(store):
    mask = Mask.from_scores(store, score={"by_name": ["ffn", "norms"]}, exclude=["embeddings"])
    for name in SHAPES:
        assert mask[name].all() == mask[name].any() == (".mlp." in name or "ln_" in name)
    assert mask.candidates == TOTAL - 28
    assert mask.ratio == mask.count / mask.candidates
    assert mask.metadata["settings"] == {"patterns": ["ffn", "norms"]}
    with pytest.raises(WagleError, match="the pattern 'embeddings' matches no parameter"):
        Mask.from_scores(store, score={"by_name": ["embeddings"]}, exclude=["embeddings"])


def test_a_mask_of_another_model_is_refused(store, tmp_path):
    other = make_store()
    other.metadata["model"]["fingerprint"] = "3f9c12aa"
    mask = Mask.from_scores(other, ratio=0.3)
    mask.save(tmp_path / "m")
    for value in (mask, str(tmp_path / "m")):
        for kind in ("random_like", "complement"):
            with pytest.raises(
                WagleError, match=r"belongs to model 3f9c12, but this .* a71b80; make"
            ):
                Mask.from_scores(store, score={kind: value})
    with pytest.raises(WagleError, match="the candidates of its mask; remove include and exclude"):
        Mask.from_scores(store, score={"complement": mask}, include=["ffn"])


@pytest.mark.parametrize("kind", ["random_like", "complement", "by_name"])
def test_masks_of_masks_are_saved_and_read_like_others(store, tmp_path, kind):
    other = Mask.from_scores(store, ratio=[0.1, 0.3])
    mask = Mask.from_scores(store, score={kind: ["ffn"] if kind == "by_name" else other})
    mask.save(tmp_path / "mask")
    again = Mask.load(tmp_path / "mask")
    assert again.describe() == mask.describe()
    assert again.at(again.ratios[0]).count == again.counts[0]
