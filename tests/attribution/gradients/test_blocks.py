"""A model of which one block is in memory: shared weights, and the form of what a block gets."""

import pytest
import torch
from torch import nn

from wagle.attribution.gradients.blocks import Batch, Blocks, _check_shared
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


def blocks_that(*, keyword, tuples):
    found = Blocks.__new__(Blocks)
    found.keyword, found.tuples = keyword, tuples
    return found


def test_a_block_is_answered_in_its_own_form():
    hidden, other = torch.ones(1), torch.zeros(1)
    assert blocks_that(keyword=False, tuples=True).answer(hidden) == (hidden,)
    assert blocks_that(keyword=False, tuples=False).answer(hidden) is hidden
    by_place = blocks_that(keyword=False, tuples=True)
    assert by_place.entered((hidden, other), {"hidden_states": other}) is hidden
    by_name = blocks_that(keyword=True, tuples=True)
    assert by_name.entered((other,), {"hidden_states": hidden}) is hidden


def test_a_batch_is_known_by_its_pass_and_number():
    one = Batch(1, 23, {"index": torch.arange(4)}, [])
    assert (one.key, one.records) == ("1 23", 4)
    assert one.key != Batch(12, 3, {}, []).key
