"""Masks from stores built by hand: candidates, gamma, damping, scopes, what a mask remembers."""

import math
import statistics

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FAMILIES, make_model
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring import candidates
from wagle.attribution.scoring.candidates import SHORT_NAMES, part_of
from wagle.attribution.scoring.masks import needed_quantities
from wagle.attribution.scoring.scores import SCORES, needs
from wagle.attribution.store import GradientStore
from wagle.mask.mask import Mask
from wagle.model.structure import place
from wagle.system.errors import WagleError
from wagle.system.tensors import save_tensors

SHAPES = {
    "embed.weight": (7, 4),
    "layers.0.attn.c_attn.weight": (4, 6),  # transposed: six outputs
    "layers.0.mlp.up.weight": (9, 4),
    "layers.0.ln_1.bias": (5,),
    "layers.1.mlp.experts.up": (2, 3, 4),
    "layers.1.mlp.down.weight": (4, 9),
}
TRANSPOSED = ["layers.0.attn.c_attn.weight"]
LINEAR = [TRANSPOSED[0], "layers.0.mlp.up.weight", "layers.1.mlp.down.weight"]
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())


def make_store(values=None, *, quantities=COLLECTED, seed=0, records=("a", "b"), files=None):
    """A store of SHAPES; ``values`` gives whole quantities, the others are drawn."""
    torch.manual_seed(seed)
    tensors = {}
    for quantity in ("weight", *COLLECTED):
        found = {n: torch.randn(s) * 0.1 for n, s in SHAPES.items()}
        if quantity in ("square_retain", "fisher_retain"):
            found = {n: t.square() for n, t in found.items()}
        if quantity == "input_square":
            found = {n: torch.rand(_inputs(n)) for n in LINEAR}
        if quantity in ("weight", *quantities):
            tensors[quantity] = found
    metadata = {
        "parameters": [[name, list(shape)] for name, shape in SHAPES.items()],
        "quantities": list(quantities),
        "transposed": TRANSPOSED,
        "model": {"folder": None, "fingerprint": "a71b80ff"},
        "records": {"forget": list(records), "retain": ["c"]},
    }
    tensors.update(values or {})
    return GradientStore(metadata, {} if files else tensors, files or {})


def _inputs(name):
    shape = SHAPES[name]
    return (shape[0], 1) if name in TRANSPOSED else (1, shape[1])


def full(store, quantity, name):
    return store.get(quantity, name).expand(SHAPES[name])


def flat(store, quantity):
    return torch.cat([full(store, quantity, name).reshape(-1) for name in SHAPES])


def scores_of(store, name, **settings):
    """By parameter, the scores of one of the functions, in float32, not in chunks."""
    function = SCORES[name]
    have = [n for n in SHAPES if all(store.has(q, n) for q in needs(function).quantities)]
    return {
        n: function(**{q: full(store, q, n) for q in needs(function).quantities}, **settings)
        for n in have
    }


def as_sets(mask):
    """By ratio and parameter, which weights a ladder selects."""
    most = len(mask.ratios)
    return [{n: mask.level(n) >= most - i for n in mask.shapes} for i in range(most)]


def largest(groups, ratio):
    """The slow way: per group of (score, place), floor(ratio * n) of a stable sort."""
    chosen = set()
    for group in groups:
        count = round(ratio * 100) * len(group) // 100
        chosen |= {where for _, where in sorted(group, key=lambda pair: -pair[0])[:count]}
    return chosen


def grouped(scores, scope):
    """(score, (parameter, flat index)) in groups that compete, each in order."""
    groups = {}
    for name, values in scores.items():
        shape, listed = SHAPES[name], values.reshape(-1).tolist()
        for index, value in enumerate(listed):
            if len(shape) < 2:
                row = 0
            else:  # outputs are the last dimension where transposed, else all but the last
                row = index % shape[-1] if name in TRANSPOSED else index // shape[-1]
            key = {
                "global": 0,
                "tensor": name,
                "block": place(name)[0] or name,
                "row": (name, row),
            }[scope]
            groups.setdefault(key, []).append((value, (name, index)))
    return groups.values()


@pytest.fixture
def store():
    return make_store()


@pytest.fixture(params=[1, 5, 1 << 19])
def chunk(request, monkeypatch):
    monkeypatch.setattr(candidates, "_CHUNK", request.param)


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
# Gamma and damping


def _gamma(store, gamma, **settings):
    return Mask.from_scores(store, gamma=gamma, **settings).metadata["settings"]["gamma"]


def test_every_form_of_gamma_is_a_number(store):
    assert _gamma(store, 0.25) == 0.25
    assert _gamma(store, "auto") == _gamma(store, {"theta_share": 0.5})
    ratios = (flat(store, "grad_retain") / flat(store, "weight")).abs().sort().values
    assert _gamma(store, {"theta_share": 0.9}) == ratios[-(TOTAL // 10)].item()
    mean = flat(store, "square_retain").double().mean().item()
    assert math.isclose(_gamma(store, "curvature"), mean, rel_tol=1e-12)
    inside = torch.cat([store.get("square_retain", n).view(-1) for n in SHAPES if ".0." in n])
    part = _gamma(store, "curvature", include=["blocks:0"])
    assert math.isclose(part, inside.double().mean().item(), rel_tol=1e-12)


def test_the_mu_of_the_published_code_is_divided_by_the_records():
    store = make_store(records=[str(i) for i in range(400)])
    assert math.isclose(_gamma(store, {"mu": 1e-6, "accumulation": 4}), 1e-8)  # spec of TOFU
    assert _gamma(store, {"mu": 1e-6}) == _gamma(store, {"mu": 1e-6, "accumulation": 4})
    assert math.isclose(_gamma(store, {"mu": 1e-6, "accumulation": 1, "records": 1}), 1e-6)
    mask = Mask.from_scores(store, gamma={"mu": 1e-6})
    assert mask.metadata["gamma"] == {"mu": 1e-6}


@pytest.mark.parametrize(
    ("gamma", "said"),
    [
        ("atuo", "gamma is 'atuo'; give a number above 0, auto, curvature"),
        (0, "gamma is 0; give"),
        (-1.0, "gamma is -1.0; give"),
        (float("inf"), "gamma is inf; give"),
        (float("nan"), "gamma is nan; give"),
        (True, "gamma is True; give"),
        (None, "gamma is None; give"),
        ({}, r"gamma is \{\}; give"),
        ({"share": 0.5}, r"gamma is \{'share': 0.5\}; give"),
        ({"theta_share": 1}, "gamma.theta_share is 1; it must lie below 1"),
        ({"theta_share": 0}, "gamma.theta_share is 0; it must be a number above 0"),
        ({"theta_share": "half"}, "gamma.theta_share is 'half'"),
        ({"theta_share": 0.5, "records": 3}, "gamma.records is not a setting beside theta_share"),
        ({"mu": -1e-6}, "gamma.mu is -1e-06; it must be a number above 0"),
        ({"mu": 1, "acumulation": 4}, "gamma.acumulation .*; did you mean accumulation"),
        ({"mu": 1, "records": 0.5}, "gamma.records is 0.5; it must be a whole number"),
    ],
)
def test_a_gamma_that_is_none_is_refused(store, gamma, said):
    with pytest.raises(WagleError, match=said) as caught:
        Mask.from_scores(store, gamma=gamma)
    assert "\n" not in str(caught.value)


def test_weights_without_a_retain_gradient_do_not_make_gamma_zero():
    few = {n: torch.zeros(s) for n, s in SHAPES.items()}
    few["embed.weight"][0, :3] = torch.tensor([0.5, 0.25, 1.0])
    ones = {n: torch.ones(s) for n, s in SHAPES.items()}
    assert _gamma(make_store({"grad_retain": few, "weight": ones}), "auto") == 0.25
    none = {n: torch.zeros(s) for n, s in SHAPES.items()}
    store = make_store({"grad_retain": none, "square_retain": none})
    for gamma in ("auto", "curvature"):
        with pytest.raises(WagleError, match="is zero, so gamma cannot be chosen; give a number"):
            Mask.from_scores(store, gamma=gamma)


def _damping(store, damping="auto", score="fisher", **settings):
    mask = Mask.from_scores(store, score=score, damping=damping, **settings)
    return mask.metadata["settings"]["damping"]


@pytest.mark.parametrize(
    ("score", "quantity"), [("fisher", "fisher_retain"), ("wagle_gauss_newton", "square_retain")]
)
def test_damping_is_the_median_of_the_curvature(store, score, quantity):
    values = sorted(flat(store, quantity).tolist())
    assert _damping(store, score=score) == statistics.median_high(values)
    odd = sorted(store.get(quantity, "layers.0.ln_1.bias").tolist())
    assert _damping(store, score=score, include=["norms"]) == odd[2]
    assert _damping(store, 0.125, score) == 0.125


def test_damping_is_the_smallest_curvature_where_most_are_zero():
    few = {n: torch.zeros(s) for n, s in SHAPES.items()}
    few["embed.weight"][0, :3] = torch.tensor([0.5, 0.25, 1.0])
    assert _damping(make_store({"fisher_retain": few})) == 0.25
    none = {n: torch.zeros(s) for n, s in SHAPES.items()}
    with pytest.raises(WagleError, match="every fisher_retain is zero, so damping cannot be"):
        _damping(make_store({"fisher_retain": none}))


@pytest.mark.parametrize("damping", [0, -1, "half", float("nan"), True, None])
def test_a_damping_that_is_none_is_refused(store, damping):
    with pytest.raises(WagleError, match=r"damping is .*; give a number above 0, or auto"):
        Mask.from_scores(store, score="fisher", damping=damping)


def test_damping_of_a_score_without_a_curvature_is_a_number(store):
    def mine(grad_forget, *, damping):
        return grad_forget.abs() + damping

    with pytest.raises(WagleError, match="the score 'mine' asks for damping but for no square_ret"):
        Mask.from_scores(store, score=mine)
    assert _damping(store, 0.5, mine) == 0.5


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
            WagleError, match=f"must have the shape .* embed.weight is .* not {got}"
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


# ---------------------------------------------------------------------------------------------
# Masks made of masks and names


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
            with pytest.raises(WagleError, match=r"belongs to model 3f9c12, this .* a71b80; make"):
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


# ---------------------------------------------------------------------------------------------
# Patterns


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_short_names_divide_every_parameter_of_every_family(family):
    names = [name for name, _ in make_model(family).named_parameters()]
    parts = {name: part_of(name) for name in names}
    assert set(parts.values()) <= set(SHORT_NAMES)
    inside = {n for n in names if ".0." in n or ".1." in n}
    assert {n for n in names if parts[n] in ("ffn", "attention")} <= inside
    assert {n for n in names if parts[n] in ("embeddings", "head")}.isdisjoint(inside)
    for part in ("ffn", "attention", "embeddings", "norms"):
        assert part in parts.values()
    assert ("head" in parts.values()) == any("lm_head" in n for n in names)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.3.self_attn.q_norm.weight", "norms"),
        ("model.layers.3.post_feedforward_layernorm.weight", "norms"),
        ("transformer.ln_f.weight", "norms"),
        ("model.layers.3.block_sparse_moe.experts.0.w1.weight", "ffn"),
        ("model.decoder.layers.0.fc1.bias", "ffn"),
        ("gpt_neox.layers.0.attention.dense.weight", "attention"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("embed_out.weight", "head"),
        ("transformer.word_embeddings_layernorm.weight", "norms"),
        ("model.decoder.project_in.weight", ""),
        ("backbone.layers.0.mixer.A_log", ""),
    ],
)
def test_short_names_know_other_spellings(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["blocks:1"], [n for n in SHAPES if ".1." in n]),
        (["blocks:0-1"], [n for n in SHAPES if "layers" in n]),
        (["blocks:1", "norms"], [n for n in SHAPES if ".1." in n or "ln_" in n]),
        (["attention"], TRANSPOSED),
        (["*.up*", "embeddings"], [n for n in SHAPES if ".up" in n or "embed" in n]),
    ],
)
def test_patterns_are_globs_and_short_names(store, patterns, chosen):
    mask = Mask.from_scores(store, score="magnitude", ratio=1, include=patterns)
    assert mask.candidate_names == chosen
    rest = Mask.from_scores(store, score="magnitude", ratio=1, exclude=patterns)
    assert rest.candidate_names == [n for n in SHAPES if n not in chosen]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("blocks:4-2", "'blocks:4-2' is no range of blocks; write blocks:4-11 or blocks:7"),
        ("blocks:-1", "is no range of blocks"),
        ("blocks:all", "is no range of blocks"),
        ("blocks:2-9", "'blocks:2-9' matches no parameter"),
        ("head", "'head' matches no parameter .* it may be tied to the embeddings"),
        ("fnn", "'fnn' matches no parameter .* short names are ffn, attention, .* blocks:4-11"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_patterns_are(store, pattern, said):
    with pytest.raises(WagleError, match=said):
        Mask.from_scores(store, include=[pattern])
