import math

import pytest
import torch

from tests.unlearning.objectives.made import top
from wagle.unlearning.objectives.shapes import (
    Distribution,
    Hidden,
    forward_kl,
    jensen_shannon,
    per_position,
)

P, Q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.3, 0.2]])
DIVERGENCES = [forward_kl, jensen_shannon]


def _random(rows=5, columns=9, seed=0):
    torch.manual_seed(seed)
    known = torch.randn(rows, columns).mul(2).log_softmax(-1)
    target = torch.randint(columns, (rows,))
    return known, torch.randn(rows, columns).mul(2).requires_grad_(), target


def test_the_divergence_matches_a_value_worked_out_by_hand():
    assert forward_kl(Distribution(P.log()), Q.log()).item() == pytest.approx(0.0851, abs=5e-5)


def test_the_jensen_shannon_divergence_matches_its_definition():
    middle = (P + Q) / 2
    halves = [(p * (p / middle).log()).sum().item() / 2 for p in (P, Q)]
    assert jensen_shannon(Distribution(P.log()), Q.log()).item() == pytest.approx(sum(halves))
    assert jensen_shannon(Distribution(Q.log()), P.log()).item() == pytest.approx(sum(halves))


def test_the_divergence_pulls_the_model_to_the_reference():
    known, logits, _ = _random()
    forward_kl(Distribution(known), logits).sum().backward()
    torch.testing.assert_close(
        logits.grad, (logits.softmax(-1) - known.exp()).detach(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", [None, 1, 3, 8, 9])
def test_a_divergence_and_its_gradient_are_zero_at_the_reference(divergence, k):
    known, _, target = _random()
    reference = Distribution(known) if k is None else top(known, target, k)
    logits = (known + 3).requires_grad_()
    got = divergence(reference, logits)
    got.sum().backward()
    assert got.abs().max() < 1e-6
    assert logits.grad.norm() < 1e-6


def test_the_pull_at_the_reference_is_not_that_of_a_cross_entropy_of_swapped_arguments():
    # which would be p (-log p - H) = (-0.3116, 0.1615, 0.1501)
    logits = P.log().requires_grad_()
    forward_kl(Distribution(P.log()), logits).sum().backward()
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", [8, 9])
def test_all_tokens_but_one_say_as_much_as_all(divergence, k):
    known, logits, target = _random()
    full = divergence(Distribution(known), logits)
    (expected,) = torch.autograd.grad(full.sum(), logits)
    got = divergence(top(known, target, k), logits)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    torch.testing.assert_close(got, full, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", range(1, 9))
def test_the_largest_tokens_give_a_lower_bound(divergence, k):
    known, logits, target = _random(rows=50, seed=k)
    bound, full = divergence(top(known, target, k), logits), divergence(Distribution(known), logits)
    assert (bound >= -1e-6).all()
    assert (bound <= full + 1e-6).all()


def test_the_jensen_shannon_divergence_is_at_most_ln_2():
    apart = Distribution(torch.tensor([[0.0, -torch.inf]]))
    logits = torch.tensor([[-40.0, 40.0]], requires_grad=True)
    assert jensen_shannon(apart, logits).item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", [None, 2, 3])
def test_a_token_that_neither_model_says_leaves_the_gradient_finite(divergence, k):
    logits = torch.tensor([[1.0, 0.5, -torch.inf]], requires_grad=True)
    known = torch.tensor([[0.2, 0.8, 0.0]]).log()
    reference = Distribution(known) if k is None else top(known, torch.tensor([2]), k)
    got = divergence(reference, logits)
    got.sum().backward()
    assert got.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("rows", [0, 1, 64, 150])
def test_positions_some_at_a_time_are_positions_all_at_once(rows):
    known, logits, _ = _random(rows=rows)
    got = forward_kl(Distribution(known), logits)
    plain = (known.exp() * (known - logits.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-6)
    weight = torch.rand(rows)
    (grad,) = torch.autograd.grad((weight * got).sum(), logits)
    (expected,) = torch.autograd.grad((weight * plain).sum(), logits)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_no_float32_copy_of_the_logits_is_kept_for_the_backward_pass(divergence):
    known, logits, _ = _random(rows=300)
    half = logits.detach().bfloat16().requires_grad_()
    kept = []

    def note(tensor):
        if tensor.untyped_storage().data_ptr() != half.untyped_storage().data_ptr():
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        got = divergence(Distribution(known), half)
    assert sum(kept) <= 300  # numbers per position, not per token of the vocabulary
    got.sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_a_function_sees_the_same_rows_of_all_that_it_is_given():
    logits, other = torch.randn(130, 4), torch.arange(130.0)
    got = per_position(lambda rows, same: rows[:, 0] + same, logits, other)
    assert torch.equal(got, logits[:, 0] + other)


def test_activations_are_averaged_over_the_positions_of_each_record():
    # sums 10 and 2 over 5 positions and 1
    hidden = Hidden(torch.zeros(6, 2), torch.tensor([5, 1]))
    assert hidden.mean_per_record(torch.tensor([2.0] * 6)).mean().item() == 2.0
