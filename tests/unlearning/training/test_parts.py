"""Optimisers that step on one part of the weights after another."""

import inspect

import pytest
import torch
from torch import nn

from wagle.recipe.sections.training import Training
from wagle.system.mapped import Room, is_mapped
from wagle.unlearning.training.optimizers import OPTIMIZERS, SophiaG, make_optimizer, save_optimizer
from wagle.unlearning.training.parts import step_in_parts

NAMES = sorted(name for name, kind in OPTIMIZERS.items() if inspect.isclass(kind))


def _made(name):
    generator = torch.Generator().manual_seed(1)
    masters = [nn.Parameter(torch.randn(n, generator=generator)) for n in (5, 1, 40, 7)]
    groups = [{"params": masters[:3], "decay": True}, {"params": masters[3:], "decay": False}]
    return masters, make_optimizer(groups, Training(optimizer=name, learning_rate=0.01))


def _step(masters, optimizer, number):
    generator = torch.Generator().manual_seed(number)
    for master in masters:
        master.grad = torch.randn(master.shape, generator=generator)
    if isinstance(optimizer, SophiaG) and number == 2:
        optimizer.update_curvature({m: m.grad for m in masters}, 3)
    optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_every_optimiser_steps_in_parts_as_it_does_at_once(name, tmp_path):
    masters, optimizer = _made(name)
    others, in_parts = _made(name)
    step_in_parts(in_parts, [others[2:], others[:2]], Room(on_disk=True, folder=tmp_path))
    assert isinstance(in_parts, type(optimizer))
    for number in range(4):
        _step(masters, optimizer, number)
        _step(others, in_parts, number)
    for one, other in zip(masters, others, strict=True):
        assert torch.equal(one, other)
    (kept, rest), (kept_in_parts, rest_in_parts) = map(save_optimizer, (optimizer, in_parts))
    assert rest == rest_in_parts
    assert kept.keys() == kept_in_parts.keys()
    for key, value in kept.items():
        assert torch.equal(value, kept_in_parts[key])
        sizes = masters[int(key[0])].shape
        assert is_mapped(kept_in_parts[key]) == (value.shape == sizes)


def test_a_step_that_fails_leaves_the_groups_whole(monkeypatch):
    masters, optimizer = _made("AdamW")
    step_in_parts(optimizer, [masters[:1], masters[1:]], Room(on_disk=False))

    def fail(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(RuntimeError, match="no"):
        optimizer.step()
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 1]
