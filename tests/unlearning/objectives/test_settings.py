import pytest

from wagle.system.errors import WagleError
from wagle.unlearning.objectives.settings import merge, positive, problem


def test_what_is_given_replaces_defaults():
    assert merge("objective npo", {"beta": 0.1, "skip": 1}, {"beta": 2}) == {"beta": 2, "skip": 1}


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(
        WagleError, match=r"objective npo has no setting 'bata'; nearest: beta \(known: beta\)"
    ):
        merge("objective npo", {"beta": 0.1}, {"bata": 0.1})


@pytest.mark.parametrize(
    ("value", "default", "said"),
    [
        (1, 0.5, None),
        (0.0, 0.5, None),
        (-1.0, 0.5, "give a number >= 0"),
        ("5e-6", 0.5, "give a number >= 0"),
        (True, 0.5, "give a number >= 0"),
        (float("nan"), 0.5, "give a number >= 0"),
        (float("inf"), 0.5, "give a number >= 0"),
        (2, 1, None),
        (0.5, 1, "give a whole number"),
        (True, False, None),
        (1, False, "give true or false"),
        ("b", "a", None),
        (1, "a", "give a text"),
        (["a"], (), None),
        ("a", (), "give a list of texts"),
        ([1], (), "give a list of texts"),
    ],
)
def test_a_setting_is_of_the_kind_of_its_default(value, default, said):
    assert problem(value, default) == said


def test_what_is_divided_by_is_above_zero():
    assert positive("beta")({"beta": 0.1}) is None
    assert positive("beta")({"beta": 0.0}) == "beta is 0.0; give a number > 0"
    assert positive("beta")({}) is None
