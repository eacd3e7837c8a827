"""Passes: which there are, what they sum, and what enters linear layers."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.conftest import make_model
from wagle.attribution.gradients.passes import (
    Inputs,
    Pass,
    Sums,
    check_loss,
    linear_layers,
    plan_passes,
    transposed,
)
from wagle.attribution.quantities import COLLECTED
from wagle.data.tokens import Tokens
from wagle.system.errors import WagleError


def records(*lengths):
    return [
        Tokens((7,) * n, (False,) + (True,) * (n - 1), place=f"forget[{i}]")
        for i, n in enumerate(lengths)
    ]


SETS = {"forget": records(3, 3), "retain": records(2, 4, 3), "refusal": records(3, 3)}


@pytest.mark.parametrize(
    ("quantities", "planned"),
    [
        ([], []),
        (["grad_retain"], [("retain", 0, {"mean": "grad_retain"})]),
        (
            ["grad_retain", "grad_forget"],
            [("forget", 0, {"mean": "grad_forget"}), ("retain", 0, {"mean": "grad_retain"})],
        ),
        (  # the mean shares the pass of the squares
            ["grad_retain", "fisher_retain"],
            [("retain", 4, {"square": "fisher_retain", "mean": "grad_retain"})],
        ),
        (  # of two grouped passes, the one with the smaller groups
            ["grad_retain", "square_retain", "fisher_retain"],
            [
                ("retain", 1, {"square": "square_retain", "mean": "grad_retain"}),
                ("retain", 4, {"square": "fisher_retain"}),
            ],
        ),
        (
            ["input_square", "grad_forget", "grad_refusal"],
            [
                ("forget", 0, {"inputs": "input_square", "mean": "grad_forget"}),
                ("refusal", 0, {"mean": "grad_refusal"}),
            ],
        ),
    ],
)
def test_the_fewest_passes_are_planned(quantities, planned):
    found = plan_passes(quantities, SETS)
    assert [(p.set, p.group, dict(p.kinds)) for p in found] == planned
    assert all(p.tokens is SETS[p.set] for p in found)


def test_every_quantity_is_collected_by_one_pass_and_an_unknown_one_is_refused():
    found = plan_passes(list(COLLECTED), SETS)
    assert sorted(q for p in found for q in p.kinds.values()) == sorted(COLLECTED)
    with pytest.raises(WagleError, match="quantity 'grad_forgot'; did you mean 'grad_forget'"):
        plan_passes(["grad_forgot"], SETS)


def test_groups_are_taken_in_record_order_and_the_last_may_be_smaller():
    tokens = records(3, 9, 2, 5, 4)
    which = Pass("retain", tokens, {"square": "s"}, group=2)
    batches = which.batches(1)  # whatever the budget
    assert [b["index"].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert [b["input_ids"].shape for b in batches] == [(2, 9), (2, 5), (1, 4)]
    assert which.groups() == 3
    assert which.backward
    free = Pass("forget", tokens, {"inputs": "i"})
    assert [b["index"].tolist() for b in free.batches(10)] == [[1], [3, 4], [0, 2]]
    assert not free.backward


def graded(values):
    """A parameter with this gradient."""
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


def test_a_mean_is_weighed_by_its_batch_and_a_square_by_its_group():
    which = Pass("retain", records(2, 2, 2), {"mean": "m", "square": "s"}, group=2)
    sums = Sums(which, {"w": nn.Parameter(torch.zeros(2))})
    for share, gradient in ((2 / 3, [3.0, -6.0]), (1 / 3, [9.0, 0.0])):
        sums.share = share
        parameter = graded(gradient)
        sums.take("w", parameter)
        assert parameter.grad is None
    found = sums.finish()
    assert found["m"]["w"].tolist() == pytest.approx([5.0, -4.0])  # 2 + 3, -4
    assert found["s"]["w"].tolist() == pytest.approx([45.0, 18.0])  # (9 + 81) / 2, 36 / 2


def test_the_first_gradient_does_not_meet_what_lay_in_memory_before():
    sums = Sums(Pass("f", records(2), {"mean": "m"}), {"w": nn.Parameter(torch.zeros(2))})
    sums._room["m"]["w"].fill_(float("nan"))
    sums.take("w", graded([1.0, 2.0]))
    assert sums.finish()["m"]["w"].tolist() == [1, 2]


def test_sums_go_on_from_an_earlier_part_and_an_unused_parameter_has_zeros():
    shapes = {"a": (2, 2), "b": (3,), "c": ()}
    parameters = {n: nn.Parameter(torch.ones(s)) for n, s in shapes.items()}
    sums = Sums(Pass("f", records(2), {"mean": "m", "inputs": "i"}), parameters)
    kept = torch.tensor([1.0, 2.0, 3.0])
    sums.start({"m": {"b": kept}})
    sums.take("b", graded([1.0, 1.0, 1.0]))
    assert kept.tolist() == [1, 2, 3]
    found = sums.finish()
    assert set(found) == {"m"}  # inputs are not summed here
    assert {n: t.shape for n, t in found["m"].items()} == {n: tuple(s) for n, s in shapes.items()}
    assert found["m"]["b"].tolist() == [2, 3, 4]
    assert not found["m"]["a"].any()


def test_only_the_finished_parameters_leave_and_leave_nothing_behind():
    sums = Sums(
        Pass("f", records(2), {"mean": "m"}), {n: nn.Parameter(torch.zeros(1)) for n in "ab"}
    )
    for name in "ab":
        sums.take(name, graded([4.0]))
    assert list(sums.finish(["b"])["m"]) == ["b"]
    assert list(sums.found["m"]) == ["a"]


@pytest.mark.parametrize("bad", [[float("nan"), 0.0], [float("inf"), float("-inf")]])
def test_a_gradient_that_is_not_finite_names_its_parameter_and_set(bad):
    sums = Sums(Pass("retain", records(2), {"mean": "m"}), {"w": nn.Parameter(torch.zeros(2))})
    sums.take("w", graded(bad))
    with pytest.raises(WagleError, match="gradient of w on the retain set is not finite; try flo"):
        sums.finish()


def test_finite_gradients_whose_sum_is_not_are_fine():
    sums = Sums(Pass("f", records(2), {"mean": "m"}), {"w": nn.Parameter(torch.zeros(2))})
    sums.take("w", graded([3e38, 3e38]))
    assert torch.isfinite(sums.finish()["m"]["w"]).all()


def test_hooks_take_gradients_as_they_come_and_are_gone_afterwards():
    weight = nn.Parameter(torch.tensor([2.0, 3.0]))
    sums = Sums(Pass("f", records(2), {"mean": "m"}), {"w": weight})
    sums.share = 0.5
    with sums.hooked():
        (weight * weight).sum().backward()
        assert weight.grad is None
    (weight * 7).sum().backward()
    assert weight.grad.tolist() == [7, 7]
    assert sums.finish()["m"]["w"].tolist() == [2, 3]


# ---------------------------------------------------------------------------------------------
# Inputs


def test_inputs_are_squared_and_summed_over_real_tokens_and_take_the_layers_direction():
    layers = {"up": nn.Linear(2, 3), "turned": Conv1D(3, 2), "idle": nn.Linear(2, 2)}
    inputs = Inputs(Pass("forget", records(2, 2), {"inputs": "x"}), layers)
    inputs.real = torch.tensor([[1, 0], [1, 1]])
    entered = torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[3.0, 0.0], [1.0, -1.0]]])
    with inputs.hooked():
        for _ in range(2):  # two batches alike
            layers["up"](entered)
        layers["turned"](entered.bfloat16().float())
    layers["idle"](entered)
    found = inputs.finish()["x"]
    assert set(found) == {"up", "turned"}
    assert found["up"].tolist() == [[11.0, 5.0]]  # 2 (1 + 9 + 1) / 2, 2 (4 + 0 + 1) / 2
    assert found["turned"].tolist() == [[5.5], [2.5]]
    assert inputs.found == {}


def test_a_layer_that_sees_a_part_of_the_positions_is_refused():
    layers = {"expert": nn.Linear(2, 2)}
    inputs = Inputs(Pass("forget", records(2), {"inputs": "x"}), layers)
    inputs.real = torch.ones(1, 3)
    with (
        inputs.hooked(),
        pytest.raises(
            WagleError, match=r"^expert sees 2 positions instead of 3, so padding cannot"
        ),
    ):
        layers["expert"](torch.ones(2, 2))


def test_the_linear_layers_are_those_inside_the_blocks():
    model = make_model("llama-untied")
    found = linear_layers(model)
    assert all(n.startswith("model.layers.") and n.endswith("_proj.weight") for n in found)
    assert len(found) == 2 * 7
    assert all(model.get_parameter(n) is layer.weight for n, layer in found.items())
    assert transposed(model) == []


def test_the_layers_of_gpt2_are_transposed():
    model = make_model("gpt2")
    assert transposed(model) == list(linear_layers(model))
    assert len(transposed(model)) == 2 * 4
    assert all("weight" in n for n in transposed(model))


def test_the_record_whose_loss_is_not_finite_is_named():
    tokens = records(2, 2, 2, 2)
    batch = {"index": torch.tensor([3, 1])}
    check_loss(torch.tensor([1.0, 2.0]), batch, tokens)
    with pytest.raises(WagleError, match=r"the loss of forget\[1\] is not finite; check the model"):
        check_loss(torch.tensor([1.0, float("inf")]), batch, tokens)
