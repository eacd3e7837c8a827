"""A cache with space: nothing that is there is copied for a new token or for a row that ends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from tests.evaluation.asking.test_engine import lively
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.kv_cache import remaining, with_space
from wagle.evaluation.asking.requests import Greedy, Sample


def filled(rows: int = 3, length: int = 4) -> DynamicCache:
    cache = DynamicCache()
    for block in range(2):
        keys = torch.arange(rows * 2 * length * 3).float().reshape(rows, 2, length, 3) + block
        cache.update(keys, -keys, block)
    return cache


@given(st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_the_last_rows_take_the_places_of_those_that_ended(count, ended):
    ended = {row for row in ended if row < count}
    left = remaining(count, sorted(ended))
    assert sorted(left) == [row for row in range(count) if row not in ended]
    moved = [place for place, row in enumerate(left) if row != place]
    assert all(place in ended for place in moved)


def test_it_holds_what_a_plain_cache_holds():
    plain, spacious = filled(), with_space(filled(), 3)
    new = torch.rand(3, 2, 1, 3)
    for cache in (plain, spacious):
        for block in range(2):
            cache.update(new, 2 * new, block)
        cache.batch_select_indices(torch.tensor(remaining(3, [0])))
        for block in range(2):
            cache.update(new[1:], new[1:], block)
    assert spacious.get_seq_length() == plain.get_seq_length() == 6
    for mine, other in zip(spacious.layers, plain.layers, strict=True):
        assert torch.equal(mine.keys, other.keys)
        assert torch.equal(mine.values, other.values)


def test_what_it_was_made_from_stays_as_it_was():
    shared = filled()
    before = shared.layers[0].keys.clone()
    own = DynamicCache()
    own.layers = list(shared.layers)
    with_space(own, 2).update(torch.zeros(3, 2, 1, 3), torch.zeros(3, 2, 1, 3), 0)
    own.batch_select_indices(torch.tensor([2, 1]))
    assert torch.equal(shared.layers[0].keys, before)


def test_no_step_copies_the_cache():
    model = lively("llama-untied")
    places = []

    def look(_model, _args, kwargs):
        cache, ids = kwargs.get("past_key_values"), kwargs["input_ids"]
        if ids.shape[1] == 1 and cache is not None:
            places.append((len(ids), cache.layers[0].keys.data_ptr()))

    asked = [Sample((5, 6, 7, 8), 3 + 2 * i, 1.0, 1.0, f"0/forget[0]/{i}") for i in range(4)]
    hook = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        answer_requests(model, [*asked, Greedy((9, 8, 7, 6), 12)], stop_ids=[2])
    finally:
        hook.remove()
    assert len({rows for rows, _ in places}) > 2  # rows have ended on the way
    assert len({place for _, place in places}) == 1


@pytest.mark.parametrize("family", ["llama-untied", "gemma3", "qwen3"])
def test_a_prompt_of_one_token_and_windows_keep_their_own_layers(family):
    model = lively(family)
    asked = [Greedy((5,), 6), Greedy((9,), 3)]
    together = answer_requests(model, asked, stop_ids=[2])
    for one in asked:
        assert answer_requests(model, [one], stop_ids=[2]).text(one) == together.text(one)
