"""Rules that a recipe and Python share, and that both ask them."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wagle
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.gamma import check_damping, read_gamma
from wagle.attribution.scoring.ratios import read_ladder
from wagle.attribution.scoring.unscored import read_mapping
from wagle.mask.writing import refuse_ladder
from wagle.recipe.rules import (
    MOST_RATIOS,
    OF_MASK,
    OF_PATTERNS,
    UNSCORED,
    Unfit,
    check_ladder,
    gamma_keys,
    gamma_kind,
    parse_damping,
    parse_gamma,
    parse_unscored,
)
from wagle.recipe.sections.attribution import Attribution
from wagle.recipe.values import Quantity
from wagle.system.errors import WagleError


def number(value):
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def rule_of(parse, *given):
    with pytest.raises(Unfit) as caught:
        parse(*given)
    return caught.value.rule, caught.value.key, caught.value.value


def test_a_ladder_has_one_to_fifteen_ratios_that_ascend():
    check_ladder([i / 15 for i in range(1, MOST_RATIOS + 1)], float)
    assert rule_of(check_ladder, [], float) == ("length", "", 0)
    assert rule_of(check_ladder, [i / 16 for i in range(1, 17)], float)[0] == "length"
    assert rule_of(check_ladder, [0.1, 0.1], float) == ("order", "", [0.1, 0.1])
    check_ladder(["0.5", "0.10"], len)  # compared as the numbers that they stand for


@pytest.mark.parametrize(
    ("gamma", "found"),
    [
        ("auto", "auto"),
        ("curvature", "curvature"),
        (2, 2.0),
        ({"theta_share": 0.5}, {"theta_share": 0.5}),
        ({"mu": 1e-6}, {"mu": 1e-6}),
        ({"records": 3, "mu": 1, "accumulation": 4.0}, {"records": 3, "mu": 1, "accumulation": 4}),
    ],
)
def test_every_form_of_gamma_is_read(gamma, found):
    assert parse_gamma(gamma, number) == found


@pytest.mark.parametrize(
    ("gamma", "rule"),
    [
        ("atuo", ("form", "", "atuo")),
        (0, ("form", "", 0)),
        (["auto"], ("form", "", ["auto"])),
        ({"accumulation": 4}, ("form", "", {"accumulation": 4})),
        ({"mu": 1, "theta_share": 0.5}, ("key", "theta_share", 0.5)),
        ({"mu": "big"}, ("number", "mu", "big")),
        ({"mu": -1}, ("positive", "mu", -1)),
        ({"theta_share": 1}, ("share", "theta_share", 1)),
        ({"mu": 1, "records": 0.5}, ("whole", "records", 0.5)),
    ],
)
def test_what_is_no_gamma_names_the_rule_and_the_part(gamma, rule):
    assert rule_of(parse_gamma, gamma, number) == rule


def test_the_keys_of_a_gamma_follow_from_its_kind():
    assert gamma_kind({"records": 3, "mu": 1}) == "mu"
    assert gamma_kind({"records": 3}) is None
    assert gamma_keys("mu") == ("mu", "accumulation", "records")
    assert gamma_keys("theta_share") == ("theta_share",)


def test_damping_is_auto_or_above_zero():
    assert parse_damping("auto", number) == "auto"
    assert parse_damping(3, number) == 3.0
    assert rule_of(parse_damping, "curvature", number) == ("form", "", "curvature")
    assert rule_of(parse_damping, -1, number)[0] == "form"


def test_a_score_that_is_a_mapping_has_one_key_and_what_belongs_to_it():
    def is_mask(value):
        return value == "m"

    for kind in OF_MASK:
        assert parse_unscored({kind: "m"}, is_mask) == (kind, "m")
        assert rule_of(parse_unscored, {kind: "x"}, is_mask) == ("mask", kind, "x")
    for kind in OF_PATTERNS:
        assert parse_unscored({kind: ("ffn",)}, is_mask) == (kind, ["ffn"])
        for wrong in ("ffn", [], [3], [""]):
            assert rule_of(parse_unscored, {kind: wrong}, is_mask) == ("patterns", kind, wrong)
    for wrong in ({}, {"like": "m"}, dict.fromkeys(UNSCORED, "m")):
        assert rule_of(parse_unscored, wrong, is_mask) == ("keys", "", wrong)


_values = st.one_of(
    st.sampled_from(["auto", "curvature", "half", None, True]),
    st.integers(-2, 3),
    st.floats(-1, 2, allow_nan=False),
)
_gammas = _values | st.dictionaries(
    st.sampled_from(["mu", "theta_share", "accumulation", "records", "share"]), _values, max_size=3
)


def _refuses(ask):
    try:
        ask()
    except (WagleError, ValueError):
        return True
    return False


@given(_gammas)
def test_a_recipe_and_python_take_the_same_gammas(gamma):
    recipe = _refuses(lambda: Attribution(gamma=gamma))
    assert recipe == _refuses(lambda: read_gamma(gamma))


@given(_values)
def test_a_recipe_and_python_take_the_same_dampings(damping):
    recipe = _refuses(lambda: Attribution(damping=damping))
    assert recipe == _refuses(lambda: check_damping(damping))


@given(st.lists(st.sampled_from([i / 20 for i in range(1, 21)]), max_size=20) | st.just([0.1, 0.1]))
def test_a_recipe_a_selection_and_a_mask_take_the_same_ladders(ratios):
    recipe = _refuses(lambda: Attribution(ratio=ratios, use=ratios[0] if ratios else None))
    assert (
        recipe == _refuses(lambda: read_ladder(ratios)) == _refuses(lambda: refuse_ladder(ratios))
    )


@pytest.mark.parametrize(
    "score",
    [
        {},
        {"random_like": "m"},
        {"complement": ""},
        {"by_name": ["ffn"]},
        {"by_name": "ffn"},
        {"by_name": [""]},
        {"by_name": []},
        {"like": "m"},
        dict.fromkeys(UNSCORED, "m"),
    ],
)
def test_a_recipe_and_python_take_the_same_mappings(score):
    recipe = _refuses(lambda: Attribution(score=score))
    assert recipe == (_refuses(lambda: read_mapping(score)) or score == {"complement": ""})


def test_a_recipe_offers_the_quantities_that_are_collected():
    assert get_args(Quantity) == tuple(COLLECTED)


def test_every_choice_without_a_score_makes_a_mask(model, tokenizer, forget, retain):
    store = wagle.gradients(model, tokenizer, forget, retain)
    other = wagle.Mask.from_scores(store, ratio=0.4)
    for kind in UNSCORED:
        value = other if kind in OF_MASK else ["ffn"]
        mask = wagle.Mask.from_scores(store, score={kind: value})
        assert mask.metadata["score"] == kind
        assert mask.count == sum(int(chosen.sum()) for chosen in mask.values()) > 0
