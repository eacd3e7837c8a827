import functools

import pytest
import torch

from wagle.attribution.scoring import scores
from wagle.attribution.scoring.scores import (
    SCORES,
    check_score,
    magnitude,
    needs,
    random,
    read_mapping,
    score_settings,
    wagle,
)
from wagle.system.errors import WagleError


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
    asked = needs(SCORES[name])
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
    settings = {k: v for k, v in {"gamma": 6.0, "damping": 0.25}.items() if k in asked.settings}
    got = SCORES[name](**{q: _t(values[q]) for q in asked.quantities}, **settings)
    torch.testing.assert_close(got.item(), BY_HAND[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_has_the_shape_of_its_weight_and_its_table_name(name):
    asked = needs(SCORES[name])
    given = {q: torch.rand(3, 4) for q in asked.quantities}
    score = SCORES[name](**given, **dict.fromkeys(asked.settings, 0.5))
    assert score.shape == (3, 4)
    assert score.dtype == torch.float32
    assert SCORES[name] is getattr(scores, name)


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


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda hessian: hessian, "a score cannot ask for 'hessian'"),
        (lambda **every: every, "a score cannot ask for 'every'"),
        (lambda *, gamma: gamma, "asks for nothing"),
        (3, "score is 3; give a name"),
        ("wagel", "unknown score 'wagel'; did you mean 'wagle'"),
        (min, "the parameters of the score 'min' cannot be read"),
        ({}, r"score has the keys \[\] \(one of random_like"),
        ({"random_like": 1, "by_name": 2}, "score has the keys"),
        ({"random_liek": "m"}, "did you mean 'random_like'"),
        ({"by_name": "ffn"}, "score.by_name is 'ffn'; give a list of patterns"),
        ({"by_name": []}, r"score.by_name is \[\]"),
        ({"complement": 3}, "score.complement is 3; give a mask, or the path of one"),
        ({"complement": "none.safetensors"}, "mask none.safetensors does not exist"),
    ],
)
def test_a_score_that_is_none_is_refused_in_one_line(score, said):
    with pytest.raises(WagleError, match=said) as caught:
        check_score(score)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("score", "given", "said"),
    [
        ("grad_ratio", {"esp": 1}, r"has no setting 'esp'; did you mean 'eps'\? \(known: eps\)"),
        ("magnitude", {"eps": 1}, r"has no setting 'eps' \(known: none\)"),
        ("wagle", {"gamma": 1}, "gamma is not among the settings of a score"),
        ("grad_ratio", {"eps": "small"}, "the setting eps of .* is 'small'; it must be a number"),
        ("grad_ratio", {"eps": float("nan")}, "is nan; it must be a number"),
        (lambda weight, *, power: weight**power, {}, "needs a setting 'power'"),
        ({"by_name": ["ffn"]}, {"eps": 1}, "the score 'by_name' has no settings; remove 'eps'"),
    ],
)
def test_settings_that_do_not_fit_a_score_are_refused(score, given, said):
    with pytest.raises(WagleError, match=said):
        check_score(score, given)


def test_settings_come_from_the_defaults_and_from_what_is_given():
    assert score_settings("grad_ratio", {}) == {"eps": 1e-12}
    assert score_settings("grad_ratio", {"eps": 0.5}) == {"eps": 0.5}
    assert score_settings("wagle", {}) == {}
    assert score_settings(functools.partial(magnitude), {}) == {}
    assert read_mapping({"by_name": ("ffn",)}) == ("by_name", ["ffn"])
