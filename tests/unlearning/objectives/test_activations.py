from fnmatch import fnmatchcase

import pytest
import torch

from wagle.system.errors import WagleError
from wagle.unlearning.objectives.activations import (
    contrast_control,
    random_control,
    rmu,
    rmu_retain,
    rmu_trains,
)
from wagle.unlearning.objectives.shapes import Hidden


def _hidden(rows, lengths):
    states = torch.tensor(rows, requires_grad=True)
    return Hidden(states, torch.tensor(lengths))


def test_misdirection_matches_values_worked_out_by_hand():
    forget = _hidden([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], [2, 1])
    control = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    kept, before = _hidden([[1.0, 1.0]], [1]), _hidden([[0.0, 4.0]], [1])
    assert rmu(forget, control).tolist() == [((0 + 4) / 2 + (4 + 4) / 2) / 2, 4 / 2]
    assert rmu_retain(kept, before).tolist() == [(1 + 9) / 2]


def test_misdirection_averages_each_record_over_its_own_positions():
    # squares sum to 10 over 5 positions and to 2 over 1: 2.0 each
    root = 2**0.5
    forget = _hidden([[root]] * 6, [5, 1])
    got = rmu(forget, torch.zeros(2, 1))
    assert got.tolist() == pytest.approx([2.0, 2.0])


def test_misdirection_keeps_the_original_activations_without_any_pull():
    same = _hidden([[1.0, -2.0], [0.5, 0.0]], [2])
    before = Hidden(same.states.detach().clone(), same.length)
    got = rmu_retain(same, before)
    got.sum().backward()
    assert got.tolist() == [0.0]
    assert same.states.grad.abs().max() == 0


def test_misdirection_towards_zero_shrinks_the_activations():
    forget = _hidden([[1.0, -2.0], [0.5, 0.0]], [2])
    rmu(forget, torch.zeros(1, 2)).sum().backward()
    torch.testing.assert_close(forget.states.grad, forget.states.detach() / 2)  # 2 h / (d n)


def test_misdirection_trains_one_matrix_of_three_blocks():
    names = [
        f"model.layers.{i}.{part}.weight"
        for i in range(20)
        for part in ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj")
    ]
    patterns = rmu_trains({"layer": 7})
    found = [n for n in names if any(fnmatchcase(n, p) for p in patterns)]
    assert found == [f"model.layers.{i}.mlp.down_proj.weight" for i in (5, 6, 7)]
    assert rmu_trains({"layer": 1}) == ["*.0.mlp.down_proj.weight", "*.1.mlp.down_proj.weight"]


def test_a_random_control_is_a_pure_function_of_seed_and_topic_of_the_length_asked_for():
    state = torch.get_rng_state()
    one = random_control(3, 0, 64, steering=6.5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, random_control(3, 0, 64, steering=6.5))
    torch.testing.assert_close(one.norm().item(), 6.5, rtol=1e-6, atol=0)
    assert one.shape == (64,)
    assert one.dtype == torch.float32
    assert (one >= 0).all()
    for other in (random_control(3, 1, 64, steering=6.5), random_control(4, 0, 64, steering=6.5)):
        assert not torch.equal(one, other)


def test_a_contrast_control_leads_from_the_expert_to_the_novice():
    got = contrast_control(torch.tensor([4.0, 0.0]), torch.tensor([1.0, 4.0]), steering=20.0)
    assert got.tolist() == pytest.approx([12.0, -16.0])  # 20 (3, -4) / 5


def test_two_prompts_that_say_the_same_give_no_direction():
    same = torch.ones(4)
    with pytest.raises(WagleError, match="the same activation; use prompts that differ"):
        contrast_control(same, same, steering=20.0)
