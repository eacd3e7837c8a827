"""Set operations and comparison, against plain bool tensors."""

import pytest
import torch
from hypothesis import given

from tests.mask.made import N, bits, ladder, metadata, single, some, three_levels
from wagle.mask.algebra import Overlap
from wagle.mask.mask import Mask
from wagle.system.errors import WagleError

# ---------------------------------------------------------------------------------------------
# Sets


@given(some, some)
def test_set_operations_equal_those_of_plain_bools(a, b):
    pairs = list(zip(a, b, strict=True))
    wanted = {
        "union": [x or y for x, y in pairs],
        "intersection": [x and y for x, y in pairs],
        "difference": [x and not y for x, y in pairs],
    }
    made = {
        "union": lambda: single(a) | single(b),
        "intersection": lambda: single(a) & single(b),
        "difference": lambda: single(a) - single(b),
    }
    for name, chosen in wanted.items():
        if not any(chosen):
            with pytest.raises(WagleError, match=rf"the {name} of the masks .* selects no weight"):
                made[name]()
            continue
        mask = made[name]()
        assert bits(mask) == chosen
        assert mask.count == sum(chosen)
        assert mask.ratio == sum(chosen) / N
        assert mask.metadata["score"] == name
        assert len(mask.metadata["settings"]["of"]) == 2


@given(three_levels)
def test_the_complement_of_a_ladder_is_the_ladder_of_complements(levels):
    mask = ladder(levels, [0.1, 0.5, 0.9])
    counts = [N - count for count in reversed(mask.counts)]
    if counts[0] == 0:
        with pytest.raises(WagleError, match=r"ratio 0\.9 selects every candidate weight"):
            mask.complement()
    elif len(set(counts)) == 3:  # equal counts are equal ratios, which no ladder has
        other = mask.complement()
        assert list(other.counts) == counts
        for ratio, mine in zip(reversed(mask.ratios), other.ratios, strict=True):
            assert bits(other.at(mine)) == [not bit for bit in bits(mask.at(ratio))]


@given(some.filter(lambda chosen: not all(chosen)))
def test_the_complement_of_the_complement_selects_the_same(chosen):
    mask = single(chosen)
    assert bits(mask.complement().complement()) == bits(mask)
    assert mask.complement().count + mask.count == N


def test_a_complement_stays_inside_the_candidate_parameters():
    inside = ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    chosen = [False] * 15 + [True] * 20 + [False] * (N - 35)
    mask = single(chosen, candidates=24, names=inside)
    other = mask.complement()
    assert other.count == 4
    assert other.ratio == 4 / 24
    assert {name for name, tensor in other.items() if tensor.any()} == set(inside)
    assert other.metadata["names"] == inside


def test_candidates_of_a_union_are_those_of_either_and_of_an_intersection_those_of_both():
    up, norm = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
    in_up = [False] * 15 + [True] * 5 + [False] * (N - 20)
    a = single(in_up, candidates=21, names=[up])
    b = single([x or i >= N - 2 for i, x in enumerate(in_up)], candidates=24, names=[norm, up])
    assert (a | b).metadata["names"] == [up, norm]
    assert (a | b).ratio == 7 / 24
    assert (a & b).metadata["names"] == [up]
    assert (a & b).ratio == 5 / 21
    assert (b - a).ratio == 2 / 24
    assert (a | single([True] * N)).metadata["names"] is None


def test_how_a_mask_was_made_is_kept_short():
    a, b = single([True] + [False] * (N - 1)), single([False, True] + [False] * (N - 2))
    again = (a | b) | single([True] * N)
    assert again.metadata["settings"] == {
        "of": [f"union ratio={2 / N:g}", "random seed=3 ratio=1"],
    }


def test_masks_of_two_models_or_shapes_and_ladders_are_not_combined():
    mask = single([True] * N)
    with pytest.raises(WagleError, match="belong to different models, a1a1a1 and b2b2b2"):
        mask | single([True] * N, model="b2" * 32)
    other = Mask.from_levels(
        {"x": torch.ones(2, dtype=torch.uint8)}, ratios=[1.0], counts=[2], metadata=metadata()
    )
    with pytest.raises(WagleError, match="the masks do not fit together"):
        mask & other
    with pytest.raises(WagleError, match=r"choose one with mask.at\(ratio\)"):
        mask - ladder([1] * N, [0.1, 0.5])
    with pytest.raises(TypeError):
        mask | {"x": 1}


def test_a_mask_that_hides_its_candidates_has_no_complement():
    mask = single([True] + [False] * (N - 1), candidates=24)
    with pytest.raises(WagleError, match="does not say which parameters it selects from"):
        mask.complement()


# ---------------------------------------------------------------------------------------------
# Comparison


@given(some, some)
def test_a_comparison_counts_what_plain_bools_count(a, b):
    found = single(a).compare(single(b))
    both = sum(x and y for x, y in zip(a, b, strict=True))
    either = sum(x or y for x, y in zip(a, b, strict=True))
    assert (found.overall.a, found.overall.b, found.overall.both) == (sum(a), sum(b), both)
    assert found.overall.jaccard == both / either
    assert found.overall.coefficient == both / min(sum(a), sum(b))
    assert found.overall.weights == sum(place.weights for place in found.places.values()) == N
    assert list(found.places) == ["model.embed_tokens.weight", "0", "1", "model.norm.weight"]
    assert found.same_model


def test_the_agreement_by_chance_is_worked_out_per_parameter_and_plainly():
    # A and B fill block 0 (21 weights) and leave the rest: they agree there whatever they choose
    block = [False] * 15 + [True] * 21 + [False] * 11
    found = single(block).compare(single(block))
    assert found.overall.chance == 21.0
    assert found.overall.chance_jaccard == 1.0
    assert found.plain_chance == pytest.approx((21 / 47) / (2 - 21 / 47))  # rho / (2 - rho)
    assert found.places["1"].jaccard is None
    assert found.places["1"].coefficient is None


def test_plain_chance_knows_the_candidates_of_each_mask():
    up = "model.layers.0.mlp.up_proj.weight"
    a = single([False] * 15 + [True] * 7 + [False] * 25, candidates=21, names=[up])
    b = single([True] * 10 + [False] * 37)
    both = 7 / 21 * 10 / 47 * 21
    assert a.compare(b).plain_chance == pytest.approx(both / (7 + 10 - both))


def test_the_agreement_of_random_masks_is_what_chance_says():
    size, generator = 200_000, torch.Generator().manual_seed(0)
    masks = []
    for density in (0.3, 0.6):
        level = (torch.rand(size, generator=generator) < density).to(torch.uint8)
        about = metadata(candidates=size)
        count = int(level.sum())
        masks.append(
            Mask.from_levels({"w": level}, ratios=[density], counts=[count], metadata=about)
        )
    found = masks[0].compare(masks[1])
    # the overlap is hypergeometric: a standard deviation of 0.0006 of its mean of 36,000
    assert found.overall.both == pytest.approx(found.overall.chance, rel=5 * 0.003)
    assert found.overall.jaccard == pytest.approx(0.18 / 0.72, rel=0.02)
    assert found.plain_chance == pytest.approx(found.overall.chance_jaccard)


def test_masks_of_related_models_may_be_compared_and_it_is_noted():
    found = single([True] * N).compare(single([True] * N, model="b2" * 32))
    assert not found.same_model
    assert found.overall.jaccard == 1.0


def test_overlaps_add_up():
    assert Overlap(4, 1, 2, 1, 0.5) + Overlap(6, 3, 0, 0, 0.0) == Overlap(10, 4, 2, 1, 0.5)
