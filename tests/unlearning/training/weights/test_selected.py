import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.unlearning.conftest import bits_equal, mask_of, same, weights
from wagle.unlearning.training.weights.rounding import stochastic_bfloat16
from wagle.unlearning.training.weights.selected import SelectedWeights


class Toy(nn.Module):
    """A matrix, a vector, and a buffer beside them."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(5, 4, generator=generator).to(dtype))
        self.bias = nn.Parameter(torch.randn(5, generator=generator).to(dtype))
        self.register_buffer("scale", torch.arange(5.0))

    def forward(self, x):
        return (x @ self.weight.T + self.bias) * self.scale


def _loss(model, scale=1.0):
    return scale * model(torch.arange(8.0).view(2, 4).to(model.weight.dtype)).square().mean()


def _toy(dtype=torch.float32, ratio=0.4):
    model = Toy(dtype)
    mask = None if ratio is None else mask_of(model, ratio)
    return model, mask, SelectedWeights(model, mask)


KINDS = [(d, r) for d in (torch.float32, torch.bfloat16) for r in (0.4, 1.0, None)]


@pytest.mark.parametrize(("dtype", "ratio"), KINDS)
def test_the_masters_are_the_selected_entries_in_float32(dtype, ratio):
    model, mask, selected = _toy(dtype, ratio)
    for name, master in selected.named_masters():
        old = model.get_parameter(name).detach()
        wanted = old.reshape(-1) if mask is None else old[mask[name]]
        assert master.dtype == torch.float32
        assert torch.equal(master.detach(), wanted.float())
    assert selected.count == (25 if mask is None else mask.count)


@pytest.mark.parametrize(("dtype", "ratio"), KINDS)
def test_a_slot_holds_the_selected_entries_of_the_gradient_and_no_dense_one_is_left(dtype, ratio):
    model, mask, selected = _toy(dtype, ratio)
    gradients = torch.autograd.grad(_loss(model), model.parameters())
    expected = dict(zip(weights(model), gradients, strict=True))
    with selected.into("forget"):
        _loss(model).backward()
    assert model.weight.grad is None
    assert model.bias.grad is None
    names = [name for name, _ in selected.named_masters()]
    for name, got in zip(names, selected.take("forget"), strict=True):
        whole = expected[name]
        assert torch.equal(got, (whole.reshape(-1) if mask is None else whole[mask[name]]).float())
    assert all(not g.any() for g in selected.take("forget"))  # emptied: zeros from now on


def test_backward_passes_add_up_within_a_slot_and_slots_are_apart():
    model, _, selected = _toy()
    _loss(model).backward()
    once = selected.take("total")
    for scale in (1.0, 2.0):
        _loss(model, scale).backward()
        with selected.into("retain"):
            _loss(model, 10.0).backward()
    for one, three, ten in zip(once, selected.take("total"), selected.take("retain"), strict=True):
        torch.testing.assert_close(three, 3 * one)
        torch.testing.assert_close(ten, 20 * one)


def test_clipping_is_by_the_norm_of_all_selected_gradients_together():
    _, _, selected = _toy(ratio=None)
    gradients = [torch.full((20,), 3.0), torch.full((5,), -4.0)]
    norm = math.sqrt(20 * 9 + 5 * 16)
    selected.give([g.clone() for g in gradients])
    assert selected.ready(0.0) == pytest.approx(norm)
    kept = [m.grad for _, m in selected.named_masters()]
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients, strict=True))
    selected.give([g.clone() for g in gradients])
    assert selected.ready(norm / 2) == pytest.approx(norm)
    for master, gradient in zip(selected.named_masters(), gradients, strict=True):
        torch.testing.assert_close(master[1].grad, gradient / 2, rtol=1e-5, atol=0)


def test_rows_say_which_output_every_selected_entry_belongs_to():
    _, mask, selected = _toy()
    names = [name for name, _ in selected.named_masters()]
    rows = dict(zip(names, selected.rows(), strict=True))
    assert rows["bias"] is None
    assert rows["weight"].tolist() == mask["weight"].nonzero()[:, 0].tolist()
    _, _, everything = _toy(ratio=None)
    assert everything.rows()[0].tolist() == [row for row in range(5) for _ in range(4)]


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    ratio=st.sampled_from([0.1, 0.5, 1.0, None]),
    stochastic=st.booleans(),
    seed=st.integers(0, 99),
)
def test_only_selected_entries_are_written_whatever_the_masters_become(
    dtype, ratio, stochastic, seed
):
    model, mask, selected = _toy(dtype, ratio)
    before = weights(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, master in selected.named_masters():
            master.mul_(1 + torch.randn(master.shape, generator=generator))

    def narrow(values, name, part):
        return stochastic_bfloat16(values, (seed, name, part))

    selected.write_back(narrow if stochastic and dtype == torch.bfloat16 else None)
    selected.verify()
    for name, old in before.items():
        new = model.get_parameter(name).detach()
        chosen = torch.ones_like(old, dtype=torch.bool) if mask is None else mask[name]
        assert bits_equal(new[~chosen], old[~chosen])
    changed = sum(int((model.get_parameter(n) != old).sum()) for n, old in before.items())
    assert selected.changed() == changed
    selected.reset()
    assert same(model, before)


@pytest.mark.parametrize(("dtype", "ratio"), KINDS)
def test_shifted_weights_are_bit_identical_again_afterwards_even_after_an_error(dtype, ratio):
    model, mask, selected = _toy(dtype, ratio)
    with torch.no_grad():  # masters that the model's precision does not hold
        for _, master in selected.named_masters():
            master.add_(1e-4)
    selected.write_back()
    before, masters = weights(model), {n: m.detach().clone() for n, m in selected.named_masters()}
    shift = [torch.full_like(m, 0.3) for m in masters.values()]
    with selected.shifted(shift):
        for name, master in masters.items():
            now = model.get_parameter(name).detach()
            picked = now.reshape(-1) if mask is None else now[mask[name]]
            assert torch.equal(picked, (master + 0.3).to(dtype))
    assert same(model, before)
    with pytest.raises(KeyError), selected.shifted(shift):
        raise KeyError
    assert same(model, before)
    assert all(torch.equal(m.detach(), masters[n]) for n, m in selected.named_masters())


def test_a_soft_threshold_draws_towards_zero_and_stops_there():
    model, _, selected = _toy(ratio=None)
    before = weights(model)
    selected.soft_threshold(0.5, {"weight"})
    selected.write_back()
    pairs = zip(model.weight.flatten().tolist(), before["weight"].flatten().tolist(), strict=True)
    for new, old in pairs:
        assert new == pytest.approx(math.copysign(max(abs(old) - 0.5, 0.0), old), abs=1e-7)
    assert torch.equal(model.bias, before["bias"])


@pytest.mark.parametrize(("dtype", "ratio"), KINDS)
@pytest.mark.parametrize("scale", [0.0, 1.0, -1.0, 2.0])
def test_extrapolation_scales_the_difference_to_the_weights_before(dtype, ratio, scale):
    model, mask, selected = _toy(dtype, ratio)
    before, moved = weights(model), {}
    with torch.no_grad():
        for name, master in selected.named_masters():
            master.add_(torch.linspace(-1, 1, len(master)))
            moved[name] = master.detach().clone()
    selected.extrapolate(scale)
    selected.write_back()
    for name, old in before.items():
        start = old.float().reshape(-1) if mask is None else old.float()[mask[name]]
        wanted = (scale * (moved[name] - start) + start).to(dtype)
        new = model.get_parameter(name).detach()
        assert torch.equal(new.reshape(-1) if mask is None else new[mask[name]], wanted)
        if mask is not None:
            assert bits_equal(new[~mask[name]], old[~mask[name]])
    if scale == 0.0:
        assert selected.changed() == 0


def test_masters_that_were_stored_come_back_bit_for_bit():
    model, _, selected = _toy(torch.bfloat16)
    with torch.no_grad():
        for _, master in selected.named_masters():
            master.add_(1e-4)
    selected.write_back()
    kept = {n: t.clone() for n, t in selected.masters().items()}
    after = weights(model)
    other, _, fresh = _toy(torch.bfloat16)
    fresh.restore(kept)
    assert same(other, after)
    assert all(torch.equal(fresh.masters()[n], kept[n]) for n in kept)


@pytest.mark.parametrize("ratio", [0.4, 1.0, None])
def test_a_model_is_rounded_to_what_is_saved_and_counted_in_that(ratio):
    model = Toy()
    with torch.no_grad():
        for p in model.parameters():  # as a bfloat16 folder holds them
            p.copy_(p.bfloat16())
    before, mask = weights(model), None if ratio is None else mask_of(model, ratio)
    selected = SelectedWeights(model, mask, saved={"weight": torch.bfloat16})
    assert selected.saved == [torch.bfloat16, torch.float32]
    with torch.no_grad():
        for _, master in selected.named_masters():
            master[::2] *= 1 + 2.0**-6  # past one spacing of bfloat16
            master[1::2] *= 1 + 2.0**-12  # under half of one
    selected.write_back()
    exact = weights(model)
    selected.settle()
    assert torch.equal(model.weight, exact["weight"].bfloat16().float())
    assert same(model, {"weight": model.weight.detach(), "bias": exact["bias"]})
    moved = {n: int((model.get_parameter(n) != old).sum()) for n, old in before.items()}
    sizes = {n: m.numel() for n, m in selected.named_masters()}
    assert moved == {"weight": -(-sizes["weight"] // 2), "bias": sizes["bias"]}
    assert selected.changed() == sum(moved.values())
    selected.verify()


@pytest.mark.parametrize("what", ["unselected entry", "unselected parameter", "buffer"])
def test_whatever_moves_outside_the_mask_is_noticed(what):
    model = Toy()
    mask = mask_of(model, 0.5, among=lambda name: name == "weight")
    selected = SelectedWeights(model, mask)
    selected.verify()
    outside = (~mask["weight"]).nonzero()[0]
    with torch.no_grad():
        if what == "unselected entry":
            model.weight[tuple(outside)] += 1e-6
        elif what == "unselected parameter":
            model.bias[2] = -model.bias[2]
        else:
            model.scale[0] = -0.0
    name = {"unselected entry": "weight", "unselected parameter": "bias", "buffer": "scale"}[what]
    with pytest.raises(RuntimeError, match=f"unselected weights of {name} changed"):
        selected.verify()


def test_parameters_that_take_no_part_need_no_gradient_until_the_end():
    model = Toy()
    selected = SelectedWeights(model, None, {"bias"})
    assert [name for name, _ in selected.named_masters()] == ["bias"]
    assert not model.weight.requires_grad
    _loss(model).backward()
    assert model.weight.grad is None
    selected.close()
    assert model.weight.requires_grad
    assert not model.bias._post_accumulate_grad_hooks
