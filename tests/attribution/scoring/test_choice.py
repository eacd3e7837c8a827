"""Scores chosen by name or given as functions, and their settings."""

import functools

import pytest

from wagle.attribution.scoring.choice import check_score, choose_score, score_settings
from wagle.attribution.scoring.scores import SCORES, by_gamma, magnitude
from wagle.attribution.scoring.unscored import read_mapping
from wagle.system.errors import WagleError


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda hessian: hessian, "a score cannot ask for 'hessian'"),
        (lambda **every: every, "a score cannot ask for 'every'"),
        (lambda *, gamma: gamma, "asks for nothing"),
        (3, "score is 3; give a name"),
        ("wagel", "unknown score 'wagel'; did you mean 'wagle'"),
        (min, "the parameters of the score 'min' cannot be read"),
        ({}, r"score has the keys \[\] \(one of random_like"),
        ({"random_like": 1, "by_name": 2}, "score has the keys"),
        ({"random_liek": "m"}, "did you mean 'random_like'"),
        ({"by_name": "ffn"}, "score.by_name is 'ffn'; give a list of patterns"),
        ({"by_name": []}, r"score.by_name is \[\]"),
        ({"complement": 3}, "score.complement is 3; give a mask, or the path to one"),
        ({"complement": "none.safetensors"}, "mask none.safetensors does not exist"),
    ],
)
def test_a_score_that_is_none_is_refused_in_one_line(score, said):
    with pytest.raises(WagleError, match=said) as caught:
        check_score(score)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("score", "given", "said"),
    [
        ("grad_ratio", {"esp": 1}, r"has no setting 'esp'; did you mean 'eps'\? \(known: eps\)"),
        ("magnitude", {"eps": 1}, r"has no setting 'eps' \(known: none\)"),
        ("wagle", {"gamma": 1}, "gamma does not belong in a score's settings"),
        ("grad_ratio", {"eps": "small"}, "the setting eps of .* is 'small'; it must be a number"),
        ("grad_ratio", {"eps": float("nan")}, "is nan; it must be a number"),
        (lambda weight, *, power: weight**power, {}, "needs a setting 'power'"),
        ({"by_name": ["ffn"]}, {"eps": 1}, "the score 'by_name' has no settings; remove 'eps'"),
    ],
)
def test_settings_that_do_not_fit_a_score_are_refused(score, given, said):
    with pytest.raises(WagleError, match=said):
        check_score(score, given)


def test_settings_come_from_the_defaults_and_from_what_is_given():
    ratio = choose_score("grad_ratio")
    assert score_settings(ratio, {}) == {"eps": 1e-12}
    assert score_settings(ratio, {"eps": 0.5}) == {"eps": 0.5}
    assert score_settings(choose_score("wagle"), {}) == {}
    assert score_settings(choose_score(functools.partial(magnitude)), {}) == {}
    assert read_mapping({"by_name": ("ffn",)}) == ("by_name", ["ffn"])


def test_a_function_becomes_an_entry_with_the_retain_term_of_wagle_where_it_fits():
    def mine(weight, grad_retain, *, gamma):
        return weight * grad_retain * gamma

    chosen = choose_score(mine)
    assert (chosen.name, chosen.entry.scope) == ("mine", "global")
    assert chosen.entry.retain_term is by_gamma
    assert choose_score(lambda weight: weight).entry.retain_term is None
    assert choose_score(functools.partial(magnitude)).name == "custom"
    assert choose_score("wanda") == ("wanda", SCORES["wanda"])
