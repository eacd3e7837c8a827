import os

import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.system.memory import Spill

KINDS = [torch.float32, torch.bfloat16, torch.uint8]
STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 40), st.sampled_from(KINDS), st.booleans())
)


@given(STEPS, st.integers(0, 300))
def test_a_spill_is_a_dictionary_whatever_its_limit(steps, limit):
    spill, plain = Spill(limit), {}
    for number, (key, size, dtype, remove) in enumerate(steps):
        if remove:
            spill.pop(key, None)
            plain.pop(key, None)
        else:
            value = torch.full((size, 2), number % 100).to(dtype)
            spill[key], plain[key] = value, value
        assert spill._used == sum(t.nbytes for t in spill._memory.values()) <= limit
    assert len(spill) == len(plain)
    assert set(spill) == set(plain)
    for key, value in plain.items():
        assert spill[key].dtype == value.dtype
        assert torch.equal(spill[key], value)
        assert (key in spill) == (key in plain)


def test_nothing_is_left_on_the_disk_and_gradients_are_not_kept(tmp_path):
    spill = Spill(0, tmp_path)
    spill["x"] = torch.ones(1000, requires_grad=True) * 2
    assert os.listdir(tmp_path) == []
    assert not spill["x"].requires_grad
    assert spill["x"].sum() == 2000
    spill.close()
