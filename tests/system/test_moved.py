"""Names that have moved are found where they were, with a warning, until 0.3."""

from importlib import import_module

import pytest

from wagle.system.moved import moved

DOCUMENTED = {  # places that the documentation named
    "wagle.adapters": ["merge_adapter", "load_merged"],
    "wagle.attacks.catalogue": [
        *("ATTACKS", "check_settings", "make_attack", "ASIS", "Scene", "Series", "Trial"),
        *("Effect", "effects"),
    ],
    "wagle.data.records": ["read_records"],
    "wagle.evaluation.asking": ["Way", "evaluate"],
}


@pytest.mark.parametrize(
    ("old", "name"), [(m, n) for m, names in DOCUMENTED.items() for n in names]
)
def test_a_documented_place_still_gives_its_name_and_says_where_it_is_now(old, name):
    with pytest.warns(
        DeprecationWarning, match=rf"{old}\.{name} will be removed in 0\.3: import"
    ) as caught:
        found = getattr(import_module(old), name)
    new = str(caught[0].message).rpartition(" ")[2]
    assert getattr(import_module(new), name) is found
    assert caught[0].filename == __file__


def test_a_name_that_never_was_there_is_an_attribute_error():
    find = moved("wagle.old", {"there": "data.records"})
    with pytest.raises(AttributeError, match=r"module 'wagle\.old' has no attribute 'missing'"):
        find("missing")


@pytest.mark.parametrize(
    ("old", "name"), [("wagle.data.tokens", "Encoder"), ("wagle.unlearning.lora", "add_lora")]
)
def test_places_that_did_not_move_give_their_names_without_a_warning(old, name, recwarn):
    assert getattr(import_module(old), name).__name__ == name
    assert not recwarn.list
