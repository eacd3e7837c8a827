"""The old home of the attacks' names still gives them, and says where they are now."""

from importlib import import_module

import pytest

from wagle.attacks import catalogue


@pytest.mark.parametrize(("name", "home"), list(catalogue._HOME.items()))
def test_every_name_is_the_one_of_its_new_home_with_a_warning_that_names_it(name, home):
    with pytest.warns(DeprecationWarning, match=rf"goes in 0\.3: import {name} from {home}$"):
        found = getattr(catalogue, name)
    assert found is getattr(import_module(home), name)


def test_the_documented_import_works():
    with pytest.warns(DeprecationWarning, match=r"goes in 0\.3"):
        from wagle.attacks.catalogue import Scene, effects, make_attack
    assert all(map(callable, (Scene, effects, make_attack)))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        catalogue.nothing  # noqa: B018
