"""Gradients on several processes equal those of one, whatever the engine and the quantities."""

from __future__ import annotations

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.processes import on
from wagle.attribution.store import GradientStore

EVERY = ["grad_forget", "grad_retain", "square_retain", "fisher_retain", "input_square"]


def save(folder, family="llama-tied"):
    make_model(family).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def take(model, path, **how):
    store = wagle.gradients(
        model, make_tokenizer(), RECORDS, OTHERS, path=path, batch_tokens=64, **how
    )
    return read(store)


def read(store: GradientStore):
    return {
        (q, n): store.get(q, n).clone()
        for q in store.quantities
        for n in store.shapes
        if store.has(q, n)
    }


def largest_error(found, wanted):
    assert set(found) == set(wanted)
    return max(
        float((found[key] - tensor).norm()) / (float(tensor.norm()) or 1.0)
        for key, tensor in wanted.items()
    )


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("engine", ["whole", "stream"])
@pytest.mark.parametrize("family", ["llama-tied", "llama-untied", "gpt2"])
def test_gradients_equal_those_of_one_process(tmp_path, family, engine, world):
    folder = save(tmp_path / "model", family)
    alone = take(folder, tmp_path / "alone", engine=engine, quantities=EVERY)
    several = on(world, _take_on_disk, folder, tmp_path / "several", engine)
    for found in several:
        assert largest_error(found, alone) < 1e-6
    assert not list((tmp_path / "several").glob("resume-*"))


def _take_on_disk(folder, path, engine):
    return take(folder, path, engine=engine, quantities=EVERY)


def test_a_store_in_memory_is_on_every_process():
    alone = take(make_model("llama-tied"), None)
    for found in on(3, _take_in_memory):
        assert largest_error(found, alone) < 1e-6


def _take_in_memory():
    return take(make_model("llama-tied"), None)


def test_more_processes_than_records():
    alone = _take_one()
    for found in on(3, _take_one):
        assert largest_error(found, alone) < 1e-6


def _take_one():
    return read(wagle.gradients(make_model("gpt2"), make_tokenizer(), RECORDS[:1], OTHERS[:1]))


def test_a_record_that_overflows_is_an_error_of_all_processes():
    for said in on(2, _overflow):
        assert "is not finite" in said


def _overflow():
    model = make_model("llama-tied")
    with torch.no_grad():
        model.get_input_embeddings().weight[5:].mul_(float("inf"))
    try:
        wagle.gradients(model, make_tokenizer(), RECORDS, OTHERS, batch_tokens=64)
    except wagle.WagleError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("family", ["llama-tied", "llama-untied", "gpt2"])
def test_a_sharded_model_leaves_the_store_of_a_whole_one(tmp_path, family, world):
    folder = save(tmp_path / "model", family)
    alone = take(folder, tmp_path / "alone", quantities=EVERY)
    for found in on(world, _take_sharded, folder, tmp_path / "sharded"):
        assert largest_error(found, alone) < 1e-6


def _take_sharded(folder, path):
    return take(folder, path, quantities=EVERY, shard=True)
