"""How a folder is asked: whole or one block at a time; the figures are the same."""

from __future__ import annotations

import logging

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.evaluation.served import engines
from wagle.evaluation.served.engines import open_to_ask
from wagle.model.streaming.opening import is_streamed, stream_of
from wagle.patch.extraction import extract
from wagle.system.errors import WagleError


@pytest.fixture
def folder(tmp_path):
    make_model("llama-tied").save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def patch(folder, tmp_path):
    model = make_model("llama-tied")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand(parameter.shape) < 0.3] *= 2
    model.save_pretrained(tmp_path / "made")
    make_tokenizer().save_pretrained(tmp_path / "made")
    extract(folder, tmp_path / "made", tmp_path / "one.safetensors")
    return tmp_path / "one.safetensors"


def test_auto_is_whole_where_the_weights_fit_and_says_so_where_they_do_not(
    folder, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "wagle")
    assert not is_streamed(open_to_ask(folder).model)
    assert caplog.text == ""
    monkeypatch.setattr(engines, "free_memory", lambda *_: 100_000)
    assert is_streamed(open_to_ask(folder).model)
    assert "base takes 0.0 GB and 0.0 GB are free: it is asked with one block in" in caplog.text
    assert not is_streamed(open_to_ask(folder, "whole").model)


def test_an_unknown_engine_is_refused(folder):
    with pytest.raises(WagleError, match="unknown engine 'steam'; did you mean 'stream'"):
        open_to_ask(folder, "steam")


def figures(found):
    return {
        (name, metric): figure.value
        for name, some in found.figures.items()
        for metric, figure in some.items()
    }


def test_an_evaluation_has_the_same_figures_and_texts_by_either_engine(folder, tmp_path):
    def measure(engine):
        return wagle.evaluate(
            folder, forget=RECORDS, retain=OTHERS, holdout=OTHERS[4:], engine=engine,
            attacks=["loss", "min_k", "min_k++", "zlib", "gradnorm"], cache=tmp_path / engine,
        )  # fmt: skip

    whole, stream = measure("whole"), measure("stream")
    assert figures(stream) == pytest.approx(figures(whole), rel=2e-6, abs=1e-6)
    assert stream.texts == whole.texts
    assert stream.details["model"] == whole.details["model"]


def test_a_cache_of_one_engine_serves_the_other(folder, tmp_path, monkeypatch):
    asked = {"forget": RECORDS, "cache": tmp_path / "cache"}
    whole = wagle.evaluate(folder, **asked, engine="whole")
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_: pytest.fail("it was asked"))
    assert figures(wagle.evaluate(folder, **asked, engine="stream")) == figures(whole)


def test_a_base_and_patches_are_asked_without_a_patched_model(folder, patch, tmp_path):
    def measure(model, **more):
        return wagle.evaluate(model, forget=RECORDS, retain=OTHERS, **more)

    made = measure(tmp_path / "made")
    laid = measure(folder, patch=patch, engine="stream")
    named = measure(f"{folder}+{patch}", engine="stream")
    for found in (laid, named):
        assert figures(found) == pytest.approx(figures(made), rel=2e-6, abs=1e-6)
        assert found.details["model"]["fingerprint"] == made.details["model"]["fingerprint"]
    with pytest.raises(WagleError, match="apply it to the model that it was made for"):
        measure(tmp_path / "made", patch=patch, engine="stream")


@pytest.mark.usefixtures("patch")
def test_the_model_before_and_the_reference_are_streamed_too(folder, tmp_path, monkeypatch):
    opened = []
    own = engines.open_streamed
    monkeypatch.setattr(
        engines,
        "open_streamed",
        lambda *args, **how: opened.append(own(*args, **how)) or opened[-1],
    )
    make_model("llama-tied", seed=4).save_pretrained(tmp_path / "other")
    found = wagle.evaluate(
        tmp_path / "made",
        forget=RECORDS,
        retain=OTHERS,
        before=folder,
        reference=tmp_path / "other",
        engine="stream",
        generate=False,
    )
    assert found.details["verdict"]
    assert len(opened) == 3
    assert [stream_of(model).sweeps for model in opened] == [1, 1, 1]
