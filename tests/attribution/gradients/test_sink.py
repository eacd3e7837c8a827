"""Where finished gradients go, and what survives a kill."""

import time

import pytest
import torch
from safetensors.torch import load_file

from wagle.attribution.gradients import sink as module
from wagle.attribution.gradients.sink import Sink
from wagle.system.errors import WagleError
from wagle.system.files.tensors import TensorFile


def test_in_memory_parts_are_joined_in_the_dtype_of_the_store():
    with Sink(None, torch.bfloat16) as sink:
        sink.add("00000", {"g": {"a": torch.tensor([1 + 2**-12])}, "h": {}})
        sink.add("head", {"g": {"b": torch.ones(2)}})
        sink.keep("sums", {"x": torch.ones(1)}, {"pass": 0})
        assert sink.kept("sums") is None
        assert not sink.due()
        sink.wait()
    assert set(sink.tensors) == {"g", "h"}
    assert set(sink.tensors["g"]) == {"a", "b"}
    assert sink.tensors["g"]["a"].dtype == torch.bfloat16
    assert sink.tensors["g"]["a"].item() == 1


def test_every_part_of_a_quantity_is_a_shard_and_a_part_of_none_is_no_file(tmp_path):
    with Sink(tmp_path, torch.float32, {"model": "a1"}) as sink:
        sink.add("00000", {"g": {"a": torch.arange(3.0)}, "h": {}})
        sink.add("head", {"g": {"b": torch.ones(2)}, "h": {"b": torch.zeros(2)}})
    names = ["g-00000.safetensors", "g-head.safetensors", "h-head.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert load_file(tmp_path / names[0])["a"].tolist() == [0, 1, 2]
    with TensorFile(tmp_path / names[1]) as file:
        assert file.metadata.pop("digest")
        assert file.metadata == {"model": "a1"}
    assert sink.tensors == {}


def test_what_was_kept_comes_back_until_the_work_is_done(tmp_path):
    half = torch.ones(2, dtype=torch.bfloat16)
    with pytest.raises(KeyboardInterrupt), Sink(tmp_path, torch.float32) as sink:
        keep_and_stop(sink, {"g w": half, "h w": torch.arange(2)})
    with Sink(tmp_path, torch.float32) as again:
        tensors, state = again.kept("sums")
        assert state == {"pass": 1, "batches": 7}
        assert tensors["g w"].dtype == torch.bfloat16  # as it was, not as shards are
        assert tensors["h w"].tolist() == [0, 1]
        assert again.kept("carry") is None
    assert list(tmp_path.iterdir()) == []


def keep_and_stop(sink, tensors):
    sink.keep("sums", tensors, {"pass": 1, "batches": 7})
    raise KeyboardInterrupt  # what was kept is written to its end all the same


def test_an_error_of_the_writing_comes_out_where_one_waits(tmp_path):
    sink = Sink(tmp_path / "gone", torch.float32)
    (tmp_path / "gone").write_text("a file")
    sink.add("00000", {"g": {"a": torch.ones(1)}})
    with pytest.raises(WagleError, match="cannot write"):
        sink.wait()
    sink.wait()  # and once
    sink.__exit__(None)


def test_an_error_of_the_last_write_is_not_lost_at_the_end(tmp_path):
    (tmp_path / "gone").write_text("a file")
    with (
        pytest.raises(WagleError, match="cannot write"),
        Sink(tmp_path / "gone", torch.float32) as s,
    ):
        s.add("00000", {"g": {"a": torch.ones(1)}})


def test_a_minute_after_the_last_time_it_is_due_again(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    assert module.time is time
    sink = Sink(tmp_path, torch.float32)
    now[0] = 1060.0
    assert not sink.due()
    now[0] = 1060.5
    assert sink.due()
    sink.keep("sums", {}, {})
    assert not sink.due()
    sink.__exit__(None)
