import inspect
import json
import sys

import pytest
import torch
from torch import nn

from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning.training.optimizers import (
    OPTIMIZERS,
    SophiaG,
    check_optimizer,
    load_optimizer,
    make_optimizer,
    save_optimizer,
)

BITSANDBYTES = sorted(name for name, found in OPTIMIZERS.items() if isinstance(found, str))
paged = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")


def _parameter(*values):
    return nn.Parameter(torch.tensor(values))


def _step(optimizer, *gradient):
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = torch.tensor(gradient)
    optimizer.step()
    return parameter.detach().clone()


# ---------------------------------------------------------------------------------------------
# Sophia-G


def test_without_curvature_every_entry_moves_by_exactly_the_learning_rate():
    start = torch.tensor([0.5, -0.25, 3.0, 1.0])
    optimizer = SophiaG([nn.Parameter(start.clone())], lr=1e-3)
    got = _step(optimizer, 2.0, -1e-6, 0.0, 40.0)
    assert torch.equal(got, start - 1e-3 * torch.tensor([1.0, -1.0, 0.0, 1.0]))


def test_under_a_large_curvature_an_entry_moves_by_momentum_over_curvature():
    start = _parameter(0.0, 0.0)
    optimizer = SophiaG([start], lr=0.5, betas=(0.9, 0.0), rho=0.04)
    optimizer.update_curvature({start: torch.tensor([10.0, 20.0])}, count=3)  # h = 300, 1200
    got = _step(optimizer, 2.0, -6.0)  # m = 0.2, -0.6
    expected = torch.tensor([-0.5 * 0.2 / (0.04 * 300), 0.5 * 0.6 / (0.04 * 1200)])
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_two_steps_of_sophia_match_values_worked_out_by_hand():
    optimizer = SophiaG([_parameter(1.0)], lr=0.1, betas=(0.5, 0.75), rho=0.5, weight_decay=0.5)
    (parameter,) = optimizer.param_groups[0]["params"]
    optimizer.update_curvature({parameter: torch.tensor([2.0])}, count=4)  # h = 0.25 * 16 = 4
    # theta 0.95, m = 1, step 0.1 * 1 / (0.5 * 4)
    torch.testing.assert_close(_step(optimizer, 2.0).item(), 0.95 - 0.05, rtol=1e-6, atol=0)
    optimizer.update_curvature({parameter: torch.tensor([1.0])}, count=4)  # h = 3 + 1 = 4
    # theta 0.855, m = 0.5 - 4 = -3.5, clipped
    torch.testing.assert_close(_step(optimizer, -8.0).item(), 0.855 + 0.1, rtol=1e-6, atol=0)


def test_curvature_from_the_training_gradient_is_the_running_mean_of_its_square():
    # SOUL's curvature: each step, the objective's own gradient, a count of 1
    parameter = _parameter(0.0, 0.0)
    optimizer = SophiaG([parameter], betas=(0.9, 0.95))
    h = torch.zeros(2)
    for gradient in torch.tensor([[1.0, -2.0], [3.0, 0.5], [0.0, 4.0]]):
        optimizer.update_curvature({parameter: gradient}, count=1)
        h = 0.95 * h + 0.05 * gradient * gradient
    torch.testing.assert_close(optimizer.state[parameter]["curvature"], h, rtol=1e-6, atol=0)


def test_parameters_without_a_gradient_or_an_estimate_keep_what_they_have():
    still, moved = _parameter(1.0), _parameter(1.0)
    optimizer = SophiaG([still, moved], lr=0.1, weight_decay=0.5)
    moved.grad = torch.tensor([1.0])
    optimizer.step()
    optimizer.update_curvature({moved: torch.tensor([1.0])}, count=2)
    assert still.item() == 1.0
    assert still not in optimizer.state
    assert optimizer.state[moved]["curvature"].item() == pytest.approx(0.02)


def test_sophia_asks_a_closure_for_the_loss_with_gradients_on():
    parameter = _parameter(3.0)
    optimizer = SophiaG([parameter], lr=0.5)

    def closure():
        loss = (parameter**2).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 9.0
    assert parameter.item() == 2.5


# ---------------------------------------------------------------------------------------------
# Making one


def test_weight_decay_applies_to_its_group_only_and_empty_groups_are_left_out():
    decayed, spared = _parameter(1.0), _parameter(1.0)
    groups = [
        {"params": [decayed], "decay": True},
        {"params": [], "decay": True},
        {"params": [spared], "decay": False},
    ]
    optimizer = make_optimizer(groups, Training(learning_rate=0.1, weight_decay=0.5))
    decayed.grad, spared.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert decayed.item() == pytest.approx(0.95)
    assert spared.item() == 1.0
    assert len(optimizer.param_groups) == 2


def test_settings_reach_the_optimizer_as_a_recipe_writes_them():
    training = Training(optimizer="SophiaG", optimizer_settings={"betas": [0.5, 0.75], "rho": 0.1})
    optimizer = make_optimizer([{"params": [_parameter(1.0)], "decay": False}], training)
    assert isinstance(optimizer, SophiaG)
    assert optimizer.param_groups[0]["betas"] == [0.5, 0.75]
    assert optimizer.param_groups[0]["rho"] == 0.1
    assert optimizer.param_groups[0]["lr"] == training.learning_rate


BAD = [
    ("AdmW", {}, 0, "unknown element-wise optimizer 'AdmW'; did you mean 'AdamW'"),
    ("LBFGS", {}, 0, "unknown element-wise optimizer 'LBFGS'"),
    ("AdamW", {"beta": 1}, 0, "cannot make AdamW: it has no setting 'beta'; did you mean 'betas'"),
    ("SGD", {"params": []}, 0, "cannot make SGD: it has no setting 'params'"),
    ("AdamW", {"lr": 1}, 0, "optimizer_settings.lr is not a setting; set learning_rate"),
    ("SGD", {"weight_decay": 1}, 0, "optimizer_settings.weight_decay .*; set weight_decay"),
    ("AdamW", {"betas": [2, 0.9]}, 0, "cannot make AdamW with .*Invalid beta parameter"),
    ("AdamW", {"foreach": True}, 0, "cannot make AdamW with .*fused"),
    ("Rprop", {}, 0.1, "Rprop has no weight decay; set weight_decay: 0"),
    ("SophiaG", {"rho": 0}, 0, "cannot make SophiaG with .*rho and eps must be above 0"),
    ("SophiaG", {"eps": 0}, 0, "cannot make SophiaG with .*rho and eps must be above 0"),
    ("SophiaG", {"betas": [0.9]}, 0, "give two numbers in"),
    ("SophiaG", {"betas": [0.9, 1.0]}, 0, "give two numbers in"),
]


@pytest.mark.parametrize(("name", "settings", "decay", "said"), BAD)
def test_what_cannot_be_made_is_one_line_before_anything_is_computed(name, settings, decay, said):
    training = Training(optimizer=name, optimizer_settings=settings, weight_decay=decay)
    with pytest.raises(WagleError, match=said) as caught:
        check_optimizer(training)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"weight_decay": -1.0}])
def test_sophia_refuses_negative_rates(settings):
    with pytest.raises(ValueError, match="at least 0"):
        SophiaG([_parameter(1.0)], **settings)


@pytest.mark.parametrize("name", BITSANDBYTES)
def test_without_its_library_an_optimizer_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    said = f"{name} needs bitsandbytes: pip install 'wagle\\[8bit\\]'"
    with pytest.raises(WagleError, match=said):
        check_optimizer(Training(optimizer=name))


# ---------------------------------------------------------------------------------------------
# Saving and loading


VARIANTS = [
    *((name, {}) for name in OPTIMIZERS),
    ("SGD", {"momentum": 0.9}),
    ("AdamW", {"amsgrad": True}),
    ("AdamW", {"fused": False}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
]
SIZES = ((5, 5000), (7,))  # one is large enough for an 8-bit state


def _new(name, settings, start=None):
    training = Training(optimizer=name, optimizer_settings=settings, learning_rate=1e-2)
    start = start or [[torch.linspace(-1, 1, n) for n in group] for group in SIZES]
    groups = [
        {"params": [nn.Parameter(values.clone()) for values in group], "decay": decay}
        for group, decay in zip(start, (True, False), strict=True)
    ]
    return make_optimizer(groups, training)


def _parameters(optimizer):
    return [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]


def _take(optimizer, step):
    generator = torch.Generator().manual_seed(step)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    if isinstance(optimizer, SophiaG):
        estimates = {p: p.grad for group in optimizer.param_groups for p in group["params"]}
        optimizer.update_curvature(estimates, count=step + 1)
    optimizer.step()


@paged
@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_every_optimizer_goes_on_bit_for_bit_from_its_saved_state(name, settings):
    if name in BITSANDBYTES:
        pytest.importorskip("bitsandbytes")
    first = _new(name, settings)
    for step in range(2):
        _take(first, step)
    first.param_groups[0]["lr"] = 0.003  # as a schedule leaves it
    tensors, rest = save_optimizer(first)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    rest = json.loads(json.dumps(rest, allow_nan=False))
    second = _new(name, settings, _parameters(first))
    load_optimizer(second, tensors, rest)
    _take(first, 2)
    _take(second, 2)
    for one, other in zip(_parameters(first), _parameters(second), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert [{k: v for k, v in group.items() if k != "params"} for group in first.param_groups] == [
        {k: v for k, v in group.items() if k != "params"} for group in second.param_groups
    ]


@pytest.mark.parametrize("name", BITSANDBYTES)
@paged
def test_only_large_vectors_have_an_eight_bit_state(name):
    pytest.importorskip("bitsandbytes")
    optimizer = _new(name, {})
    _take(optimizer, 0)
    tensors, _ = save_optimizer(optimizer)
    eight = torch.uint8 if "8bit" in name else torch.float32
    assert tensors["0::state1"].dtype == torch.float32
    assert tensors["1::state1"].dtype == eight


def test_the_keys_count_parameters_over_all_groups_and_saving_makes_no_state():
    optimizer = _new("AdamW", {})
    optimizer.param_groups[1]["params"][0].grad = torch.ones(7)
    optimizer.step()
    tensors, rest = save_optimizer(optimizer)
    assert set(tensors) == {"2::step", "2::exp_avg", "2::exp_avg_sq"}
    assert rest["sizes"] == [[5, 5000], [7]]
    assert len(optimizer.state) == 1


def test_the_state_of_another_optimizer_or_mask_is_refused():
    tensors, rest = save_optimizer(_new("AdamW", {}))
    said = "saved optimizer state is for AdamW on 5012 weights in 3 tensors, but this run has SGD on 5012"
    with pytest.raises(WagleError, match=said):
        load_optimizer(_new("SGD", {}), tensors, rest)
    other = _new("AdamW", {}, [[torch.zeros(3)], [torch.zeros(7)]])
    with pytest.raises(WagleError, match="this run has AdamW on 10 weights in 2 tensors"):
        load_optimizer(other, tensors, rest)


def test_the_table_holds_what_torch_has_and_nothing_that_mixes_entries():
    known = {n for n, v in vars(torch.optim).items() if inspect.isclass(v)}
    mixing = {"Adafactor", "LBFGS", "Muon", "Optimizer", "SparseAdam"}  # Muon is young
    assert known - set(OPTIMIZERS) == known & mixing


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(BITSANDBYTES)))
def test_every_entry_of_the_table_treats_entries_alone(name):
    whole, parts = _new(name, {}, [[torch.ones(6)], [torch.ones(1)]]), []
    for cut in ((0, 2), (2, 6)):
        parts.append(_new(name, {}, [[torch.ones(cut[1] - cut[0])], [torch.ones(1)]]))
    gradients = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    for gradient in gradients:
        for optimizer, piece in (
            (whole, gradient),
            (parts[0], gradient[:2]),
            (parts[1], gradient[2:]),
        ):
            optimizer.param_groups[0]["params"][0].grad = piece.clone()
            optimizer.step()
    cut = torch.cat([_parameters(part)[0][0] for part in parts])
    torch.testing.assert_close(cut, _parameters(whole)[0][0], rtol=1e-6, atol=0)
