import math

import pytest
import torch

from tests.unlearning.objectives.made import of_logits, of_tokens, scored, top
from wagle.unlearning.objectives.distributions import (
    dual_rests,
    jensun,
    jensun_retain,
    kl_ascent,
    max_entropy,
    next_dual,
    pdu,
    undial,
)
from wagle.unlearning.objectives.shapes import Distribution, forward_kl, jensen_shannon

LENGTHS = [3, 1, 2]
TARGET = torch.tensor([3, 0, 6, 2, 2, 1])


def _random(seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(6, 7).mul(2).requires_grad_()
    return logits, torch.randn(6, 7).mul(2).log_softmax(-1), of_logits(logits, TARGET, LENGTHS)


def _per_record(values):
    return torch.stack([part.mean() for part in values.split(LENGTHS)])


def test_moving_away_is_minus_the_mean_divergence_per_record():
    logits, known, forget = _random()
    got = kl_ascent(forget, logits, Distribution(known))
    torch.testing.assert_close(got, -_per_record(forward_kl(Distribution(known), logits)))


def test_moving_away_starts_with_a_zero_gradient():
    logits, _, forget = _random()
    known = logits.detach().log_softmax(-1)
    kl_ascent(forget, logits, Distribution(known)).sum().backward()
    assert logits.grad.norm() < 1e-6


def _lowered(known, beta):
    """The target in float64, token by token: the true one times e^-beta, then renormalised."""
    aim = known.double().exp()
    for row, token in enumerate(TARGET.tolist()):
        aim[row, token] *= math.exp(-beta)
        aim[row] /= aim[row].sum()
    return aim


@pytest.mark.parametrize("beta", [0.0, 3.0, 10.0, 30.0])
def test_undial_is_the_cross_entropy_to_the_lowered_target(beta):
    logits, known, forget = _random()
    got = undial(forget, TARGET, logits, Distribution(known), beta=beta)
    aim = _lowered(known, beta)
    plain = _per_record(-(aim * logits.double().log_softmax(-1)).sum(-1))
    torch.testing.assert_close(got, plain.float(), rtol=1e-5, atol=1e-6)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    lengths = torch.tensor(LENGTHS).repeat_interleave(torch.tensor(LENGTHS)).unsqueeze(-1)
    expected = (logits.softmax(-1) - aim) / lengths
    torch.testing.assert_close(grad, expected.float(), rtol=1e-4, atol=1e-6)


def test_undial_lowers_the_true_token_as_its_formula_says():
    p, beta = 0.9, 2.0
    known = torch.tensor([[p, 0.06, 0.04]]).log()
    q = p * math.exp(-beta) / (1 - p + p * math.exp(-beta))
    aim = torch.tensor([[q, 0.06 * (1 - q) / 0.1, 0.04 * (1 - q) / 0.1]])
    logits = aim.log().requires_grad_()
    target = torch.tensor([0])
    got = undial(of_logits(logits, target, [1]), target, logits, Distribution(known), beta=beta)
    assert got.item() == pytest.approx(-(aim * aim.log()).sum().item(), rel=1e-5)
    got.sum().backward()
    assert logits.grad.abs().max() < 1e-6


def test_undial_of_beta_zero_keeps_the_original_model():
    logits, _, forget = _random()
    known = logits.detach().log_softmax(-1)
    got = undial(forget, TARGET, logits, Distribution(known), beta=0.0)
    torch.testing.assert_close(got, _per_record(-(known.exp() * known).sum(-1)))
    got.sum().backward()
    assert logits.grad.norm() < 1e-6


@pytest.mark.parametrize("beta", [10.0, 30.0])
def test_undial_is_exact_where_the_original_model_is_certain(beta):
    known = torch.tensor([[20.0, 1.0, 0.0]]).log_softmax(-1)  # 1 - p = 8e-9
    logits, target = torch.tensor([[2.0, 1.0, 0.5]], requires_grad=True), torch.tensor([0])
    undial(
        of_logits(logits, target, [1]), target, logits, Distribution(known), beta=beta
    ).sum().backward()
    aim = torch.tensor([[20.0 - beta, 1.0, 0.0]], dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(logits.grad, (logits.softmax(-1) - aim).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [6, 7])
def test_undial_of_all_tokens_but_one_is_that_of_all(k):
    logits, known, forget = _random()
    full = undial(forget, TARGET, logits, Distribution(known))
    (expected,) = torch.autograd.grad(full.sum(), logits, retain_graph=True)
    got = undial(forget, TARGET, logits, top(known, TARGET, k))
    (grad,) = torch.autograd.grad(got.sum(), logits)
    torch.testing.assert_close(got, full, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_undial_of_the_largest_tokens_keeps_the_share_of_the_others():
    logits, known, forget = _random()
    reference = top(known, TARGET, 3)
    got = undial(forget, TARGET, logits, reference, beta=2.0)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    aim, soft = _lowered(known, 2.0), logits.softmax(-1)
    others = torch.ones(6, 7).scatter(-1, reference.tokens, 0.0).bool()
    lengths = torch.tensor(LENGTHS).repeat_interleave(torch.tensor(LENGTHS))
    pull = (grad * others).sum(-1) * lengths
    expected = (soft * others).sum(-1) - (aim * others).sum(-1)
    torch.testing.assert_close(pull, expected.float(), rtol=1e-4, atol=1e-6)
    own = (grad * lengths.unsqueeze(-1))[~others]
    torch.testing.assert_close(own, (soft - aim)[~others].float(), rtol=1e-4, atol=1e-6)


def test_maximum_entropy_matches_a_value_worked_out_by_hand():
    logits, target = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([0])
    got = max_entropy(of_logits(logits, target, [1]), logits)
    assert got.item() == pytest.approx(-math.log(3) + (5 * math.log(2)) / 3, rel=1e-5)


def test_maximum_entropy_pulls_to_the_uniform_distribution_and_ends_there():
    logits, _, forget = _random()
    max_entropy(forget, logits).sum().backward()
    lengths = torch.tensor(LENGTHS).repeat_interleave(torch.tensor(LENGTHS)).unsqueeze(-1)
    expected = (logits.softmax(-1).detach() - 1 / 7) / lengths
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-6)
    flat = torch.full((6, 7), 2.0, requires_grad=True)
    got = max_entropy(of_logits(flat, TARGET, LENGTHS), flat)
    got.sum().backward()
    assert got.abs().max() < 1e-6
    assert flat.grad.abs().max() < 1e-6


def test_pdu_flattens_the_logits_and_prices_the_retain_nll():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]], requires_grad=True)
    forget = of_logits(logits, torch.tensor([0, 0]), [2])
    retain = scored(20.0, 1.0)
    got = pdu(forget, logits, retain, 50.0, epsilon=0.3)
    assert got.forget.item() == pytest.approx((3 - 2) ** 2 / 2)
    assert got.retain.tolist() == pytest.approx([50 * 1.7, 50 * -0.2], rel=1e-5)
    (grad,) = torch.autograd.grad(got.forget.sum(), logits)
    third = 1 / 3  # 2 (max - mean) (e_max - 1/V) / 2
    torch.testing.assert_close(grad[0], torch.tensor([-third, 1 - third, -third]))
    assert grad[1].abs().max() == 0


def test_the_flatness_of_logits_ignores_a_constant():
    logits, _, forget = _random()
    one = pdu(forget, logits, scored(1.0), 1.0).forget
    torch.testing.assert_close(pdu(forget, logits + 5, scored(1.0), 1.0).forget, one)


@pytest.mark.parametrize(
    ("dual", "nll", "epoch", "after"),
    [
        (100.0, 2.0, 4.9, 100.0),  # warm-up
        (100.0, 2.0, 5.0, 108.5),  # 100 + 5 * 1.7
        (100.0, 0.3, 6.0, 100.0),
        (100.0, 0.1, 6.0, 99.0),
        (0.5, 0.1, 6.0, 0.0),  # never negative
    ],
)
def test_the_dual_rises_while_the_retain_nll_is_too_high(dual, nll, epoch, after):
    settings = {"epsilon": 0.3, "eta": 5.0, "warmup": 5.0}
    assert next_dual(dual, nll, epoch, settings) == pytest.approx(after)


def test_a_dual_whose_warm_up_is_as_long_as_the_run_never_moves():
    settings = {"warmup": 5.0, "dual_start": 100.0}
    assert dual_rests(5.1, settings) is None
    assert dual_rests(5.0, settings) == (
        "its dual stays at 100 during a warm-up of 5 epochs, and the run has only 5; lower warmup, or "
        "raise epochs"
    )


@pytest.mark.parametrize(("p", "loss"), [(0.2, 0.422810), (1.0, 0.0), (1e-30, math.log(2))])
def test_jensun_matches_values_worked_out_by_hand(p, loss):
    refusal = of_tokens([-math.log(p)])
    got = jensun(refusal)
    assert got.item() == pytest.approx(loss, abs=1e-6)
    got.sum().backward()
    assert refusal.token_nll.grad.isfinite().all()


def test_jensun_is_the_divergence_to_the_refusal_and_to_the_original_model():
    logits, known, records = _random()
    got = jensun(records)
    one_hot = torch.full((6, 7), -torch.inf).scatter(-1, TARGET.unsqueeze(-1), 0.0)
    plain = _per_record(jensen_shannon(Distribution(one_hot), logits))
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-6)
    kept = _per_record(jensen_shannon(Distribution(known), logits))
    torch.testing.assert_close(jensun_retain(records, logits, Distribution(known)), kept)
    (grad,) = torch.autograd.grad(got.sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad(plain.sum(), logits)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)
