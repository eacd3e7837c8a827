import pytest
import torch

from wagle.attribution.scoring import scores
from wagle.attribution.scoring.entry import needs
from wagle.attribution.scoring.scores import (
    SCORES,
    magnitude,
    random,
    wagle,
)


def _t(*values):
    return torch.tensor(values)


def test_wagle_matches_a_value_worked_out_by_hand():
    # |(2 - 3/6) * 0.5| = 0.75
    assert wagle(_t(2.0), _t(0.5), _t(3.0), gamma=6.0).item() == 0.75


def test_wagle_is_zero_where_the_weight_equals_the_scaled_retain_gradient():
    assert wagle(_t(0.5), _t(4.0), _t(3.0), gamma=6.0).item() == 0.0


@pytest.mark.parametrize(("gamma", "kept"), [(1e12, "weight"), (1e-12, "gradient")])
def test_the_limits_of_gamma_are_snip_and_the_product_of_gradients(gamma, kept):
    torch.manual_seed(0)
    weight, g_f, g_r = torch.randn(3, 500)
    other = weight if kept == "weight" else g_r
    ranking = wagle(weight, g_f, g_r, gamma=gamma).argsort()
    assert torch.equal(ranking, (other * g_f).abs().argsort())


def test_the_ranking_does_not_change_when_gradients_are_scaled():
    torch.manual_seed(1)
    weight, g_f, g_r = torch.randn(3, 500)
    ranking = wagle(weight, g_f, g_r, gamma=0.5).argsort()
    assert torch.equal(wagle(weight, 8 * g_f, g_r, gamma=0.5).argsort(), ranking)
    assert torch.equal(wagle(weight, g_f, 4 * g_r, gamma=2.0).argsort(), ranking)


def test_controls_see_the_weight_or_nothing():
    assert magnitude(_t(-3.0, 2.0)).tolist() == [3.0, 2.0]
    assert random(_t(0.25)).item() == 0.25


# theta = -2, g_f = 0.5, g_r = -3, g_refusal = 0.25, h = 4, F = 3.75, x^2 = 9
BY_HAND = {
    "wagle": 0.5 * abs(-2 + 3 / 6),  # gamma 6
    "wagle_refusal": 0.25 * abs(-2 + 3 / 6),
    "wagle_gauss_newton": 0.5 * abs(-2 + 3 / (4 + 0.25)),  # damping 0.25
    "fisher": 0.5 / 2,  # sqrt(3.75 + 0.25)
    "hessian_free": 1.5,
    "snip_forget": 1.0,
    "grad_forget": 0.5,
    "grad_ratio": 0.5 / 3,
    "magnitude": 2.0,
    "random": 0.125,
    "wanda": 6.0,
}


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_matches_a_value_worked_out_by_hand(name):
    score = SCORES[name]
    values = {
        "weight": -2.0,
        "grad_forget": 0.5,
        "grad_retain": -3.0,
        "grad_refusal": 0.25,
        "square_retain": 4.0,
        "fisher_retain": 3.75,
        "input_square": 9.0,
        "uniform": 0.125,
    }
    settings = {k: v for k, v in {"gamma": 6.0, "damping": 0.25}.items() if k in score.settings}
    got = score.function(**{q: _t(values[q]) for q in score.quantities}, **settings)
    torch.testing.assert_close(got.item(), BY_HAND[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_has_the_shape_of_its_weight_and_its_table_name(name):
    entry = SCORES[name]
    given = {q: torch.rand(3, 4) for q in entry.quantities}
    score = entry.function(**given, **dict.fromkeys(entry.settings, 0.5))
    assert score.shape == (3, 4)
    assert score.dtype == torch.float32
    assert entry.function is getattr(scores, name)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_a_retain_term_asks_for_no_more_than_its_score_which_has_the_weight(name):
    entry = SCORES[name]
    if entry.retain_term is None:
        assert entry.dominated({}) is None
    else:
        asked = needs(entry.retain_term)
        assert {"weight", *asked.quantities} <= set(entry.quantities)
        assert set(asked.settings) <= set(entry.settings)


def test_the_weight_term_dominates_where_the_weight_is_larger_than_the_retain_term():
    values = {
        "weight": _t(-2.0, 2.0, 0.5),
        "grad_retain": _t(-3.0, 3.0, 3.0),
        "square_retain": _t(4.0, 1.25, 4.0),
    }
    by_gamma = SCORES["wagle"].dominated({"gamma": 2.0})  # 3 / 2
    assert by_gamma(values).tolist() == [True, True, False]
    by_curvature = SCORES["wagle_gauss_newton"].dominated({"damping": 0.25})  # 3 / 4.25, 3 / 1.5
    assert by_curvature(values).tolist() == [True, False, False]


def test_without_a_retain_gradient_wagle_ranks_as_snip_does():
    torch.manual_seed(2)
    weight, g_f = torch.randn(2, 500)
    ranking = wagle(weight, g_f, torch.zeros(500), gamma=0.5).argsort()
    assert torch.equal(ranking, scores.snip_forget(weight, g_f).argsort())


def test_a_ratio_of_gradients_is_finite_where_the_retain_gradient_is_zero():
    got = scores.grad_ratio(_t(0.0, 1e-3, 1e-3), _t(0.0, 0.0, 1e-5))
    assert got[0] == 0
    assert got.isfinite().all()
    assert got[1] > got[2]
    torch.testing.assert_close(got[2].item(), 100.0, rtol=1e-5, atol=0)
