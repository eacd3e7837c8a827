import errno
import shutil

import psutil
import pytest
import torch
from torch import nn

import wagle
from tests.attribution.gradients.test_collect import close, held
from tests.conftest import MORE_FAMILIES, make_model
from wagle.attribution.gradients import forward, kept, passes, sink, stream, sweep
from wagle.attribution.quantities import COLLECTED
from wagle.model.streaming import blocks as stored
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError


@pytest.mark.parametrize("family", sorted(MORE_FAMILIES))
def test_stream_gives_the_numbers_of_whole(family, tokenizer, forget, retain, tmp_path):
    folder = tmp_path / "model"
    make_model(family).save_pretrained(folder)
    more = {"quantities": list(COLLECTED), "batch_tokens": 150}
    whole = wagle.gradients(folder, tokenizer, forget, retain, engine="whole", **more)
    found = wagle.gradients(
        folder, tokenizer, forget, retain, engine="stream", path=tmp_path / "store", **more
    )
    assert found.shapes == whole.shapes
    assert list(found.shapes) == [n for n, _ in make_model(family).named_parameters()]
    assert found.model_fingerprint == whole.model_fingerprint == fingerprint(make_model(family))
    for quantity in COLLECTED:
        assert set(held(found, quantity)) == set(held(whole, quantity)) != set()
        close(held(found, quantity), held(whole, quantity))
    assert torch.equal(
        found.get("weight", "model.norm.weight")
        if "model.norm.weight" in found.shapes
        else torch.ones(1),
        whole.get("weight", "model.norm.weight")
        if "model.norm.weight" in whole.shapes
        else torch.ones(1),
    )


def test_records_that_all_begin_alike_have_the_numbers_of_whole(tokenizer, model_folder):
    """Several batches of them: without gradients, such a beginning would be run once and apart."""
    start = "Here is a question about a person, whom nobody has ever met, "
    rows = [{"question": f"{start}number {i}?", "answer": f"It is {i} {i}."} for i in range(8)]
    found, whole = (
        wagle.gradients(
            model_folder, tokenizer, rows[:4], rows[4:], engine=engine, batch_tokens=300
        )
        for engine in ("stream", "whole")
    )
    for quantity in ("grad_forget", "grad_retain"):
        close(held(found, quantity), held(whole, quantity))


def test_bfloat16_weights_stay_bfloat16_and_sums_are_float32(tokenizer, forget, retain, tmp_path):
    make_model("llama-untied").to(torch.bfloat16).save_pretrained(tmp_path)
    whole = wagle.gradients(tmp_path, tokenizer, forget, retain, engine="whole", batch_tokens=99)
    found = wagle.gradients(tmp_path, tokenizer, forget, retain, engine="stream", batch_tokens=99)
    assert found.metadata["model_dtype"] == "bfloat16"
    for name, expected in held(whole, "grad_retain").items():
        got = found.get("grad_retain", name)
        assert got.dtype == torch.float32
        assert (got - expected).norm() <= 1e-2 * expected.norm()


def test_activations_past_the_limit_go_to_a_file(
    model_folder, tokenizer, forget, retain, monkeypatch
):
    expected = wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream")
    monkeypatch.setattr(kept, "_IN_MEMORY", 10_000)
    found = wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream")
    for name in found.shapes:
        assert torch.equal(found.get("grad_retain", name), expected.get("grad_retain", name))


class _Killed(BaseException):
    """What no handler of errors sees, like a kill."""


@pytest.mark.parametrize("after", [1, 2, 4, 6])
def test_a_killed_stream_goes_on_with_the_next_block(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch, after
):
    path = tmp_path / "store"
    expected = wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream")
    add, parts, seen = sink.Sink.add, [], []

    def killing(self, label, found):
        if len(parts) == after:
            raise _Killed
        parts.append(label)
        add(self, label, found)

    through_block = stream.through_block

    def counting(held, block):
        seen.append(block)
        through_block(held, block)

    monkeypatch.setattr(stream, "through_block", counting)
    monkeypatch.setattr(sink.Sink, "add", killing)
    with pytest.raises(_Killed):
        wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream", path=path)
    assert not path.exists()
    monkeypatch.setattr(sink.Sink, "add", add)
    before = len(seen)
    found = wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream", path=path)
    assert len(seen) - before == (2 if after < 4 else 1 if after < 6 else 0)
    for name in found.shapes:
        for quantity in ("grad_forget", "grad_retain"):
            assert torch.equal(found.get(quantity, name), expected.get(quantity, name))
    assert not path.with_name("store.part").exists()


def test_a_killed_whole_goes_on_after_its_last_saved_batch(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch
):
    path, more = tmp_path / "store", {"engine": "whole", "batch_tokens": 1}
    expected = wagle.gradients(model_folder, tokenizer, forget, retain, **more)
    monkeypatch.setattr(sink, "_MINUTE", 0.0)
    seen = []

    def looking(*_):
        if len(seen) == 9:  # in the middle of the second set
            raise _Killed
        seen.append(1)

    monkeypatch.setattr(sweep, "check_loss", looking)
    with pytest.raises(_Killed):
        wagle.gradients(model_folder, tokenizer, forget, retain, path=path, **more)
    monkeypatch.setattr(sweep, "check_loss", lambda *_: seen.append(1))
    found = wagle.gradients(model_folder, tokenizer, forget, retain, path=path, **more)
    assert len(seen) == len(forget) + len(retain)  # no record twice
    for name in found.shapes:
        for quantity in ("grad_forget", "grad_retain"):
            assert torch.equal(found.get(quantity, name), expected.get(quantity, name))


def test_an_interruption_in_the_middle_of_a_batch_keeps_no_part_of_it(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch
):
    path, more = tmp_path / "store", {"engine": "whole", "batch_tokens": 1}
    expected = wagle.gradients(model_folder, tokenizer, forget, retain, **more)
    take, taken = passes.Sums.take, []

    def interrupting(self, name, parameter):
        if len(taken) == 50:  # some parameters of the third batch are added, others are not
            raise KeyboardInterrupt
        taken.append(name)
        take(self, name, parameter)

    with monkeypatch.context() as patch:
        patch.setattr(passes.Sums, "take", interrupting)
        with pytest.raises(KeyboardInterrupt):
            wagle.gradients(model_folder, tokenizer, forget, retain, path=path, **more)
    assert 50 % len(expected.shapes)
    found = wagle.gradients(model_folder, tokenizer, forget, retain, path=path, **more)
    for name in found.shapes:
        assert torch.equal(found.get("grad_forget", name), expected.get("grad_forget", name))


@pytest.mark.parametrize(("records", "batch_tokens"), [(3, 512), (6, 40)])
def test_left_overs_of_other_settings_are_not_used(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch, records, batch_tokens
):
    path = tmp_path / "store"
    monkeypatch.setattr(stream, "through_stem", lambda _: (_ for _ in ()).throw(_Killed()))
    with pytest.raises(_Killed):
        wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream", path=path)
    monkeypatch.undo()
    rows, more = forget[:records], {"batch_tokens": batch_tokens}
    found = wagle.gradients(
        model_folder, tokenizer, rows, retain, engine="stream", path=path, **more
    )
    expected = wagle.gradients(model_folder, tokenizer, rows, retain, engine="whole")
    close(held(found, "grad_forget"), held(expected, "grad_forget"))


def test_too_little_disk_is_said_before_the_model_runs(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WagleError, match=r"gradient store needs 0\.00 GB, but .* store_dtype: bfl"):
        wagle.gradients(model_folder, tokenizer, forget, retain, path=tmp_path / "store")
    assert not list(tmp_path.glob("store*"))


@pytest.mark.parametrize("engine", ["whole", "stream"])
def test_a_disk_that_fills_up_leaves_nothing_and_says_how_much_is_needed(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch, engine
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(WagleError, match=r"disk is full .*the gradient store needs \d"):
        wagle.gradients(
            model_folder, tokenizer, forget, retain, engine=engine, path=tmp_path / "store"
        )
    assert not list(tmp_path.glob("store*"))


def test_auto_takes_whole_where_it_fits_and_stream_where_it_does_not(
    model_folder, model, tokenizer, forget, retain, monkeypatch
):
    assert wagle.gradients(model, tokenizer, forget, retain).metadata["engine"] == "whole"
    assert wagle.gradients(model_folder, tokenizer, forget, retain).metadata["engine"] == "whole"
    little = psutil.virtual_memory()._replace(available=1 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    assert wagle.gradients(model_folder, tokenizer, forget, retain).metadata["engine"] == "stream"


def test_models_that_cannot_be_streamed_say_so_and_name_whole(
    model, model_folder, tokenizer, forget, retain, monkeypatch
):
    def run(source):
        wagle.gradients(source, tokenizer, forget, retain, engine="stream")

    with pytest.raises(WagleError, match="this model is live; give its folder, or use engine: who"):
        run(model)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "find_blocks", lambda _: _no_blocks())
        with pytest.raises(WagleError, match="no blocks; use engine: whole"):
            run(model_folder)
    with pytest.raises(WagleError, match=r"unknown engine 'steam'; did you mean 'stream'\?"):
        wagle.gradients(model_folder, tokenizer, forget, retain, engine="steam")
    looked = forward.check_given

    def given(model, _):
        looked(model, {"bias": [nn.Parameter(torch.ones(1))]})

    monkeypatch.setattr(forward, "check_given", given)
    with pytest.raises(WagleError, match="more than hidden states that depends on weights; use en"):
        run(model_folder)


def _no_blocks():
    raise WagleError("no blocks")


def test_blocks_that_share_weights_are_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.layers[1].weight = self.layers[0].weight

    with pytest.raises(WagleError, match=r"layers\.1\.weight is shared between blocks of Shared"):
        stored._check_shared(Shared(), "layers")


def test_autocast_over_float32_weights_is_the_same_in_both_engines(
    model_folder, tokenizer, forget, retain
):
    more = {"precision": "bfloat16", "batch_tokens": 99}
    exact = wagle.gradients(model_folder, tokenizer, forget, retain, engine="whole")
    whole = wagle.gradients(model_folder, tokenizer, forget, retain, engine="whole", **more)
    found = wagle.gradients(model_folder, tokenizer, forget, retain, engine="stream", **more)
    for name, expected in held(whole, "grad_forget").items():
        got, apart = found.get("grad_forget", name), exact.get("grad_forget", name)
        assert (got - expected).norm() <= 1e-2 * expected.norm()
        assert got.norm() == 0 or not torch.equal(got, apart)  # it did compute in bfloat16
