import math
from itertools import chain

import pytest
import torch

from tests.unlearning.objectives.made import of_tokens, scored
from wagle.unlearning.objectives.ascent import grad_ascent
from wagle.unlearning.objectives.preference import dpo, dpo_alt, npo, simnpo, tnpo


@pytest.mark.parametrize(
    ("gap", "loss", "slope"),
    [(0.0, 13.862944, -1.0), (10.0, 6.265234, -0.537883), (-10.0, 26.265234, -1.462117)],
)
def test_npo_matches_values_worked_out_by_hand(gap, loss, slope):
    forget = scored(30 + gap)
    got = npo(forget, scored(30.0), beta=0.1)
    torch.testing.assert_close(got.item(), loss, rtol=1e-6, atol=0)
    got.sum().backward()
    torch.testing.assert_close(forget.nll_sum.grad.item(), slope, rtol=1e-5, atol=0)


def test_npo_tends_to_gradient_ascent_on_the_sum_for_a_small_beta():
    forget = scored(30.0, 50.0)
    npo(forget, scored(30.0, 20.0), beta=1e-6).sum().backward()
    torch.testing.assert_close(forget.nll_sum.grad, torch.tensor([-1.0, -1.0]), rtol=1e-4, atol=0)


def test_npo_of_a_forgotten_record_is_zero():
    assert npo(scored(5000.0), scored(30.0)).item() == 0.0


@pytest.mark.parametrize(("token_mean", "slope"), [(False, -3.05e-8), (True, -0.851)])
def test_npo_on_the_sum_is_done_where_npo_on_the_mean_still_pulls(token_mean, slope):
    forget = scored(60 * 4.0, count=60)  # 3 nats per token above the original
    got = npo(forget, scored(60 * 1.0, count=60), beta_token_mean=token_mean)
    scale = 60 if token_mean else 1  # d/dM
    got.sum().backward()
    assert scale * forget.nll_sum.grad.item() == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize(
    ("mean", "beta", "loss", "slope"),
    [
        (0.0, 4.5, 0.308065, -1.0),
        (0.0, 2.5, 0.554518, -1.0),
        (1.0, 4.5, 0.004910, -0.021974),
        (1.0, 2.5, 0.063112, -0.151716),
    ],
)
def test_simnpo_matches_values_worked_out_by_hand(mean, beta, loss, slope):
    forget = scored(10 * mean)
    got = simnpo(forget, beta=beta)
    assert got.item() == pytest.approx(loss, rel=1e-4)
    got.sum().backward()
    assert 10 * forget.nll_sum.grad.item() == pytest.approx(slope, rel=1e-4)
    shifted = simnpo(scored(10 * (mean + 2)), beta=beta, margin=2.0)
    assert shifted.item() == pytest.approx(loss, rel=1e-4)


def test_simnpo_is_npo_on_the_mean_against_a_reference_that_is_certain():
    forget = scored(30.0, 5.0)
    got = npo(forget, scored(0.0, 0.0), beta=4.5, beta_token_mean=True)
    assert torch.equal(simnpo(forget), got)


def test_simnpo_tends_to_gradient_ascent_for_a_small_beta():
    forget = scored(30.0)
    simnpo(forget, beta=1e-6).sum().backward()
    assert 10 * forget.nll_sum.grad.item() == pytest.approx(-1.0, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_token_npo_weighs_every_token_as_its_formula_says(alpha):
    now, before = [[0.7, 2.0], [0.3]], [[0.5, 2.5], [0.3]]
    forget = of_tokens(*now)
    got = tnpo(forget, of_tokens(*before), beta=4.0, alpha=alpha)
    weights = []
    for nll, nll_ref in zip(chain(*now), chain(*before), strict=True):
        p, r = math.exp(-nll), math.exp(-nll_ref)
        weights.append(2 * p ** (4 + alpha) / (p**4 + r**4))
    expected = [-(weights[0] * 0.7 + weights[1] * 2.0) / 2, -weights[2] * 0.3]
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    got.sum().backward()
    slopes = [-weights[0] / 2, -weights[1] / 2, -weights[2]]
    assert forget.token_nll.grad.tolist() == pytest.approx(slopes, rel=1e-5)


def test_token_npo_starts_as_gradient_ascent_and_ends_where_a_token_is_forgotten():
    forget = of_tokens([0.7, 2.0], [0.3])
    same = tnpo(forget, forget)
    assert same.tolist() == pytest.approx(grad_ascent(forget).tolist())
    gone = of_tokens([90.0])
    tnpo(gone, of_tokens([0.1])).sum().backward()
    assert gone.token_nll.grad.item() == pytest.approx(0.0, abs=1e-30)


def test_dpo_at_the_original_model_pulls_the_refusal_up_and_the_answer_down():
    forget, refusal = scored(30.0), scored(50.0)
    got = dpo(forget, refusal, scored(30.0), scored(50.0), beta=0.1)
    assert got.item() == pytest.approx(2 * math.log(2) / 0.1)
    got.sum().backward()
    assert refusal.nll_sum.grad.item() == pytest.approx(1.0)
    assert forget.nll_sum.grad.item() == pytest.approx(-1.0)


def test_dpo_without_a_winner_is_npo():
    forget, before = scored(30.0, 5.0), scored(20.0, 9.0)
    nothing = scored(0.0, 0.0)
    assert torch.equal(dpo(forget, nothing, before, nothing), npo(forget, before))


def test_dpo_of_scale_beta_is_that_of_its_paper():
    # gain of the refusal 50 - 45, of the answer 20 - 30: beta * 15 = 1.5
    got = dpo(scored(30.0), scored(45.0), scored(20.0), scored(50.0), beta=0.1, scale=0.1)
    assert got.item() == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-5)


def test_alternate_preference_is_dpo_with_another_winner():
    given = scored(30.0), scored(45.0), scored(20.0), scored(50.0)
    assert torch.equal(dpo_alt(*given, beta=0.3, scale=1.0), dpo(*given, beta=0.3, scale=1.0))
