import math

import pytest
import torch

from tests.unlearning.objectives.made import of_logits, scored
from wagle.unlearning.objectives.ascent import grad_ascent
from wagle.unlearning.objectives.relabel import (
    forget_finetune,
    idk_ap_retain,
    llmu,
    random_label,
    random_label_uniform,
    refusal,
)


@pytest.mark.parametrize("teach", [refusal, random_label, random_label_uniform, forget_finetune])
def test_relabelling_is_the_mean_nll_of_what_is_taught(teach):
    taught = scored(30.0, 10.0)
    got = teach(taught)
    assert got.tolist() == [3.0, 1.0]
    got.sum().backward()
    assert taught.nll_sum.grad.tolist() == pytest.approx([0.1, 0.1])
    assert teach(scored(0.0)).item() == 0.0


def test_random_tokens_cost_at_least_the_log_of_the_vocabulary_on_average():
    torch.manual_seed(0)
    logits = torch.randn(1, 7).mul(2)
    every = of_logits(logits.expand(7, 7), torch.arange(7), [1] * 7)
    got = random_label_uniform(every).mean().item()
    assert got == pytest.approx(-logits.log_softmax(-1).mean().item(), rel=1e-6)
    assert got >= math.log(7)


def test_llmu_climbs_on_the_answer_and_descends_on_another():
    forget, mismatch = scored(30.0), scored(50.0)
    got = llmu(forget, mismatch)
    assert got.item() == 2.0
    got.sum().backward()
    assert forget.nll_sum.grad.item() == pytest.approx(-0.1)
    assert mismatch.nll_sum.grad.item() == pytest.approx(0.1)


def test_answer_preservation_of_equal_answers_matches_a_value_worked_out_by_hand():
    retain, refused = scored(40.0), scored(40.0, count=4)
    got = idk_ap_retain(retain, refused)
    assert got.item() == pytest.approx(math.log(2) / 0.1, rel=1e-6)  # 6.9315
    got.sum().backward()
    assert retain.nll_sum.grad.item() == pytest.approx(0.5)  # sigmoid(0)
    assert refused.nll_sum.grad.item() == pytest.approx(-0.5)


def test_answer_preservation_is_done_where_the_answer_is_far_likelier_than_a_refusal():
    assert idk_ap_retain(scored(10.0), scored(5000.0)).item() == 0.0


def test_learning_the_forget_set_is_the_opposite_of_ascent():
    records = scored(30.0, 10.0)
    assert torch.equal(forget_finetune(records), -grad_ascent(records))
