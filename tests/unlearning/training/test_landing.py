"""Landing: the way back between two looks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.conftest import make_model
from tests.unlearning.conftest import mask_of, same, tokens, unlearn, weights
from wagle.metrics.bands import Band
from wagle.unlearning.forgetting import forget_probability
from wagle.unlearning.training.landing import LOOKS, Line, Trail, bisect, edge, land
from wagle.unlearning.training.weights.selected import SelectedWeights
from wagle.unlearning.watching.targets import Target


@pytest.fixture
def one():
    """A model of one weight, which is 0."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def _line(model, early=0.0, late=1.0):
    selected = SelectedWeights(model, None)
    ends = [{"weight": torch.tensor([end])} for end in (early, late)]
    return Line(selected, *ends, selected.write_back)


def _target(aims, band, *, falling=True, others=None):
    return Target("f", falling, Band(*band), tuple(Band(*aim) for aim in aims), others or {})


def _bisect(model, figure, aim, band, *, falling=True):
    """Land where ``figure`` of the weight lies in the aim: the share, its value, and the looks."""
    share, figures, looks = bisect(
        _line(model),
        lambda: {"f": figure(model.weight.item())},
        _target([aim], band, falling=falling),
        Band(*aim),
    )
    return share, figures["f"], looks


def test_bisection_finds_the_point_whose_figure_lies_in_the_aim(one):
    share, value, looks = _bisect(one, lambda w: 1 - w, (0.61, 0.64), (0.55, 0.7))
    assert (share, value, looks) == (0.375, 0.625, 4)  # 1, 1/2, 1/4, 3/8
    assert one.weight.item() == 0.375


def test_a_figure_that_rises_is_found_too(one):
    share, value, _ = _bisect(one, lambda w: w, (0.61, 0.64), (0.55, 0.7), falling=False)
    assert share == value == 0.625


def test_where_the_last_look_is_in_the_aim_already_nothing_moves(one):
    assert _bisect(one, lambda w: 1 - w, (0.0, 0.1), (0.0, 0.2)) == (1.0, 0.0, 1)
    assert one.weight.item() == 1.0


def test_a_figure_that_jumps_over_the_aim_ends_in_the_band_if_a_point_does(one):
    def figure(w):
        return 0.9 if w < 0.3 else 0.58 if w < 0.4 else 0.1

    share, value, looks = _bisect(one, figure, (0.61, 0.64), (0.55, 0.7))
    assert (value, looks) == (0.58, LOOKS)
    assert 0.3 <= share < 0.4
    assert one.weight.item() == pytest.approx(share)


def test_a_line_that_never_reaches_the_aim_stays_at_its_late_end(one):
    assert _bisect(one, lambda w: 1 - w / 10, (0.1, 0.2), (0.0, 0.3)) == (1.0, 0.9, 1)


@pytest.mark.parametrize(
    ("high", "aim", "leaks"),
    [
        (0.9, (0.4, 0.6), False),  # no leak in the first aim
        (0.35, (0.2, 0.4), False),  # none in the second
        (0.1, (0.2, 0.4), True),  # one in both
    ],
)
def test_the_next_part_of_the_band_is_aimed_at_while_another_probe_leaks(one, high, aim, leaks):
    target = _target([(0.4, 0.6), (0.2, 0.4)], (0.1, 0.9), others={"g": high})
    found = land(
        _line(one),
        lambda: {"f": 1 - one.weight.item(), "g": 1 - one.weight.item()},
        target,
        (4, 5),
    )
    assert (found.aim, found.leaks) == (aim, leaks)
    assert found.inside
    assert found.value == 1 - one.weight.item()
    assert aim[0] <= found.value <= aim[1]


def test_the_ends_of_a_line_are_exact_and_the_rest_is_between(one):
    line = _line(one, 0.1, 0.7)
    line.go(1.0)
    assert one.weight.item() == torch.tensor(0.7).item()
    line.go(0.0)
    assert one.weight.item() == torch.tensor(0.1).item()
    line.go(0.5)
    assert one.weight.item() == pytest.approx(0.4)


def test_the_edge_is_the_earliest_point_that_meets_the_conditions(one):
    share = edge(_line(one), lambda: one.weight.item() >= 0.3)
    assert 0.3 <= share <= 0.3 + 1 / 64


def test_a_trail_keeps_masters_by_name_and_comes_back_from_its_tensors(one):
    selected = SelectedWeights(one, None)
    trail = Trail(selected)
    trail.keep("a", 3)
    with torch.no_grad():
        one.weight.fill_(5.0)
    trail.keep("b", 4)
    assert (trail.of("a")["weight"].item(), trail.of("b")["weight"].item()) == (0.0, 5.0)
    again = Trail(selected)
    again.restore({**trail.tensors(), "weight": torch.tensor([9.0])}, trail.steps)
    assert again.steps == {"a": 3, "b": 4}
    assert again.of("a")["weight"].item() == 0.0
    trail.rename("a", "b")
    assert trail.steps == {"b": 3}
    assert trail.of("b")["weight"].item() == 0.0
    trail.drop("c")
    trail.close()
    assert trail.steps == {}


# ---------------------------------------------------------------------------------------------
# Whole runs


JUMP = {  # from 0.0021 to 0.0014 in one step
    "max_steps": 8,
    "seed": 3,
    "learning_rate": 0.02,
    "check_every": 3,
    "stop_when": ["forget.probability <= reference"],
}
GOAL = {
    "forget.probability": 0.0019,
    "forget.probability.low": 0.00181,
    "forget.probability.high": 0.00199,
}


def _probability(model):
    return forget_probability(model, tokens("forget"))


def test_a_run_that_jumps_over_the_band_lands_in_its_middle_third():
    wild = make_model("llama-tied")
    unlearn(wild, **JUMP, mask=mask_of(wild), reference=GOAL, land=False)
    assert _probability(wild) < GOAL["forget.probability.low"]
    model = make_model("llama-tied")
    before = weights(model)
    mask = mask_of(model)
    found = unlearn(model, **JUMP, mask=mask, reference=GOAL)
    assert found.landed["between"] == (5, 6)
    assert 0 < found.landed["share"] < 1
    assert 0.00187 <= _probability(model) <= 0.00193
    assert found.landed["value"] == pytest.approx(_probability(model), rel=1e-6)
    assert found.history[-1]["forget.probability"] == pytest.approx(_probability(model), rel=1e-5)
    for name, level in mask.items():
        assert torch.equal(weights(model)[name][~level], before[name][~level])


def test_landing_measures_the_weights_as_they_are_saved(tmp_path):
    model = make_model("llama-tied")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    model.float()
    found = unlearn(model, **JUMP, reference=GOAL, like=tmp_path)
    assert found.landed["value"] == pytest.approx(_probability(model), rel=1e-6)
    for value in weights(model).values():
        assert torch.equal(value, value.to(torch.bfloat16).float())


def test_a_first_look_that_went_too_far_goes_back_towards_the_start():
    model = make_model("llama-tied")
    late = {**JUMP, "check_every": 8, "stop_when": ["forget.probability <= 0.0019"], "land": True}
    found = unlearn(model, **late, mask=mask_of(model))
    assert found.landed["between"] == (0, 8)
    assert 0.95 * 0.0019 <= _probability(model) <= 0.0019


def test_the_best_step_goes_to_the_edge_of_its_conditions():
    settings = {
        "max_steps": 8,
        "seed": 3,
        "learning_rate": 0.02,
        "check_every": 1,
        "best": "min forget.probability where retain.probability <= 0.0036",
    }
    plain = make_model("llama-tied")
    usual = unlearn(plain, **settings, mask=mask_of(plain), land=False).best
    model = make_model("llama-tied")
    found = unlearn(model, **settings, mask=mask_of(model), land=True).best
    assert found["figures"] == usual["figures"]
    there = found["landed"]["figures"]
    assert there["retain.probability"] <= 0.0036
    assert there["forget.probability"] == pytest.approx(_probability(model), rel=1e-5)
    assert _probability(model) < _probability(plain)


def test_a_run_without_a_reference_does_not_land_unless_it_is_asked_to():
    rules = {**JUMP, "stop_when": ["forget.probability <= 0.0019"]}
    one, other = make_model("llama-tied"), make_model("llama-tied")
    assert unlearn(one, **rules).landed is None
    found = unlearn(other, **rules, land=True)
    assert found.landed["band"] == pytest.approx([0.95 * 0.0019, 0.0019])
    assert not same(one, weights(other))
