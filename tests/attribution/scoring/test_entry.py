"""What a score asks for, read from its signature."""

import functools
import inspect

import pytest
import torch

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.entry import QUANTITIES, Score, function_name, needs
from wagle.system.errors import WagleError


def mine(weight, grad_retain, *, gamma, power=2.0):
    return weight * gamma + grad_retain**power


def test_quantities_are_the_parameters_and_settings_those_that_are_keywords_only():
    found = needs(mine)
    assert found.quantities == ["weight", "grad_retain"]
    assert found.settings == {"gamma": inspect.Parameter.empty, "power": 2.0}
    assert Score(mine).quantities == found.quantities
    assert Score(mine).settings == found.settings


def test_all_that_is_collected_can_be_asked_for_and_the_weight_and_a_draw():
    assert ("weight", *COLLECTED, "uniform") == QUANTITIES
    assert needs(lambda uniform: uniform) == (["uniform"], {})


def test_a_setting_may_have_the_name_of_a_quantity_and_is_none():
    def odd(weight, *, uniform=1.0):
        return weight * uniform

    assert needs(odd) == (["weight"], {"uniform": 1.0})


def test_the_first_parameter_that_is_no_quantity_is_named_with_those_that_are():
    with pytest.raises(WagleError) as caught:
        needs(lambda weight, hessian=1, other=2: weight)  # noqa: ARG005
    known = ", ".join(QUANTITIES)
    assert str(caught.value) == f"a score cannot ask for 'hessian' (known: {known})"


def test_a_score_without_a_name_is_called_custom():
    assert function_name(mine) == "mine"
    assert function_name(functools.partial(mine)) == "custom"
    with pytest.raises(
        WagleError, match=r"^the score 'nothing' asks for nothing; its parameters mu"
    ):
        needs(nothing)


def nothing(*, gamma):
    return gamma


def test_the_weight_term_dominates_only_where_it_is_strictly_larger():
    score = Score(mine, retain_term=lambda grad_retain, *, gamma: -grad_retain / gamma)
    over = score.dominated({"gamma": 2.0, "power": 9.0})  # the term takes what it knows
    values = {
        "weight": torch.tensor([1.0, -1.0, 1.0, 0.0, float("nan")]),
        "grad_retain": torch.tensor([1.0, 2.0, -2.5, 0.0, 1.0]),
        "grad_forget": torch.zeros(5),
    }
    assert over(values).tolist() == [True, False, False, False, False]
    assert values["grad_retain"].tolist() == [1.0, 2.0, -2.5, 0.0, 1.0]  # as it was
    assert Score(mine).dominated({"gamma": 2.0}) is None


@pytest.mark.parametrize("text", ["weight, /", "*weight", "grad_retain, **weight"])
def test_a_score_that_cannot_be_called_by_name_is_refused(text):
    function = eval(f"lambda {text}: weight")
    with pytest.raises(WagleError, match="does not take 'weight' by name"):
        needs(function)
