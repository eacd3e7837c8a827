"""Masks from stores built by hand: scopes, what a mask needs and remembers."""

import math

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.attribution.scoring.made import (
    LINEAR,
    SHAPES,
    TOTAL,
    TRANSPOSED,
    as_sets,
    flat,
    grouped,
    largest,
    make_store,
    scores_of,
)
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring import candidates
from wagle.attribution.scoring.masks import needed_quantities
from wagle.attribution.scoring.scores import SCORES
from wagle.attribution.store import GradientStore
from wagle.mask.mask import Mask
from wagle.model.structure import place
from wagle.system.errors import WagleError
from wagle.system.files.tensors import save_tensors

# ---------------------------------------------------------------------------------------------
# Scopes


@pytest.mark.parametrize("scope", ["global", "tensor", "row", "block"])
@hypothesis.settings(max_examples=20)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 0.5, -0.5, 2.0, 1e-45]), min_size=TOTAL, max_size=TOTAL)
)
def test_every_scope_is_a_stable_sort_of_what_competes(scope, values):
    parts = torch.tensor(values).split([math.prod(s) for s in SHAPES.values()])
    weight = {n: p.view(s) for (n, s), p in zip(SHAPES.items(), parts, strict=True)}
    store = make_store({"weight": weight})
    ratios = [0.12, 0.29, 0.5, 1.0]
    mask = Mask.from_scores(store, score=lambda weight: weight, ratio=ratios, scope=scope)
    for ratio, count, found in zip(ratios, mask.counts, as_sets(mask), strict=True):
        expected = largest(grouped(weight, scope), ratio)
        got = {(n, i) for n, m in found.items() for i in m.view(-1).nonzero().view(-1).tolist()}
        assert got == expected
        assert count == len(expected)


@pytest.mark.parametrize("scope", ["global", "tensor", "row", "block"])
@pytest.mark.usefixtures("chunk")
def test_no_mask_depends_on_how_scores_are_cut(store, scope):
    for score in ("wagle", "random"):
        mask = Mask.from_scores(store, score=score, gamma=0.5, ratio=0.4, scope=scope)
        scores = {
            n: candidates.uniform_chunk(0, n, 0, math.prod(s)) if score == "random" else None
            for n, s in SHAPES.items()
        }
        if score == "wagle":
            scores = scores_of(store, "wagle", gamma=0.5)
        expected = largest(grouped(scores, scope), 0.4)
        assert {(n, i) for n in mask for i in mask.selected(n).tolist()} == expected


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_wanda_keeps_the_strongest_inputs_of_every_output(store, name, ratio):
    mask = Mask.from_scores(store, score="wanda", ratio=ratio)
    weight, inputs = store.get("weight", name), store.get("input_square", name).view(-1)
    if name in TRANSPOSED:
        weight = weight.T
    selected = mask[name].T if name in TRANSPOSED else mask[name]
    for row, chosen in zip(weight, selected, strict=True):
        order = (row.abs() * inputs.sqrt()).argsort(descending=True, stable=True)
        count = int(ratio * len(row))
        assert set(chosen.nonzero().view(-1).tolist()) == set(order[:count].tolist())


def test_wanda_ranges_over_linear_layers_only(store):
    mask = Mask.from_scores(store, score="wanda", ratio=0.5)
    assert mask.metadata["names"] == mask.candidate_names == [n for n in SHAPES if n in LINEAR]
    assert mask.candidates == sum(math.prod(SHAPES[n]) for n in LINEAR)
    assert mask.metadata["scope"] == "row"
    assert mask.metadata["thresholds"] is None
    assert not mask["embed.weight"].any()
    every = Mask.from_scores(store, score="wanda", ratio=0.5, scope="global")
    assert every.count == mask.candidates // 2
    assert every.metadata["thresholds"] is not None
    with pytest.raises(WagleError, match="leave no parameter with input_square"):
        Mask.from_scores(store, score="wanda", include=["embeddings"])


def test_small_groups_may_get_nothing_but_not_all_of_them(store):
    mask = Mask.from_scores(store, score="magnitude", ratio=[0.15, 0.5], scope="tensor")
    assert not as_sets(mask)[0]["layers.0.ln_1.bias"].any()  # floor(0.75)
    assert sum(int(m.sum()) for m in as_sets(mask)[0].values()) == mask.counts[0]
    for scope in ("tensor", "row", "block"):
        with pytest.raises(WagleError, match=f"ratio 0.01 of any {scope} selects none; raise it"):
            Mask.from_scores(store, score="magnitude", ratio=[0.01, 0.5], scope=scope)
    with pytest.raises(WagleError, match="selects none; raise it"):
        Mask.from_scores(store, score="magnitude", ratio=0.001)


# ---------------------------------------------------------------------------------------------
# Invariances of the wagle score


def test_masks_do_not_change_when_gradients_are_scaled():
    base = make_store()
    mask = Mask.from_scores(base, gamma=0.5, ratio=0.3)
    for quantity, factor, gamma in (("grad_forget", 8, 0.5), ("grad_retain", 4, 2.0)):
        scaled = {n: base.get(quantity, n) * factor for n in SHAPES}
        other = Mask.from_scores(make_store({quantity: scaled}), gamma=gamma, ratio=0.3)
        assert all(torch.equal(mask[n], other[n]) for n in SHAPES)


def test_the_limits_of_gamma_are_the_masks_of_snip_and_of_the_product():
    store = make_store()
    for gamma, score in ((1e9, "snip_forget"), (1e-9, "hessian_free")):
        limit = Mask.from_scores(store, score=score, ratio=0.4)
        mask = Mask.from_scores(store, gamma=gamma, ratio=0.4)
        assert all(torch.equal(mask[n], limit[n]) for n in SHAPES)


# ---------------------------------------------------------------------------------------------
# What a mask remembers


@pytest.mark.parametrize("scope", ["global", "tensor", "row", "block"])
@pytest.mark.parametrize("name", ["wagle", "wagle_refusal", "wagle_gauss_newton"])
def test_theta_share_is_that_of_a_direct_count(store, name, scope):
    ratios = [0.2, 0.5, 1.0]
    mask = Mask.from_scores(store, score=name, gamma=0.7, damping=0.02, ratio=ratios, scope=scope)
    scale = flat(store, "square_retain") + 0.02 if name == "wagle_gauss_newton" else 0.7
    dominated = flat(store, "weight").abs() > (flat(store, "grad_retain") / scale).abs()
    for found, count, share in zip(
        as_sets(mask), mask.counts, mask.metadata["theta_share"], strict=True
    ):
        chosen = torch.cat([m.reshape(-1) for m in found.values()])
        assert share == int((chosen & dominated).sum()) / count


def test_scores_without_a_weight_term_have_no_theta_share(store):
    for name in ("magnitude", "fisher", "grad_ratio", "random", "wanda"):
        assert Mask.from_scores(store, score=name, ratio=0.5).metadata["theta_share"] is None
    mask = Mask.from_scores(store, score=_with_gamma)
    assert mask.metadata["theta_share"] is None


@pytest.mark.parametrize("scope", ["global", "tensor", "row", "block"])
def test_the_score_histogram_counts_every_candidate_in_its_block(scope):
    weight = {n: torch.randn(s) for n, s in SHAPES.items()}
    weight["embed.weight"][:3] = 0
    weight["embed.weight"][3, 0] = 1e-44
    mask = Mask.from_scores(
        make_store({"weight": weight}), score="magnitude", ratio=0.5, scope=scope
    )
    found = mask.metadata["score_histogram"]
    assert list(found) == ["embed.weight", "0", "1"]
    assert sum(n for bins in found.values() for _, n in bins) == TOTAL
    assert found["embed.weight"][:2] == [[None, 12], [-127, 1]]
    block = torch.cat([t.abs().view(-1) for n, t in weight.items() if place(n)[0] == "1"])
    exponents = block.log2().floor().int().tolist()
    assert found["1"] == [[e, exponents.count(e)] for e in sorted(set(exponents))]


def test_negative_scores_count_as_zero_and_below():
    mask = Mask.from_scores(make_store(), score=lambda weight: -weight.abs(), ratio=0.5)
    assert mask.metadata["score_histogram"]["1"] == [[None, 60]]
    assert mask.metadata["thresholds"][0] < 0


def test_a_mask_remembers_what_it_was_asked_for(store):
    mask = Mask.from_scores(store, score="grad_ratio", settings={"eps": 0.5}, exclude=["norms"])
    described = mask.describe()
    assert described["settings"] == {"eps": 0.5}
    assert described["scope"] == "global"
    assert described["ratios"] == [0.8]
    assert described["names"] == [n for n in SHAPES if "ln_" not in n]
    assert Mask.from_scores(store, score="magnitude").metadata["names"] is None
    assert Mask.from_scores(store, score="random", seed=4).metadata["settings"] == {"seed": 4}


# ---------------------------------------------------------------------------------------------
# What a score needs


def _with_gamma(grad_forget, *, gamma):
    return grad_forget * gamma


@pytest.mark.parametrize(
    ("score", "gamma", "needed"),
    [
        ("wagle", "auto", ["grad_forget", "grad_retain"]),
        ("wagle", 0.5, ["grad_forget", "grad_retain"]),
        ("wagle", "curvature", ["grad_forget", "grad_retain", "square_retain"]),
        ("wagle_refusal", "auto", ["grad_retain", "grad_refusal"]),
        ("wagle_gauss_newton", "auto", ["grad_forget", "grad_retain", "square_retain"]),
        ("fisher", "curvature", ["grad_forget", "fisher_retain"]),
        ("wanda", "auto", ["input_square"]),
        ("magnitude", "curvature", []),
        ("random", "auto", []),
        ({"by_name": ["ffn"]}, "auto", []),
        (_with_gamma, {"theta_share": 0.1}, ["grad_forget", "grad_retain"]),
        (_with_gamma, {"mu": 1}, ["grad_forget"]),
    ],
)
def test_only_what_is_needed_is_asked_of_the_store(score, gamma, needed):
    assert needed_quantities(score, gamma) == needed
    if not isinstance(score, dict):
        store = make_store(quantities=needed)
        assert Mask.from_scores(store, score=score, gamma=gamma, ratio=0.5).count > 0


@pytest.mark.parametrize(
    ("score", "gamma", "said"),
    [
        (
            "fisher",
            "auto",
            "the score 'fisher' needs fisher_retain, which this gradient store lacks; collect it: "
            "wagle.gradients(..., quantities=['grad_forget', 'fisher_retain']), or "
            "attribution.quantities in a recipe",
        ),
        (
            "wagle",
            "curvature",
            "gamma 'curvature' needs square_retain, which this gradient store lacks; collect it: "
            "wagle.gradients(..., quantities=['grad_forget', 'grad_retain', 'square_retain']), or "
            "attribution.quantities in a recipe",
        ),
    ],
)
def test_a_quantity_that_the_store_lacks_names_the_pass(score, gamma, said):
    store = make_store(quantities=["grad_forget", "grad_retain"])
    with pytest.raises(WagleError) as caught:
        Mask.from_scores(store, score=score, gamma=gamma)
    assert str(caught.value) == said


class _Untouchable(GradientStore):
    def read(self, *where):
        del where
        raise AssertionError("read before everything was checked")

    def check_weights(self):
        raise AssertionError("weights checked before everything else")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ratio": [0.5, 0.1]}, "must ascend without repeats"),
        ({"ratio": [i / 20 for i in range(1, 17)]}, "a ladder has 1 to 15 ratios, not 16"),
        ({"ratio": 0}, r"ratio 0 is outside \(0, 1\]"),
        ({"ratio": 1e-9}, "selects none; raise it"),
        ({"scope": "rows"}, "unknown scope 'rows'; did you mean 'row'"),
        ({"include": ["nothing"]}, "the pattern 'nothing' matches no parameter"),
        ({"include": "ffn"}, r"include is 'ffn'; give a list, such as \['ffn'\]"),
        ({"include": ["norms"], "exclude": ["norms"]}, "leave no parameter to select from"),
        ({"settings": {"eps": 1}}, "the score 'wagle' has no setting 'eps'"),
        ({"score": "wagel"}, "unknown score 'wagel'; did you mean 'wagle'"),
        ({"score": {"by_name": ["ffn"]}, "ratio": 0.5}, "has its own ratio .*; remove ratio"),
        ({"score": {"by_name": ["ffn"]}, "scope": "row"}, "remove scope"),
        ({"score": {"by_name": ["ffn"]}, "settings": {"a": 1}}, "remove settings"),
        ({"score": {"by_name": ["ffn", "none*"]}}, r"the pattern 'none\*' matches no parameter"),
        ({"score": {"complement": "none"}}, "mask none does not exist"),
    ],
)
def test_whatever_is_wrong_is_one_line_before_any_work(store, asked, said):
    store.__class__ = _Untouchable
    with pytest.raises(WagleError, match=said) as caught:
        Mask.from_scores(store, **asked)
    assert "\n" not in str(caught.value)


def test_weights_are_checked_once_and_only_where_a_score_sees_them(store, monkeypatch):
    checks = []
    monkeypatch.setattr(store, "check_weights", lambda: checks.append(1))
    Mask.from_scores(store, score="grad_forget")
    assert checks == []
    Mask.from_scores(store, score="wagle", gamma="auto")
    assert checks == [1]


def test_a_score_of_another_shape_or_that_is_not_finite_names_the_parameter(store):
    for score, got in ((lambda weight: weight[:1], r"\(1,\)"), (lambda weight: 3.0, "float")):  # noqa: ARG005
        with pytest.raises(
            WagleError, match=f"must have the shape .*; for embed.weight that is .* not {got}"
        ):
            Mask.from_scores(store, score=score)
    for scope in ("global", "row"):
        with pytest.raises(WagleError, match=r"a score of embed\.weight is not finite"):
            Mask.from_scores(store, score=lambda weight: weight / 0, scope=scope)
    broken = {n: torch.full(s, float("nan")) for n, s in SHAPES.items()}
    with pytest.raises(WagleError, match=r"square_retain of embed\.weight is not finite"):
        Mask.from_scores(make_store({"square_retain": broken}), gamma="curvature")


def test_a_score_may_be_a_function_of_any_floating_type(store):
    mask = Mask.from_scores(store, score=lambda weight: weight.double().abs(), ratio=0.3)
    named = Mask.from_scores(store, score="magnitude", ratio=0.3)
    assert all(torch.equal(mask[n], named[n]) for n in SHAPES)


def test_a_store_on_disk_gives_the_mask_of_the_store_in_memory(store, tmp_path):
    files = {}
    for quantity in ("weight", *COLLECTED):
        names = LINEAR if quantity == "input_square" else SHAPES
        files[quantity] = [tmp_path / f"{quantity}-00000.safetensors"]
        save_tensors(files[quantity][0], {n: store.get(quantity, n) for n in names}, {})
    disk = make_store(files=files)
    for name in SCORES:
        one, other = (Mask.from_scores(s, score=name, ratio=[0.3, 0.5]) for s in (store, disk))
        assert one.describe() == other.describe()
        assert all(torch.equal(one.level(n), other.level(n)) for n in SHAPES)
