import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.unlearning.training.weights.rounding import seeded, stochastic_bfloat16

ABOVE = 2.0**-7  # spacing of bfloat16 between 1 and 2


def _mean(value, draws=40_000):
    got = stochastic_bfloat16(torch.full((draws,), value), ("mean", value))
    return got.double().mean().item(), sorted(set(got.tolist()))


@pytest.mark.parametrize("share", [0.0625, 0.5, 0.9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_share_that_rounds_away_from_zero_is_the_share_of_the_way_there(share, sign):
    mean, seen = _mean(sign * (1 + share * ABOVE))
    assert seen == sorted([sign, sign * (1 + ABOVE)])
    # 5 standard errors of a share over 40 000 draws
    assert abs(mean - sign * (1 + share * ABOVE)) < 5 * ABOVE * math.sqrt(share * (1 - share) / 4e4)


@pytest.mark.parametrize("value", [1.3e-39, 2.0 - 0.3 * ABOVE, 0.0123])
def test_the_mean_over_draws_is_the_value_for_subnormals_and_across_exponents_too(value):
    mean, seen = _mean(value)
    assert len(seen) == 2
    assert seen[0] < value < seen[1]
    assert abs(mean - value) < 5 * (seen[1] - seen[0]) / 2 / math.sqrt(4e4)


def test_a_step_below_half_the_spacing_moves_a_weight_by_its_size_on_average():
    weights = torch.ones(200_000)
    step = 0.01 * ABOVE
    assert torch.equal((weights + step).bfloat16(), weights.bfloat16())  # lost when rounded
    moved = stochastic_bfloat16(weights + step, (0, 1, "w")).double() - 1
    assert moved.mean().item() == pytest.approx(step, rel=0.12)  # 5 standard errors


def test_what_bfloat16_can_hold_is_kept_bit_for_bit():
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    every = bits.view(torch.bfloat16)
    kept = stochastic_bfloat16(every.float(), ("all",))
    numbers = ~every.isnan()
    assert torch.equal(kept[numbers].view(torch.int16), bits[numbers])
    assert kept[~numbers].isnan().all()


def test_nan_whose_bits_bfloat16_lacks_is_not_made_infinite_or_zero():
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    values = bits.view(torch.float32)
    assert values.isnan().all()
    assert all(stochastic_bfloat16(values, (i,)).isnan().all() for i in range(20))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20), st.integers())
def test_the_result_is_one_of_the_two_neighbours(values, key):
    given = torch.tensor(values, dtype=torch.float32)
    got = stochastic_bfloat16(given, (key,))
    # truncating the bits is the neighbour towards zero; one more is the next magnitude
    low = given.view(torch.int32) & -65536
    high = (low + 65536).view(torch.float32)
    low = low.view(torch.float32)
    assert ((got.float() == low) | ((got.float() == high) & (low != given))).all()


def test_equal_keys_give_equal_draws_and_no_global_generator_is_touched():
    values = torch.rand(1000, generator=seeded(("values",), torch.device("cpu")))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = stochastic_bfloat16(values, (0, 1, "w"))
    assert torch.equal(one, stochastic_bfloat16(values, (0, 1, "w")))
    assert not torch.equal(one, stochastic_bfloat16(values, (0, 2, "w")))
    assert not torch.equal(one, stochastic_bfloat16(values, (0, 1, "v")))
    assert torch.equal(torch.get_rng_state(), state)


def test_shape_and_values_of_a_view_are_those_of_its_copy():
    values = torch.linspace(-2, 2, 24).view(4, 6).t()
    before = values.clone()
    got = stochastic_bfloat16(values, ("view",))
    assert got.shape == (6, 4)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, stochastic_bfloat16(values.contiguous(), ("view",)))
    assert torch.equal(values, before)
