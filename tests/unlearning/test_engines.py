"""Which engine trains a model, and what each needs."""

import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.unlearning.conftest import folder_of, unlearn
from wagle.model.loading import load_model
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning import engines
from wagle.unlearning.engines import (
    Needs,
    Sizes,
    check_disk,
    choose_engine,
    moments_of,
    sizes_of,
    training_needs,
)

LLAMA_7B = Sizes(6_738_415_616, 202_383_360, 262_148_096, 131_072_000)


def _needs(engine, ratio=0.05, sizes=LLAMA_7B, **more):
    numbers = {"selected": int(ratio * sizes.weights), "masked": True, "itemsize": 2, "moments": 2}
    return training_needs(engine, sizes, **{**numbers, **more})


def test_a_7b_model_in_memory_needs_its_weights_and_20_bytes_for_each_that_trains():
    need = _needs("whole")
    assert need.memory == pytest.approx(13.48e9 + 20 * 0.3369e9 + 0.26e9 + 1.3e9, rel=0.01)
    assert need.vectors == pytest.approx(2 * 0.3369e9, rel=0.01)  # the values from before


def test_by_stream_memory_does_not_grow_with_depth_and_files_grow_with_what_trains():
    deep = replace(LLAMA_7B, weights=2 * LLAMA_7B.weights)
    one, other = _needs("stream"), _needs("stream", sizes=deep)
    assert other.memory == pytest.approx(one.memory, rel=0.01)
    assert other.vectors == pytest.approx(2 * one.vectors, rel=0.01)
    assert one.memory < 5e9
    assert one.vectors == pytest.approx((20 + 2 + 2) * 0.3369e9, rel=0.01)


def test_dense_teaching_by_stream_takes_16_bytes_a_weight_in_files_for_a_float32_model():
    count = LLAMA_7B.weights
    need = _needs("stream", 1.0, masked=False, itemsize=4)
    assert need.vectors == 16 * count + 4 * count  # and 4 for the values from before


def test_the_sizes_of_a_model_are_read_from_its_headers():
    folder = folder_of("llama-untied")
    model = load_model(folder)
    count = sum(p.numel() for p in model.parameters())
    outer = sum(p.numel() for n, p in model.named_parameters() if ".layers." not in n)
    assert sizes_of(folder) == Sizes(count, (count - outer) // 2, outer, 400 * 32)


@pytest.mark.parametrize(
    ("settings", "moments"),
    [
        ({"optimizer": "AdamW"}, 2),
        ({"optimizer": "SophiaG"}, 2),
        ({"optimizer": "SGD"}, 0),
        ({"optimizer": "SGD", "optimizer_settings": {"momentum": 0.9}}, 1),
        ({"optimizer": "Adam", "optimizer_settings": {"amsgrad": True}}, 3),
    ],
)
def test_what_an_optimiser_keeps_of_every_weight_is_found_by_a_step(settings, moments):
    assert moments_of(Training(**settings)) == moments


def _choose(free, monkeypatch, **settings):
    monkeypatch.setattr(engines, "free_memory", lambda _: free)
    training = Training(**settings)
    return choose_engine(training, folder_of("llama-tied"), "float32", selected=100)


def test_auto_is_whole_where_it_fits_and_else_stream_and_says_so(monkeypatch, caplog):
    assert _choose(8e9, monkeypatch) == "whole"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert _choose(1e9, monkeypatch) == "stream"
    said = (
        "engine: auto trains by stream, one block in memory: the model in memory needs about 1.3 GB"
    )
    assert said in caplog.text
    assert _choose(1e9, monkeypatch, engine="whole") == "whole"
    assert _choose(8e9, monkeypatch, engine="stream") == "stream"


def test_auto_stays_whole_where_stream_cannot_train_and_says_why(monkeypatch, caplog):
    assert _choose(1e9, monkeypatch, dropout=True) == "whole"
    assert "engine: stream does not work with dropout: true" in caplog.text


def test_a_disk_that_is_too_small_says_how_much_is_missing(monkeypatch):
    monkeypatch.setattr(engines, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    check_disk(Needs(0, 2e9, 0))
    with pytest.raises(WagleError, match=r"about 7.5 GB in temporary .* 4.5 GB are missing; free"):
        check_disk(Needs(0, 7.5e9, 0))


def test_a_live_model_is_not_trained_by_stream():
    with pytest.raises(WagleError, match="reads the model from its folder, but this one is in mem"):
        unlearn(load_model(folder_of("llama-tied")), engine="stream")


def test_a_folder_without_safetensors_is_one_line(tmp_path):
    shutil.copy(folder_of("llama-tied") / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WagleError, match=r"lacks its weight file model\.safetensors"):
        choose_engine(Training(engine="stream"), tmp_path, "float32", selected=None)
