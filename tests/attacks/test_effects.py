"""What the figures of an attack mean together, compared with the reference."""

import math

import pytest

from wagle.attacks.effects import effects, gap, recovered
from wagle.attacks.kinds.relearning.curve import Curve
from wagle.attacks.shapes import Series
from wagle.evaluation.figures import Figure
from wagle.system.errors import WagleError


def series(start, **states):
    made = {
        state.replace("_", " "): {
            name: Figure(value, None, "none", count=4) for name, value in figures.items()
        }
        for state, figures in states.items()
    }
    return Series(made, start)


def test_t38_effects_are_rise_recovered_share_and_gap():
    after = series("step 0", step_0={"p": 0.1}, step_1={"p": 0.45})
    before = series("step 0", step_0={"p": 0.9}, step_1={"p": 0.95})
    reference = series("step 0", step_0={"p": 0.1}, step_1={"p": 0.3})
    found = effects({"after": after, "before": before, "reference": reference})
    assert list(found) == ["step 1"]
    effect = found["step 1"]["p"]
    assert effect.rise == pytest.approx(0.35)
    assert effect.recovered == pytest.approx(0.4375)
    assert effect.gap == pytest.approx(0.15)
    assert effect.note is None


def test_without_the_other_models_there_is_a_rise_and_no_more():
    after = series("plain", plain={"p": 0.1}, prefix={"p": 0.4})
    (effect,) = effects({"after": after})["prefix"].values()
    assert effect.rise == pytest.approx(0.3)
    assert (effect.recovered, effect.gap) == (None, None)
    assert effect.note == "there is no original model"


def test_where_hardly_anything_was_forgotten_no_share_is_told():
    after = series("plain", plain={"p": 0.89}, prefix={"p": 0.95})
    before = series("plain", plain={"p": 0.9}, prefix={"p": 0.9})
    (effect,) = effects({"after": after, "before": before})["prefix"].values()
    assert effect.recovered is None
    assert "there is nothing to bring back" in effect.note


def test_figures_that_rise_as_a_model_forgets_are_left_out():
    after = series("plain", plain={"f.nll": 4.0, "repetition": 0.0}, prefix={"f.nll": 1.0})
    assert effects({"after": after}) == {}


def test_how_answers_read_has_no_effect():
    after = series("plain", plain={"f.token_entropy": 0.2}, prefix={"f.token_entropy": 0.9})
    assert effects({"after": after}) == {}


def test_labels_that_mean_nothing_have_no_effect():
    after = series(None, forget={"auc_maximum": 0.9, "auc_maximum_shuffled": 0.8})
    found = effects({"after": after, "reference": after})
    assert list(found["forget"]) == ["auc_maximum"]


def test_an_attack_that_only_looks_has_the_distance_to_the_reference_alone():
    after = series(None, forget={"leak@1": 0.5, "leak@2": 0.75})
    reference = series(None, forget={"leak@1": 0.25})
    found = effects({"after": after, "before": after, "reference": reference})["forget"]
    assert found["leak@1"].gap == 0.25
    assert found["leak@2"].gap is None
    assert {(e.rise, e.recovered, e.note) for e in found.values()} == {(None, None, None)}


def test_figures_that_one_state_lacks_are_not_compared():
    after = series("a", a={"p": 0.1, "q": None}, b={"p": None, "q": 0.2, "r": 0.3})
    assert effects({"after": after}) == {}


def test_t38_recovered_and_gap():
    assert recovered(0.1, 0.45, 0.9).value == pytest.approx(0.4375)
    assert recovered(0.1, 0.45, 0.9).note is None
    own = Curve({0: {"p": 0.1}, 10: {"p": 0.45}}, [], 1).rise("p")
    retrained = Curve({0: {"p": 0.1}, 10: {"p": 0.3}}, [], 1).rise("p")
    assert gap(own[10], retrained[10]) == pytest.approx(0.15)


@pytest.mark.parametrize(("original", "defined"), [(0.52, True), (0.519, False), (0.3, False)])
def test_recovered_is_undefined_where_less_than_0_02_was_forgotten(original, defined):
    found = recovered(0.5, 0.6, original)
    assert (found.value is not None) is defined
    assert (found.note is None) is defined


def test_recovered_refuses_what_is_no_number():
    with pytest.raises(WagleError, match="the figure after is nan"):
        recovered(0.1, math.nan, 0.9)
