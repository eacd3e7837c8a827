"""The blocks of a model in a folder: which models have them, and what is read when."""

import contextlib

import pytest
import torch
from torch import nn

from tests.conftest import make_model
from wagle.model.streaming.blocks import StoredBlocks, _check_shared
from wagle.system.errors import WagleError


def model_of(**tied):
    """Two blocks and a head; ``tied`` names places that get the first block's weight."""
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    model.head, model.layers_b = nn.Linear(2, 2), nn.Linear(2, 2)
    for name in tied.values():
        model.get_submodule(name).weight = model.layers[0][0].weight
    return model


def test_weights_may_be_shared_inside_a_block_and_outside_and_nowhere_else():
    _check_shared(model_of(), "layers")
    _check_shared(model_of(inside="layers.0.1"), "layers")
    outside = model_of()
    outside.layers_b.weight = outside.head.weight
    _check_shared(outside, "layers")
    for place in ("head", "layers_b", "layers.1.0"):
        with pytest.raises(WagleError, match=rf"^{place}\.weight is shared between blocks of Mod"):
            _check_shared(model_of(tied=place), "layers")


@pytest.fixture
def stored(tmp_path):
    make_model("llama-untied").save_pretrained(tmp_path)
    with contextlib.ExitStack() as stack:
        yield StoredBlocks(tmp_path, "float32", "auto", torch.device("cpu"), stack)


def test_the_block_loaded_last_is_not_read_again_unless_it_was_let_go(stored):
    size = sum(t.nbytes for t in stored.load(0, -1).values())
    assert stored.read == size
    assert stored.load(0, -1) is stored.load(0, -1)
    assert stored.read == size
    stored.let_go()
    stored.load(0, -1)
    assert stored.read == 2 * size


def test_a_block_read_ahead_is_the_one_that_comes(stored):
    expected = stored.fresh(1)
    stored.load(0, 1)
    found = stored.load(1, 2)  # there is no third
    assert {n: t.tolist() for n, t in found.items()} == {n: t.tolist() for n, t in expected.items()}
    assert list(found) == stored.names[1]


def test_blocks_and_what_is_around_them_are_all_parameters(stored):
    every = [n for n, _ in stored.model.named_parameters()]
    assert sorted([*stored.outer, *stored.names[0], *stored.names[1]]) == sorted(every)


def test_a_block_is_read_into_the_memory_of_the_one_before_the_last(stored):
    expected = {n: t.clone() for i in range(2) for n, t in stored.fresh(i).items()}
    stored.reuse = True
    places = []
    for block in (0, 1, 0, 1):
        found = stored.load(block, 1 - block)
        places.append({t.data_ptr() for t in found.values()})
        assert all(torch.equal(t, expected[n]) for n, t in found.items())
    assert places[0] == places[2]
    assert places[1] == places[3]
    assert not places[0] & places[1]
