import pytest
import torch

from tests.unlearning.objectives.made import of_logits, scored
from wagle.unlearning.objectives.retaining import kl, l1_sparse, nll, none, retain_finetune
from wagle.unlearning.objectives.shapes import Distribution, Terms


def test_keeping_by_training_is_the_mean_nll_per_record():
    assert nll(scored(30.0, 10.0)).tolist() == [3.0, 1.0]
    assert retain_finetune(scored(30.0, 10.0)).retain.tolist() == [3.0, 1.0]
    assert l1_sparse(scored(30.0, 10.0), l1_weight=0.5).retain.tolist() == [3.0, 1.0]
    assert retain_finetune(scored(30.0)).forget is None


def test_no_unlearning_has_no_loss():
    assert none() == Terms(None, None)


def test_keeping_the_original_model_is_the_mean_divergence_per_record():
    # KL((.7, .2, .1) || (.5, .3, .2)) = 0.0851 at one position, 0 at the other
    known = torch.tensor([[0.7, 0.2, 0.1]] * 3).log()
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]).log()
    retain = of_logits(logits, torch.tensor([0, 1, 2]), [2, 1])
    got = kl(retain, logits, Distribution(known))
    assert got.tolist() == pytest.approx([0.0851 / 2, 0.0851], abs=5e-5)


def test_keeping_the_original_model_pulls_nowhere_at_the_start():
    torch.manual_seed(0)
    logits = torch.randn(4, 9).requires_grad_()
    retain = of_logits(logits, torch.tensor([0, 1, 2, 3]), [3, 1])
    got = kl(retain, logits, Distribution(logits.detach().log_softmax(-1)))
    got.sum().backward()
    assert got.abs().max() < 1e-6
    assert logits.grad.norm() < 1e-6
