import math

import pytest
import torch

from wagle.errors import WagleError
from wagle.model import Scored
from wagle.unlearning.objectives import (
    OBJECTIVES,
    grad_ascent,
    grad_diff,
    needs,
    npo,
    retain_finetune,
    wga,
)


def scored(*sums, count=10):
    """Records of ``count`` tokens with these summed NLLs, spread evenly; gradients reach the sums."""
    total = torch.tensor(sums, requires_grad=True)
    counts = torch.full((len(sums),), count)
    tokens = (total / count).repeat_interleave(count)
    return Scored(total, total / counts, counts, tokens, torch.zeros(0, dtype=torch.bool))


@pytest.mark.parametrize(
    ("gap", "loss", "slope"),
    [(0.0, 13.862944, -1.0), (10.0, 6.265234, -0.537883), (-10.0, 26.265234, -1.462117)],
)
def test_npo_matches_values_worked_out_by_hand(gap, loss, slope):
    forget = scored(30 + gap)
    got = npo(forget, scored(0.0), forget_ref=scored(30.0), beta=0.1)
    torch.testing.assert_close(got.forget.item(), loss, rtol=1e-6, atol=0)
    got.forget.sum().backward()
    torch.testing.assert_close(forget.nll_sum.grad.item(), slope, rtol=1e-5, atol=0)


def test_npo_starts_with_the_gradient_of_ascent_on_the_sum_and_tends_to_it_for_a_small_beta():
    forget = scored(30.0, 50.0)
    npo(forget, scored(0.0), forget_ref=scored(30.0, 20.0), beta=1e-6).forget.sum().backward()
    torch.testing.assert_close(forget.nll_sum.grad, torch.tensor([-1.0, -1.0]), rtol=1e-4, atol=0)


def test_npo_of_a_forgotten_record_is_zero():
    got = npo(scored(5000.0), scored(0.0), forget_ref=scored(30.0))
    assert got.forget.item() == 0.0


def test_grad_diff_of_equal_sets_cancels():
    same = scored(30.0, 10.0)
    got = grad_diff(same, same)
    (got.forget.sum() + got.retain.sum()).backward()
    assert same.nll_sum.grad.abs().max() == 0


def test_gradient_ascent_is_minus_the_mean_per_record():
    assert grad_ascent(scored(30.0, 10.0)).forget.tolist() == [-3.0, -1.0]
    assert grad_ascent(scored(30.0), forget_weight=2.0).forget.tolist() == [-6.0]
    assert grad_ascent(scored(30.0)).retain is None


def test_weights_scale_the_terms():
    one = npo(
        scored(30.0), scored(20.0), forget_ref=scored(30.0), forget_weight=2.0, retain_weight=3.0
    )
    assert one.forget.item() == pytest.approx(2 * 13.862944, rel=1e-6)
    assert one.retain.item() == pytest.approx(6.0)
    assert retain_finetune(scored(20.0)).retain.tolist() == [2.0]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_gives_a_float32_loss_per_record(name):
    asked = needs(OBJECTIVES[name])
    sets = {s: scored(30.0, 20.0) for s in asked.sets}
    references = {r: scored(25.0, 25.0) for r in asked.references}
    terms = OBJECTIVES[name](**sets, **references, **asked.settings)
    for part in terms:
        assert part is None or (part.shape == (2,) and part.dtype == torch.float32)
    assert [t is not None for t in terms] == ["forget" in asked.sets, "retain" in asked.sets]


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(WagleError, match="no setting 'bata'; nearest: beta"):
        needs(npo, {"bata": 0.1})


def test_wga_weighs_every_token_by_its_probability():
    nll = torch.tensor([0.1, 2.0, 0.5], requires_grad=True)  # a record of two tokens, one of one
    length = torch.tensor([2, 1])
    forget = Scored(torch.zeros(2), torch.zeros(2), length, nll, torch.zeros(0, dtype=torch.bool))
    got = wga(forget, scored(20.0, 20.0), beta=1.0)
    expected = [-(0.1 * math.exp(-0.1) + 2 * math.exp(-2)) / 2, -0.5 * math.exp(-0.5)]
    assert got.forget.tolist() == pytest.approx(expected, rel=1e-6)
    got.forget.sum().backward()
    slopes = [-math.exp(-0.1) / 2, -math.exp(-2) / 2, -math.exp(-0.5)]  # -p^beta / n
    assert nll.grad.tolist() == pytest.approx(slopes, rel=1e-6)


def test_wga_without_beta_is_gradient_ascent():
    forget = scored(30.0, 10.0)
    got = wga(forget, scored(20.0), beta=0.0)
    assert got.forget.tolist() == pytest.approx(grad_ascent(scored(30.0, 10.0)).forget.tolist())
