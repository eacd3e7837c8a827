import pytest
import torch

from wagle.attribution.scores import SCORES, magnitude, needs, random, wagle
from wagle.errors import WagleError


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


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_has_the_shape_of_its_weight_and_says_what_it_needs(name):
    quantities, settings = needs(SCORES[name])
    given = {q: torch.rand(3, 4) for q in quantities}
    score = SCORES[name](**given, **dict.fromkeys(settings, 0.5))
    assert score.shape == (3, 4)
    assert score.dtype == torch.float32


def test_a_score_that_asks_for_something_unknown_is_refused():
    with pytest.raises(WagleError, match="a score cannot ask for 'hessian'"):
        needs(lambda hessian: hessian)
