"""A model of which one block is in memory: the form of what a block gets."""

import torch

from wagle.attribution.gradients.blocks import Batch, Blocks


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
