"""Building masks piece by piece, set operations and comparison, against plain bool tensors."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.mask.algebra import Overlap
from wagle.mask.mask import Mask, MaskWriter
from wagle.system.errors import WagleError

SHAPES = {
    "model.embed_tokens.weight": (5, 3),
    "model.layers.0.mlp.up_proj.weight": (3, 7),
    "model.layers.1.mlp.up_proj.weight": (4, 2),
    "model.norm.weight": (3,),
}
N = sum(math.prod(shape) for shape in SHAPES.values())


def metadata(**changes):
    base = {"score": "random", "settings": {"seed": 3}, "candidates": N, "thresholds": None}
    return {**base, "model": "a1" * 32, "names": None, **changes}


def single(chosen, **changes):
    """A mask of flat bools over SHAPES, in order."""
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    flat = torch.tensor(chosen, dtype=torch.uint8).split(sizes)
    levels = {n: part.view(s) for (n, s), part in zip(SHAPES.items(), flat, strict=True)}
    count = sum(chosen)
    about = metadata(**changes)
    return Mask.from_levels(
        levels, ratios=[count / about["candidates"]], counts=[count], metadata=about
    )


def bits(mask):
    return [bool(b) for tensor in mask.values() for b in tensor.reshape(-1)]


def ladder(levels, ratios, **changes):
    """A mask of several ratios from flat levels over SHAPES."""
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    flat = torch.tensor(levels, dtype=torch.uint8).split(sizes)
    parts = {n: part.view(s) for (n, s), part in zip(SHAPES.items(), flat, strict=True)}
    counts = [sum(level >= need for level in levels) for need in range(len(ratios), 0, -1)]
    return Mask.from_levels(parts, ratios=ratios, counts=counts, metadata=metadata(**changes))


some = st.lists(st.booleans(), min_size=N, max_size=N).filter(any)
three_levels = st.lists(st.integers(0, 3), min_size=N, max_size=N)


# ---------------------------------------------------------------------------------------------
# Packing


@given(st.data(), st.integers(1, 15))
def test_levels_packed_in_any_chunks_give_the_same_bits(data, steps):
    levels = data.draw(st.lists(st.integers(0, steps), min_size=1, max_size=90))
    ends = data.draw(st.lists(st.integers(0, len(levels)), max_size=8))
    flat, ratios = torch.tensor(levels, dtype=torch.uint8), [(i + 1) / 16 for i in range(steps)]
    whole, parts = (MaskWriter({"w": (len(levels),), "v": (3,)}, ratios) for _ in range(2))
    whole.add("w", flat)
    cuts = sorted({0, len(levels), *ends})
    for start, stop in itertools.pairwise(cuts):
        parts.add("w", flat[start:stop])  # at odd offsets too: slices are not aligned
    made = [writer.finish([1] * steps, metadata()) for writer in (whole, parts)]
    assert torch.equal(made[0]._packed["w"], made[1]._packed["w"])
    assert torch.equal(made[1].level("w"), flat)
    assert not made[1].level("v").any()


def test_packed_levels_are_these_bytes():
    one = MaskWriter({"w": (10,)}, [0.5])
    one.add("w", torch.tensor([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=torch.uint8))
    assert one.finish([3], {})._packed["w"].tolist() == [0b101, 0b10]
    four = MaskWriter({"w": (3,)}, [0.1, 0.2, 0.3])
    four.add("w", torch.tensor([1, 2, 3], dtype=torch.uint8))
    assert four.finish([1, 2, 3], {})._packed["w"].tolist() == [0x21, 0x03]


def test_levels_may_be_bools_or_wider_integers():
    for levels in (torch.tensor([True, False]), torch.tensor([1, 0])):
        writer = MaskWriter({"w": (2,)}, [0.5])
        writer.add("w", levels)
        assert writer.finish([1], metadata())["w"].tolist() == [True, False]


def test_too_many_too_few_and_too_high_levels_are_refused():
    writer = MaskWriter({"w": (3,)}, [0.5])
    writer.add("w", torch.ones(2, dtype=torch.uint8))
    with pytest.raises(WagleError, match="w has 3 weights, but 4 levels came"):
        writer.add("w", torch.ones(2, dtype=torch.uint8))
    with pytest.raises(WagleError, match="w has 3 weights, but only 2 levels came"):
        writer.finish([2], {})
    with pytest.raises(WagleError, match="w has level 2 in a ladder of 1 ratios"):
        writer.add("w", torch.tensor([2], dtype=torch.uint8))


@given(three_levels)
def test_the_ratios_of_a_ladder_are_nested_and_exact(levels):
    mask = ladder(levels, [0.1, 0.5, 0.9])
    found = [bits(mask.at(ratio)) for ratio in mask.ratios]
    assert found == [[level >= need for level in levels] for need in (3, 2, 1)]
    assert [sum(one) for one in found] == list(mask.counts)
    for by in ("block", "kind", "parameter"):
        for which, ratio in enumerate(mask.ratios):
            alone = {k: (c[which], n) for k, (c, n) in mask.densities(by).items()}
            assert mask.at(ratio).density(by) == alone
    parameters = mask.at(0.5).density("parameter")
    assert parameters == {n: (int(t.sum()), t.numel()) for n, t in mask.at(0.5).items()}


def test_an_unknown_grouping_of_densities_names_the_known_ones():
    with pytest.raises(WagleError, match=r"unknown grouping 'blok'; did you mean 'block'"):
        single([True] * N).density("blok")


@pytest.mark.parametrize("missing", ["null", "absent"])
def test_metadata_with_an_entry_per_ratio_follows_the_ratio(missing, tmp_path):
    histogram = {"0": [[None, 2], [-3, 7]]}
    mask = ladder([0, 1, 2] * (N // 3) + [0] * (N % 3), [0.2, 0.6], score_histogram=histogram)
    mask.metadata |= {"theta_share": [0.25, 0.5]}
    if missing == "absent":
        del mask.metadata["thresholds"]
    mask.save(tmp_path / "mask")
    chosen = Mask.load(tmp_path / "mask").at(0.6)
    assert chosen.metadata["theta_share"] == [0.5]
    assert chosen.metadata.get("thresholds") is None
    assert chosen.describe()["score_histogram"] == histogram


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
    with pytest.raises(WagleError, match="belong to two models, a1a1a1 and b2b2b2"):
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
    with pytest.raises(WagleError, match="does not say which parameters it selects among"):
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
