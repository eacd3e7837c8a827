import ast
import inspect

import pytest

from wagle.unlearning.objectives import entry, table
from wagle.unlearning.objectives.entry import INPUTS, Objective
from wagle.unlearning.objectives.table import FAMILIES, OBJECTIVES


def test_no_name_stands_in_two_families_and_all_of_them_are_in_the_table_in_order():
    names = [name for family in FAMILIES for name in family]
    assert sorted(names) == list(OBJECTIVES)
    assert all(OBJECTIVES[name] is family[name] for family in FAMILIES for name in family)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_an_entry_stands_in_the_file_of_its_function(name):
    family = next(family for family in FAMILIES if name in family)
    module = inspect.getmodule(OBJECTIVES[name].function)
    assert any(value is family for value in vars(module).values())


def test_an_entry_is_bounded_and_trains_with_the_retain_set_unless_it_says_otherwise():
    found = Objective(len)
    assert (found.retain, found.own, found.bounded) == ("nll", None, True)
    assert (found.forget_weight, found.retain_weight) == (1.0, 1.0)


def test_what_can_be_asked_for_is_every_kind_of_every_set():
    assert {"forget", "retain_logits_ref", "uniform_tokens", "control", "dual"} <= INPUTS
    assert len(INPUTS) == 7 * 7 + 2


@pytest.mark.parametrize("module", [entry, table])
def test_the_table_and_its_entries_have_no_functions_of_their_own(module):
    tree = ast.parse(inspect.getsource(module))
    assert not any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
