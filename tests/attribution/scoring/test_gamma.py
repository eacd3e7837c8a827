"""Gamma and damping, over the candidates of stores built by hand."""

import math
import statistics

import pytest
import torch

from tests.attribution.scoring.made import (
    SHAPES,
    TOTAL,
    flat,
    make_store,
)
from wagle.mask.mask import Mask
from wagle.system.errors import WagleError


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
        (
            {"theta_share": 0.5, "records": 3},
            "gamma.records is not a setting that goes with theta_share",
        ),
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

    with pytest.raises(
        WagleError, match="the score 'mine' asks for damping but not for square_ret"
    ):
        Mask.from_scores(store, score=mine)
    assert _damping(store, 0.5, mine) == 0.5
