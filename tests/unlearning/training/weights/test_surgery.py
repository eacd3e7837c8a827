import math

import pytest
import torch

from wagle.system.errors import WagleError
from wagle.unlearning.training.weights.surgery import (
    gru,
    noise,
    perturbation,
    row_norm,
    sign_agreement,
)


def _list(*parts):
    return [torch.tensor(part) for part in parts]


def _random(seed, sizes=(50, 7, 200)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator) for n in sizes]


def _joined(gradients):
    return torch.cat(list(gradients)).double()


# ---------------------------------------------------------------------------------------------
# GRU


def test_gru_takes_out_the_part_against_the_retain_gradient():
    # <g_f, g_r> = 3 * -2 = -6 over both tensors, |g_r|^2 = 4: g_f + 1.5 g_r
    got, kept = gru(_list([3.0], [1.0, 5.0]), _list([-2.0], [0.0, 0.0]), remembered=None)
    assert [g.tolist() for g in got] == [[0.0], [1.0, 5.0]]
    assert [k.tolist() for k in kept] == [[-2.0], [0.0, 0.0]]


def test_a_projected_gradient_is_orthogonal_to_the_retain_gradient_as_a_whole():
    forget, retain = _random(0), _random(1)
    retain = [r - 0.7 * f for r, f in zip(retain, forget, strict=True)]
    got, smoothed = gru(forget, retain, remembered=_random(2))
    g, r = _joined(got), _joined(smoothed)
    assert torch.dot(_joined(forget), r) < 0
    assert abs(torch.dot(g, r)) < 1e-6 * g.norm() * r.norm()
    per_tensor = [torch.dot(a, b).abs() for a, b in zip(got, smoothed, strict=True)]
    assert max(per_tensor) > 1e-2  # not tensor by tensor


def test_without_conflict_the_forget_gradient_is_unchanged():
    forget = _random(3)
    got, _ = gru(forget, forget, remembered=None)
    assert all(torch.equal(a, b) for a, b in zip(got, forget, strict=True))
    got, _ = gru(forget, [torch.zeros_like(f) for f in forget], remembered=None)
    assert all(torch.equal(a, b) for a, b in zip(got, forget, strict=True))


def test_the_retain_gradient_is_smoothed_over_steps_and_decides_the_conflict():
    # 0.8 * 1 + 0.2 * -6 = -0.4: the new gradient agrees, the smoothed one does not
    remembered = _list([-6.0, 0.0])
    got, smoothed = gru(_list([2.0, 1.0]), _list([1.0, 0.0]), remembered=remembered)
    torch.testing.assert_close(smoothed[0], torch.tensor([-0.4, 0.0]), rtol=1e-6, atol=0)
    torch.testing.assert_close(got[0], torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)
    assert remembered[0].tolist() == [-6.0, 0.0]
    _, unsmoothed = gru(_list([1.0]), _list([1.0]), remembered=_list([-6.0]), momentum=1.0)
    assert unsmoothed[0].tolist() == [1.0]


@pytest.mark.parametrize(("floor", "expected"), [(1.0, 0.0), (0.5, 0.5 * 0.8), (0.9, 0.1 * 0.8)])
def test_a_floor_takes_out_a_part_of_a_strong_conflict(floor, expected):
    # g_f = -0.8 g_r, so the cosine is -1
    got, _ = gru(_list([0.8, 0.0]), _list([-3.0, 0.0]), remembered=None, floor=floor)
    assert got[0].tolist() == pytest.approx([expected, 0.0], abs=1e-6)


def test_a_floor_below_the_conflict_changes_nothing():
    forget, retain = _list([-0.3, 1.0]), _list([1.0, 0.0])  # a cosine of -0.29
    full, _ = gru(forget, retain, remembered=None)
    part, _ = gru(forget, retain, remembered=None, floor=0.5)
    torch.testing.assert_close(part[0], full[0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"floor": 0.0}, "the floor of gru is 0.0"),
        ({"momentum": 1.5}, "the momentum of gru is 1.5"),
    ],
)
def test_settings_of_gru_out_of_range_are_refused(settings, said):
    with pytest.raises(WagleError, match=said):
        gru(_list([1.0]), _list([1.0]), remembered=None, **settings)


# ---------------------------------------------------------------------------------------------
# Sign agreement


def test_sign_agreement_keeps_entries_that_both_losses_would_move_one_way():
    forget = _list([3.0, -1.0, 0.0], [-2.0, 1.0, 1.0])  # norm 4
    retain = _list([0.1, 5.0, 0.0], [-7.0, 0.0, 1e-30])
    masked = sign_agreement(forget, retain)
    assert [g.tolist() for g in masked.gradients] == [[0.75, 0.0, 0.0], [-0.5, 0.0, 0.25]]
    assert masked.kept == 3


def test_sign_agreement_of_gradients_that_agree_has_norm_one():
    forget = _random(4)
    masked = sign_agreement(forget, [2 * f for f in forget])
    assert _joined(masked.gradients).norm().item() == pytest.approx(1.0, rel=1e-6)
    assert masked.kept == 257


def test_a_zero_forget_gradient_keeps_nothing():
    masked = sign_agreement([torch.zeros(3)], [torch.zeros(3)])
    assert masked.gradients[0].tolist() == [0.0, 0.0, 0.0]
    assert masked.kept == 0


def test_tiny_gradients_are_scaled_without_overflow():
    masked = sign_agreement(_list([1e-40, 0.0]), _list([1.0, 1.0]))
    assert masked.gradients[0].tolist() == pytest.approx([1.0, 0.0], rel=1e-4)


# ---------------------------------------------------------------------------------------------
# Row norms


def _rows(*numbers):
    return torch.tensor(numbers, dtype=torch.int32)


def test_rows_at_or_above_the_quantile_over_all_tensors_train():
    # norms 5 (row 0), 1 (row 2), 2 (the vector), 5 (row 0 of the last): R = 4, k = 2 at 0.5
    forget = _list([3.0, 4.0, 1.0], [2.0], [5.0, 0.0])
    rows = [_rows(0, 0, 2), None, _rows(0, 0)]
    masks = row_norm(forget, rows, quantile=0.5)
    assert [m.tolist() for m in masks] == [[True, True, False], [False], [True, True]]
    assert all(m.dtype == torch.bool for m in masks)
    assert [m.tolist() for m in row_norm(forget, rows, quantile=0.25)][1] == [True]


def test_a_vector_without_rows_counts_as_one_row():
    masks = row_norm(_list([3.0, 4.0], [4.5, 1.0]), [None, _rows(0, 1)], quantile=0.6)
    assert [m.tolist() for m in masks] == [[True, True], [True, False]]


def test_ties_with_the_last_row_are_kept_whatever_the_order_of_entries():
    # rows as in a Conv1D, where the entries of a row lie apart
    values = [0.1, 0.2, 0.7, 0.1, 0.2, 0.7]
    masks = row_norm(_list(values), [_rows(0, 1, 0, 1, 0, 1)], quantile=0.9)
    # row 0: 0.1, 0.7, 0.2; row 1: 0.2, 0.1, 0.7
    assert masks[0].all()


def test_rows_without_a_forget_gradient_never_train():
    masks = row_norm(_list([0.0, 0.0, 1.0, 0.0]), [_rows(0, 1, 2, 3)], quantile=0.5)
    assert masks[0].tolist() == [False, False, True, False]
    assert not row_norm(_list([0.0]), [None], quantile=0.0)[0].any()


@pytest.mark.parametrize("quantile", [0.0, 0.29, 0.5, 0.9, 0.99])
def test_the_number_of_rows_that_train_is_exact_and_matches_a_loop(quantile):
    generator = torch.Generator().manual_seed(5)
    forget, rows = [], []
    for count, columns in ((60, 9), (40, 5)):
        forget.append(torch.randn(count * columns, generator=generator))
        rows.append(torch.arange(count, dtype=torch.int32).repeat_interleave(columns))
    masks = row_norm(forget, rows, quantile=quantile)
    norms = {
        (tensor, row): forget[tensor][rows[tensor] == row].norm().item()
        for tensor in range(2)
        for row in range(len(rows[tensor].unique()))
    }
    k = {0.0: 100, 0.29: 71, 0.5: 50, 0.9: 10, 0.99: 1}[quantile]
    largest = sorted(norms, key=lambda key: -norms[key])[:k]
    for tensor, mask in enumerate(masks):
        expected = [(tensor, row) in largest for row in rows[tensor].tolist()]
        assert mask.tolist() == expected


def test_a_row_that_the_mask_left_out_is_no_row():
    # only row 7 of the first has selected entries: R = 2, k = 1
    masks = row_norm(_list([1.0], [2.0]), [_rows(7), None], quantile=0.5)
    assert [m.tolist() for m in masks] == [[False], [True]]


@pytest.mark.parametrize("quantile", [1.0, -0.1])
def test_a_quantile_out_of_range_is_refused(quantile):
    with pytest.raises(WagleError, match="the quantile of row_norm is"):
        row_norm(_list([1.0]), [None], quantile=quantile)


# ---------------------------------------------------------------------------------------------
# Perturbations


def test_a_perturbation_has_length_rho_along_the_gradient():
    got = perturbation(_list([3.0], [4.0, 0.0]), rho=0.1)
    assert got[0].tolist() == pytest.approx([0.06])
    assert got[1].tolist() == pytest.approx([0.08, 0.0])


def test_a_zero_gradient_or_rho_perturbs_nothing():
    assert perturbation([torch.zeros(2)], rho=0.1)[0].tolist() == [0.0, 0.0]
    assert perturbation(_list([3.0, -4.0]), rho=0.0)[0].abs().tolist() == [0.0, 0.0]


def test_noise_has_the_standard_deviation_asked_for():
    (got,) = noise({"w": torch.zeros(40_000)}, rho=0.01, key=(0, 1, 0))
    assert abs(got.mean().item()) < 5 * 0.01 / math.sqrt(4e4)
    assert got.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(2 * 4e4))
    assert got.dtype == torch.float32


def test_noise_depends_on_seed_step_draw_and_name_alone():
    like = torch.zeros(64)
    state = torch.get_rng_state()
    (one,) = noise({"w": like}, rho=1.0, key=(0, 1, 2))
    _, again = noise({"v": torch.zeros(3), "w": like}, rho=1.0, key=(0, 1, 2))
    assert torch.equal(one, again)
    for key, name in (((1, 1, 2), "w"), ((0, 2, 2), "w"), ((0, 1, 3), "w"), ((0, 1, 2), "v")):
        (other,) = noise({name: like}, rho=1.0, key=key)
        assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_surgery_leaves_the_gradients_that_it_is_given_alone():
    forget, retain = _random(6), _random(7)
    retain = [r - f for r, f in zip(retain, forget, strict=True)]
    before = _joined([*forget, *retain])
    gru(forget, retain, remembered=None)
    sign_agreement(forget, retain)
    row_norm(forget, [None] * 3)
    perturbation(forget, rho=1.0)
    assert torch.equal(_joined([*forget, *retain]), before)
