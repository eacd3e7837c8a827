"""Which engine is taken, and sums under way that a killed one left."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wagle.attribution.gradients import engines
from wagle.attribution.gradients.engines import choose_engine
from wagle.attribution.gradients.passes import Inputs, Job, Pass, Sums
from wagle.attribution.gradients.sweep import flatten, unflatten
from wagle.model.structure import DTYPES
from wagle.system.errors import WagleError


def test_sums_under_way_come_back_by_quantity_and_name():
    which = Pass("forget", [], {"mean": "m", "inputs": "i"})
    sums = Sums(which, {"a": nn.Parameter(torch.ones(1)), "b c": nn.Parameter(torch.ones(1))})
    sums.start({"m": {"b c": torch.tensor([4.0])}})
    inputs = Inputs(which, {})
    inputs.found["a"] = torch.tensor([5.0])
    flat = flatten(sums, inputs)
    assert sorted(flat) == ["i a", "m b c"]
    device = torch.device("cpu")
    assert unflatten(flat, device, ["m"]) == {"m": {"b c": flat["m b c"]}}
    assert unflatten(flat, device, ["i", "other"]) == {"i": {"a": flat["i a"]}, "other": {}}
    assert sorted(flatten(sums, None)) == ["m b c"]


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_auto_takes_whole_up_to_the_byte_that_is_free(monkeypatch, tmp_path, dtype, in_memory):
    need = 1000 * ((2 if dtype == "bfloat16" else 4) + (8 if in_memory else 4)) + 1_300_000_000
    weights = SimpleNamespace(count=lambda: 1000, close=lambda: None)
    monkeypatch.setattr(engines, "Weights", lambda _: weights)
    for free, engine in ((need, "whole"), (need - 1, "stream")):
        monkeypatch.setattr(engines, "free_memory", lambda _, free=free: free)
        assert choose_engine("auto", tmp_path, Job(dtype=dtype), in_memory=in_memory) == engine


def test_a_live_model_is_whole_and_never_streamed():
    live, job = nn.Linear(1, 1), Job()
    assert choose_engine("auto", live, job, in_memory=True) == "whole"
    assert choose_engine("whole", live, job, in_memory=True) == "whole"
    with pytest.raises(WagleError, match="engine stream reads its weights from a model folder"):
        choose_engine("stream", live, job, in_memory=True)
    with pytest.raises(WagleError, match="engine 'streem'; did you mean 'stream'"):
        choose_engine("streem", live, job, in_memory=True)
