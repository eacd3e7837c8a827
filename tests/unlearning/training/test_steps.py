import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unlearning.conftest import mask_of, same, weights
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.training.steps import DYNAMIC_MASKS, WRAPPERS, Gradient, StepLoss
from wagle.unlearning.training.weights.selected import SelectedWeights
from wagle.unlearning.training.weights.surgery import noise


class Toy(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(6, 3, generator=generator).to(dtype))
        self.bias = nn.Parameter(torch.randn(6, generator=generator).to(dtype))


def _micros(sizes, count=8):
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(count, 3, generator=generator), torch.randn(count, 3, generator=generator)
    return [{"x": a, "y": b} for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]


def _losses(model, micro):
    """Two curved losses, summed over the records of a micro-batch and divided by all 8."""
    weight, bias = model.weight.float(), model.bias.float()
    forget = -(micro["x"] @ weight.T + bias).square().mean(-1)
    retain = (micro["y"] @ weight.T - bias).sigmoid().mean(-1)
    return Terms(forget.sum() / 8, retain.sum() / 8)


def _take(gradient, sizes, *, dtype=torch.float32, ratio=0.5, steps=1):
    """The gradients that the last of ``steps`` steps ends with, and what was called on the way."""
    model = Toy(dtype)
    mask = None if ratio is None else mask_of(model, ratio)
    selected = SelectedWeights(model, mask)
    before, logged = weights(model), []

    def loss(micro, *, log=True):
        logged.append(log)
        return _losses(model, micro)

    for step in range(steps):
        figures = gradient.take(selected, _micros(sizes), [loss], step)
        total = selected.take("total")
    assert same(model, before)  # a perturbation leaves nothing behind
    return total, figures, logged


def _independent(model, mask, side):
    """The compact gradient of one term over all records at once, by plain autograd."""
    term = _losses(model, _micros([8])[0])[side]
    found = torch.autograd.grad(term, [model.weight, model.bias])
    return [g[mask[n]] for n, g in zip(("weight", "bias"), found, strict=True)]


def _pair(at=None):
    model = Toy()
    mask = mask_of(model, 0.5)
    if at is not None:
        with torch.no_grad():
            for name, shift in zip(("weight", "bias"), at, strict=True):
                model.get_parameter(name)[mask[name]] += shift
    return [_independent(model, mask, side) for side in (0, 1)]


def _close(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


ALL = [(w, d) for w in WRAPPERS for d in DYNAMIC_MASKS if (w, d) != ("gru", "sign_agreement")]


@pytest.mark.parametrize(("wrapper", "dynamic"), ALL)
def test_how_the_records_are_cut_into_micro_batches_does_not_matter(wrapper, dynamic):
    results = [
        _take(Gradient(wrapper, dynamic_mask=dynamic), sizes, steps=2)[0]
        for sizes in ([8], [4, 4], [1, 3, 3, 1], [1] * 8)
    ]
    for other in results[1:]:
        _close(other, results[0])


@pytest.mark.parametrize(("wrapper", "dynamic"), ALL)
@pytest.mark.parametrize("ratio", [0.5, None])
def test_the_weights_are_bit_identical_after_every_kind_of_step(wrapper, dynamic, ratio):
    for dtype in (torch.float32, torch.bfloat16):
        _take(Gradient(wrapper, dynamic_mask=dynamic), [4, 4], dtype=dtype, ratio=ratio)


def test_a_plain_step_is_the_gradient_of_the_sum_of_both_terms():
    forget, retain = _pair()
    got, figures, logged = _take(Gradient(), [4, 4])
    _close(got, [f + r for f, r in zip(forget, retain, strict=True)])
    assert figures == {}
    assert logged == [True, True]


def test_sam_takes_the_forget_gradient_where_an_independent_computation_does():
    forget, retain = _pair()
    norm = math.sqrt(sum(float(f.square().sum()) for f in forget))
    moved, _ = _pair([0.2 * f / norm for f in forget])
    got, _, logged = _take(Gradient("sam", {"rho": 0.2}), [3, 3, 2])
    _close(got, [f + r for f, r in zip(moved, retain, strict=True)])
    assert logged == [True] * 3 + [False] * 3  # the figures are those of the weights themselves
    with pytest.raises(AssertionError):  # the perturbation is large enough to be seen
        _close(moved, forget)


def test_sam_without_a_radius_is_the_plain_gradient():
    plain, _, _ = _take(Gradient(), [4, 4])
    _close(_take(Gradient("sam", {"rho": 0.0}), [4, 4])[0], plain)


def test_smooth_is_the_mean_over_draws_around_the_weights():
    _, retain = _pair()
    model = Toy()
    mask = mask_of(model, 0.5)
    likes = {n: model.get_parameter(n)[mask[n]] for n in ("weight", "bias")}
    around = [_pair(noise(likes, rho=0.3, key=(7, 0, draw)))[0] for draw in range(4)]
    mean = [torch.stack(parts).mean(0) for parts in zip(*around, strict=True)]
    got, _, _ = _take(Gradient("smooth", {"rho": 0.3, "draws": 4}, seed=7), [4, 4])
    _close(got, [f + r for f, r in zip(mean, retain, strict=True)])


def test_the_noise_of_smooth_depends_on_seed_and_step_alone():
    def step(seed, step):
        made = Gradient("smooth", {"rho": 0.3}, seed=seed)
        return torch.cat(_take(made, [4, 4], steps=step + 1)[0])

    assert torch.equal(step(0, 0), step(0, 0))
    assert not torch.equal(step(0, 0), step(1, 0))
    assert not torch.equal(step(0, 0), step(0, 1))


def test_gru_is_orthogonal_to_the_retain_gradient_where_the_two_conflict():
    forget, retain = _pair()
    f, r = torch.cat(forget).double(), torch.cat(retain).double()
    if torch.dot(f, r) >= 0:
        pytest.fail("the toy has to have a conflict")
    made = Gradient("gru")
    got, _, _ = _take(made, [4, 4])
    wanted = f - torch.dot(f, r) / torch.dot(r, r) * r
    torch.testing.assert_close(torch.cat(got).double(), wanted, rtol=1e-5, atol=1e-7)
    _close(made.remembered, retain)


def test_sign_agreement_zeroes_what_would_raise_the_retain_loss_and_says_what_is_left():
    forget, retain = (torch.cat(side) for side in _pair())
    agree = (forget * retain) > 0
    got, figures, _ = _take(Gradient(dynamic_mask="sign_agreement"), [4, 4])
    assert torch.equal(torch.cat(got) != 0, agree)
    torch.testing.assert_close(torch.cat(got), forget / forget.norm() * agree)
    assert figures == {"kept_share": pytest.approx(float(agree.float().mean()))}
    assert 0 < figures["kept_share"] < 1


def test_row_norm_zeroes_all_but_the_rows_that_forgetting_pulls_hardest():
    model = Toy()
    mask = mask_of(model, 0.5)
    forget, retain = _pair()
    rows = mask["weight"].nonzero()[:, 0]
    norms = {int(row): float(forget[0][rows == row].norm()) for row in rows.unique()}
    norms["bias"] = float(forget[1].norm())
    # 7 rows or fewer have entries; a half of them goes, rounded down
    kept = sorted(norms, key=lambda row: -norms[row])[: len(norms) - len(norms) // 2]
    got, figures, _ = _take(
        Gradient(dynamic_mask="row_norm", dynamic_settings={"quantile": 0.5}), [8]
    )
    trains = [torch.tensor([int(row) in kept for row in rows]), torch.tensor("bias" in kept)]
    wanted = [(f + r) * t for f, r, t in zip(forget, retain, trains, strict=True)]
    _close(got, wanted)
    share = (int(trains[0].sum()) + len(forget[1]) * ("bias" in kept)) / mask.count
    assert figures == {"kept_share": pytest.approx(share)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("gur",), r"unknown wrapper 'gur'; did you mean 'gru'"),
        (("none", None, "sign"), r"unknown dynamic_mask 'sign'"),
        (("sam", {"roh": 1.0}), r"wrapper sam has no setting 'roh'; nearest: rho \(known: rho\)"),
        (("none", {"rho": 1.0}), r"wrapper none has no setting 'rho' \(known: none\)"),
        (("sam", {"rho": "1"}), r"wrapper sam: rho is '1', not a number"),
        (("sam", {"rho": True}), r"wrapper sam: rho is True, not a number"),
        (("sam", {"rho": math.nan}), r"wrapper sam: rho is nan, not a number"),
        (("sam", {"rho": -0.1}), r"wrapper sam: rho is -0.1; give a number >= 0"),
        (("smooth", {"draws": 0}), r"wrapper smooth: draws is 0; give a whole number >= 1"),
        (("smooth", {"draws": 2.5}), r"wrapper smooth: draws is 2.5; give a whole number >= 1"),
        (("gru", {"momentum": 0}), r"the momentum of gru is 0; give a number in \(0, 1\]"),
        (("gru", {"floor": 2}), r"the floor of gru is 2; give a number in \(0, 1\]"),
        (
            ("none", None, "row_norm", {"quantile": 1.0}),
            r"the quantile of row_norm is 1.0; give a number in \[0, 1\)",
        ),
        (
            ("gru", None, "sign_agreement"),
            r"gru and sign_agreement both decide what remains of the forget gradient; choose one",
        ),
    ],
)
def test_what_cannot_be_is_one_line_when_the_gradient_is_chosen(given, said):
    with pytest.raises(WagleError, match=said):
        Gradient(*given)


@pytest.mark.parametrize(
    ("objective", "wrapper", "dynamic", "said"),
    [
        ("retain_finetune", "sam", "none", "sam needs a forget term; objective retain_finetune"),
        ("none", "smooth", "none", "smooth needs a forget term; objective none"),
        (
            "npo/none",
            "gru",
            "none",
            "gru needs a forget term and a retain term; objective npo with",
        ),
        (
            "grad_ascent",
            "none",
            "sign_agreement",
            "sign_agreement needs a forget term and a retain",
        ),
        ("retain_finetune", "none", "row_norm", "row_norm needs a forget term; objective"),
    ],
)
def test_an_objective_without_the_term_that_is_worked_on_is_refused(
    objective, wrapper, dynamic, said
):
    name, _, retain = objective.partition("/")
    made = Gradient(wrapper, dynamic_mask=dynamic)
    with pytest.raises(WagleError, match=said):
        made.check(choose_objective(name, retain_term=retain or "auto"))


# ---------------------------------------------------------------------------------------------
# The loss of a step


def _loss_of(nll, step=4):
    """A forget and a retain record whose losses are given, as a step of one micro-batch."""

    def supply(model, micro, chosen):
        del model, micro
        shown = {n: SimpleNamespace(nll_mean=torch.tensor(v)) for n, v in nll.items()}
        return {name: shown[name] for name in chosen.inputs}, shown

    tokens = {n: [SimpleNamespace(place=f"{n}[{i}]") for i in range(3)] for n in nll}
    pairs = SimpleNamespace(
        forget={"forget": tokens["forget"]}, retain={"retain": tokens["retain"]}
    )
    loss = StepLoss(choose_objective("grad_diff"), supply, pairs, "float32")
    micro = {n: {"index": torch.arange(len(v))} for n, v in nll.items()}
    counts = [len(v) for v in nll.values()]
    return loss, loss.begin(None, counts, step), micro


def test_the_loss_of_a_step_is_the_mean_over_its_records_and_is_logged_by_side():
    loss, parts, micro = _loss_of({"forget": [1.0, 3.0], "retain": [2.0, 4.0, 6.0]})
    terms = [part(micro) for part in parts]
    assert [float(terms[0].forget), terms[0].retain] == [-2.0, None]
    assert [terms[1].forget, float(terms[1].retain)] == [None, 4.0]
    loss.note({"kept_share": 0.5})
    found = loss.take_figures()
    assert (found["forget_loss"], found["retain_loss"], found["kept_share"]) == (-2.0, 4.0, 0.5)
    assert loss.take_figures() == {}


def test_what_is_computed_again_at_other_weights_is_not_logged():
    loss, (forget, _), micro = _loss_of({"forget": [1.0], "retain": [2.0]})
    forget(micro, log=False)
    assert loss.take_figures() == {}


@pytest.mark.parametrize(
    ("name", "place"), [("forget", r"forget\[1\]"), ("retain", r"retain\[1\]")]
)
def test_a_loss_that_is_not_finite_names_the_record_and_the_step(name, place):
    nll = {"forget": [1.0, 1.0], "retain": [1.0, 1.0]}
    nll[name][1] = float("inf")
    _, parts, micro = _loss_of(nll)
    with pytest.raises(TrainingStopped, match=f"the loss of {place} is inf at step 4; lower"):
        [part(micro) for part in parts]
