"""Where models compute, told by what they are asked to do: no card is needed."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wagle.attribution.gradients import blocks
from wagle.model import placing
from wagle.model.placing import place
from wagle.system.processes import group


class Recorded(nn.Module):
    """A model whose weights exist by shape only; it notes where it is sent."""

    def __init__(self, size=1000):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, device="meta"))
        self.went = []

    def to(self, device):
        self.went.append(str(device))
        return self


@pytest.fixture
def card(monkeypatch):
    """Three cards, of which this process has the second, with room for 1,200 numbers."""
    monkeypatch.setenv("LOCAL_RANK", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(placing, "free_memory", lambda device: 4800 if device.index == 1 else 0)


@pytest.mark.usefixtures("card")
def test_every_process_has_a_card_of_its_own():
    assert group.local_device() == torch.device("cuda", 1)
    model = Recorded()
    assert place(model) is model
    assert model.went == ["cuda:1"]


@pytest.mark.usefixtures("card")
def test_a_model_that_does_not_fit_is_asked_on_the_cpu_unless_it_must_be_there(caplog):
    model = Recorded(1001)
    with caplog.at_level(logging.WARNING):
        assert place(model).went == []
    assert "does not fit on cuda:1" in caplog.text
    assert place(model, must=True).went == ["cuda:1"]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("mark", ["is_quantized", "hf_device_map"])
def test_what_is_placed_already_stays(mark):
    model = Recorded()
    setattr(model, mark, {"": 0} if mark == "hf_device_map" else True)
    assert place(model, must=True).went == []


def test_without_a_card_nothing_moves():
    assert place(Recorded(), must=True).went == []


class Copied:
    """A tensor that notes how it is copied."""

    nbytes = 0

    def __init__(self, log):
        self.log = log

    def pin_memory(self):
        self.log.append("pinned")
        return self

    def to(self, device, *, non_blocking=False):
        self.log.append((str(device), non_blocking))
        return self


@pytest.mark.parametrize(
    ("device", "wanted"),
    [("cuda", ["pinned", ("cuda", True)]), ("cpu", [("cpu", True)])],
)
def test_blocks_are_pinned_before_they_are_copied_to_a_card(device, wanted):
    log = []
    weights = SimpleNamespace(load=lambda names, *_: {n: Copied(log) for n in names})
    own = SimpleNamespace(
        _weights=weights, names=[["a"]], dtype=torch.float32, device=torch.device(device)
    )
    own.read, own._held, own._fit, own.reuse = 0, None, lambda *_: False, False
    found = blocks.Blocks._read(own, 0)
    own._next, own.blocks, own._read = (0, SimpleNamespace(result=lambda: found)), [0], None
    blocks.Blocks.load(own, 0, 0)
    assert log == wanted
