import math

import pytest
import torch

from tests.unlearning.objectives.made import of_logits, of_tokens, scored
from wagle.unlearning.objectives.ascent import ce_u, grad_ascent, satimp, wga


def _nll(*probabilities):
    return [-math.log(p) for p in probabilities]


def test_gradient_ascent_is_minus_the_mean_per_record():
    assert grad_ascent(scored(30.0, 10.0)).tolist() == [-3.0, -1.0]


def test_gradient_ascent_on_uniform_logits_is_minus_the_log_of_the_vocabulary():
    target = torch.tensor([3, 0, 6])
    got = grad_ascent(of_logits(torch.zeros(3, 7), target, [2, 1]))
    assert got.tolist() == pytest.approx([-math.log(7)] * 2)


def test_gradient_ascent_moves_the_logits_away_from_the_true_token():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 7, requires_grad=True), torch.tensor([3, 0, 6])
    grad_ascent(of_logits(logits, target, [3])).sum().backward()
    true = torch.nn.functional.one_hot(target, 7)
    torch.testing.assert_close(logits.grad, -(logits.softmax(-1) - true).detach() / 3)


def test_wga_weighs_every_token_by_its_probability():
    forget = of_tokens([0.1, 2.0], [0.5])
    got = wga(forget, beta=1.0)
    expected = [-(0.1 * math.exp(-0.1) + 2 * math.exp(-2)) / 2, -0.5 * math.exp(-0.5)]
    assert got.tolist() == pytest.approx(expected, rel=1e-6)
    got.sum().backward()
    slopes = [-math.exp(-0.1) / 2, -math.exp(-2) / 2, -math.exp(-0.5)]  # -p^beta / n
    assert forget.token_nll.grad.tolist() == pytest.approx(slopes, rel=1e-6)


def test_weighted_ascent_without_weights_is_gradient_ascent():
    plain = grad_ascent(of_tokens([0.1, 2.0], [0.5, 0.0])).tolist()
    assert wga(of_tokens([0.1, 2.0], [0.5, 0.0]), beta=0.0).tolist() == pytest.approx(plain)
    got = satimp(of_tokens([0.1, 2.0], [0.5, 0.0]), beta1=0.0, beta2=0.0)
    assert got.tolist() == pytest.approx(plain)


def test_satimp_without_importance_is_wga():
    forget = of_tokens([0.1, 2.0], [0.5])
    got = satimp(forget, beta1=3.0, beta2=0.0)
    assert got.tolist() == pytest.approx(wga(forget, beta=3.0).tolist())


def test_satimp_pulls_most_on_tokens_that_are_likely_but_not_certain():
    grid = [0.001 * i for i in range(1, 1000)]
    forget = of_tokens(_nll(*grid))
    satimp(forget).sum().backward()
    factors = -forget.token_nll.grad * len(grid)
    most = int(factors.argmax())
    assert grid[most] == pytest.approx(5 / 6, abs=1e-3)
    assert factors[most].item() == pytest.approx(0.06698, abs=1e-5)
    expected = [p**5 * (1 - p) for p in grid]
    assert factors.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_satimp_leaves_forgotten_and_perfectly_memorised_tokens_alone():
    forget = of_tokens([200.0, 0.0])
    satimp(forget).sum().backward()
    assert forget.token_nll.grad.tolist() == [0.0, 0.0]


def _published_ce_u(logits, target):
    """Cross-entropy to the model's own distribution without the true token, held fixed."""
    column = target.unsqueeze(-1)
    aim = logits.detach().scatter(-1, column, -torch.inf).softmax(-1)
    log_probs = logits.log_softmax(-1)
    entropy = -torch.where(aim > 0, aim * aim.log(), 0.0).sum(-1)
    return -(aim * log_probs).sum(-1), entropy


def test_ce_u_has_the_gradient_of_the_published_cross_entropy_and_its_value_less_the_entropy():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 7).mul(2).requires_grad_(), torch.tensor([3, 0, 6, 2])
    published, floor = _published_ce_u(logits, target)
    (expected,) = torch.autograd.grad(published.sum() / 4, logits)
    got = ce_u(of_logits(logits, target, [4]), skip=0)
    assert got.item() == pytest.approx((published - floor).mean().item(), rel=1e-5)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)
    soft = logits.softmax(-1).detach()
    p = soft.gather(-1, target.unsqueeze(-1))
    by_hand = (-soft * p / (1 - p)).scatter(-1, target.unsqueeze(-1), p) / 4
    torch.testing.assert_close(grad, by_hand, rtol=1e-4, atol=1e-6)


def test_ce_u_skips_the_first_tokens_and_a_record_without_others_counts_as_zero():
    forget = of_tokens(_nll(0.9, 0.5, 0.75), _nll(0.3))
    got = ce_u(forget)
    assert got.tolist() == pytest.approx([(math.log(2) + math.log(4)) / 2, 0.0])
    got.sum().backward()
    slopes = forget.token_nll.grad.tolist()
    assert slopes == pytest.approx([0.0, -1 / 2, -3 / 2, 0.0], rel=1e-5)  # -p / (1 - p) / 2
    assert ce_u(forget, skip=5).tolist() == [0.0, 0.0]


def test_ce_u_is_zero_once_forgotten_and_bounded_where_memorised_perfectly():
    gone = of_tokens([80.0])
    ce_u(gone, skip=0).sum().backward()
    assert gone.token_nll.grad.item() == pytest.approx(0.0, abs=1e-30)
    perfect = of_tokens([0.0])
    got = ce_u(perfect, skip=0)
    got.sum().backward()
    assert got.item() == pytest.approx(-math.log(1e-6), rel=1e-6)
    assert perfect.token_nll.grad.item() == pytest.approx(-1e6, rel=1e-6)


def test_ce_u_moves_a_token_that_is_certain():
    logits = torch.tensor([[18.0, 0.0, 0.0]], requires_grad=True)  # 1 - p = 3e-8
    ce_u(of_logits(logits, torch.tensor([0]), [1]), skip=0).sum().backward()
    assert logits.grad[0, 1] < -0.01
    assert logits.grad.isfinite().all()
