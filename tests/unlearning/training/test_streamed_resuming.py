"""A run with the blocks of the model on disk that is killed, and resumed."""

import random
import shutil

import pytest
import torch

from tests.unlearning.conftest import folder_of, mask_of, unlearn
from wagle.model.loading import load_model
from wagle.model.saving import save_model
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.streaming.stream import Stream
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError


class _Killed(BaseException):
    """Ends everything, as a kill would."""


def _run(folder, checkpoints, mask, **more):
    model = open_streamed(folder)
    settings = {"checkpoint_folder": checkpoints, "checkpoint_minutes": 0, "max_steps": 12}
    result = unlearn(model, mask=mask, **settings, **more)
    found = fingerprint(model)
    stream_of(model).close()
    return result, found


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    "more",
    [{}, {"wrapper": "gru", "optimizer": "SophiaG", "curvature_every": 2}],
    ids=["plain", "gru-sophia"],
)
def test_killed_at_five_random_moments_it_ends_with_the_same_hash(
    more, on_disk, tmp_path, monkeypatch
):
    if on_disk:
        monkeypatch.setattr("wagle.unlearning.training.weights.choosing.SMALL", 0)
    folder = folder_of("llama-tied")
    mask = mask_of(load_model(folder), 0.3)
    whole, wanted = _run(folder, tmp_path / "whole", mask, **more)
    draw, calls, serve = random.Random(3), [], Stream.serve
    for _ in range(5):
        limit = draw.randrange(3, 7)  # a step comes to a block at least twice

        def once(self, *args, limit=limit, **named):
            calls.append(1)
            if len(calls) == limit:
                raise _Killed
            return serve(self, *args, **named)

        calls.clear()
        monkeypatch.setattr(Stream, "serve", once)
        with pytest.raises(_Killed):
            _run(folder, tmp_path / "killed", mask, **more)
        monkeypatch.setattr(Stream, "serve", serve)
    resumed, found = _run(folder, tmp_path / "killed", mask, **more)
    assert found == wanted
    assert resumed.history == whole.history


def test_a_run_goes_on_by_the_other_engine(tmp_path):
    folder = folder_of("llama-untied")
    mask = mask_of(load_model(folder), 0.3)
    settings = {"checkpoint_minutes": 0, "max_steps": 4, "mask": mask, "learning_rate": 1e-3}

    def stop(figures):
        if figures["step"] == 3:
            raise _Killed

    with pytest.raises(_Killed):
        unlearn(load_model(folder), checkpoint_folder=tmp_path, on_step=stop, **settings)
    streamed, whole, seen = open_streamed(folder), load_model(folder), []
    unlearn(streamed, checkpoint_folder=tmp_path, on_step=seen.append, **settings)
    assert [figures["step"] for figures in seen] == [3, 4]
    unlearn(whole, **settings)
    for name, laid in stream_of(streamed).overlay.items():
        value = whole.get_parameter(name).detach().view(-1)[laid.index.long()]
        torch.testing.assert_close(laid.values, value, rtol=0, atol=1e-5)


def test_a_base_that_changed_while_the_run_was_stopped_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llama-tied"), folder)
    mask = mask_of(load_model(folder), 0.3)

    def stop(figures):
        if figures["step"] == 2:
            raise _Killed

    with pytest.raises(_Killed):
        _run(folder, tmp_path / "checkpoints", mask, on_step=stop)
    other = load_model(folder)
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[3, 3] += 1
    other.save_pretrained(folder)
    with pytest.raises(WagleError, match=r"belongs to another run \(model differs\)"):
        _run(folder, tmp_path / "checkpoints", mask, allow_other_model=True)


def test_a_base_that_changes_while_the_model_trains_is_noticed(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llama-tied"), folder)
    weights = folder / "model.safetensors"

    def touch(_):
        weights.touch()

    with pytest.raises(WagleError, match=r"model.safetensors has changed while the model trained"):
        unlearn(open_streamed(folder), on_step=touch)


def test_what_is_saved_is_the_folder_that_a_model_in_memory_would_make(tmp_path):
    folder = tmp_path / "base"
    load_model(folder_of("llama-untied"), "bfloat16").save_pretrained(folder, max_shard_size="60KB")
    mask = mask_of(load_model(folder), 0.3)
    for name, model in (("whole", load_model(folder)), ("stream", open_streamed(folder))):
        unlearn(model, mask=mask, like=folder, rounding="stochastic", learning_rate=1e-2)
        save_model(model, folder, tmp_path / name)
        if name == "stream":
            assert fingerprint(model) == fingerprint(tmp_path / name)
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert len(names) > 4
    assert sorted(file.name for file in (tmp_path / "stream").iterdir()) == names
    same = [
        (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stream" / name).read_bytes()
        for name in names
    ]
    assert all(same)
