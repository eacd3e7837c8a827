"""Every private name of another library: that it holds, and that its loss is told in one sentence."""

import importlib
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace

import pytest
import torch

from wagle import compat
from wagle.compat.contracts import BrokenContract
from wagle.compat.table import CONTRACTS, TESTED
from wagle.unlearning.training.trainer import UnlearnTrainer

ROOT = Path(__file__).parents[2]
FILES = sorted(module.name for module in pkgutil.iter_modules(compat.__path__))
OWN = {"behaviour", "contracts", "table"}
every = pytest.mark.parametrize("row", CONTRACTS, ids=lambda row: f"{row.home}.{row.name}")


@pytest.fixture(autouse=True)
def _loaded(request):
    row = request.node.callspec.params.get("row") if hasattr(request.node, "callspec") else None
    if row is not None:
        pytest.importorskip(row.library)


@every
def test_the_library_still_has_it(row):
    row.hold()


def _gone(*_):
    raise AttributeError("gone")


def _kept_from(_, value):
    del value


def _another(*_):
    return None


def take_away(monkeypatch, row):
    """Let a library be one that does not have the name."""
    owner = row.owner()
    if row.home == "torch.autograd":  # of a class that cannot be changed
        node = SimpleNamespace(next_functions=((SimpleNamespace(), 0),))
        leaf = SimpleNamespace(exp=lambda: SimpleNamespace(grad_fn=node))
        monkeypatch.setattr(torch, "ones", lambda *_, **__: leaf)
    elif isinstance(owner, ModuleType) or isinstance(vars(owner).get(row.name), FunctionType):
        monkeypatch.delattr(owner, row.name)
    elif row.called_by:  # an attribute that is made anew: nobody reads it any more
        monkeypatch.setattr(owner, row.called_by, _another)
    else:
        monkeypatch.setattr(owner, row.name, property(_gone, _kept_from), raising=False)


@every
def test_a_name_that_was_taken_away_is_told_in_one_sentence(row, monkeypatch):
    take_away(monkeypatch, row)
    with pytest.raises(BrokenContract) as told:
        row.hold()
    said = str(told.value)
    assert said == row.sentence()
    assert "\n" not in said
    where = row.home.removeprefix(row.library).lstrip(".:").replace(":", ".")
    name = f"{where}.{row.name}".lstrip(".")
    assert said.startswith(f"{row.library} {metadata.version(row.library)} no longer has {name}")
    assert said.endswith(f": wagle.compat.{row.user} needs another way to {row.purpose}")


@pytest.mark.parametrize(
    "row", [row for row in CONTRACTS if row.takes], ids=lambda row: f"{row.home}.{row.name}"
)
def test_other_parameters_are_another_name(row, monkeypatch):
    monkeypatch.setattr(row.owner(), row.name, _another)
    with pytest.raises(BrokenContract, match=re.escape(f"{row.name}({', '.join(row.takes)})")):
        row.hold()


@pytest.mark.parametrize(
    "row", [row for row in CONTRACTS if row.called_by], ids=lambda row: f"{row.home}.{row.name}"
)
def test_a_name_that_nobody_calls_any_more_is_told(row, monkeypatch):
    monkeypatch.setattr(row.owner(), row.called_by, _another)
    with pytest.raises(BrokenContract, match=f", called by {row.called_by}: "):
        row.hold()


def test_the_sentence_names_the_call_and_who_needs_it(monkeypatch):
    (row,) = (row for row in CONTRACTS if row.name == "rename_source_key")
    monkeypatch.delattr(row.owner(), row.name)
    with pytest.raises(BrokenContract) as told:
        row.hold()
    assert str(told.value) == (
        f"transformers {metadata.version('transformers')} no longer has "
        "core_model_loading.rename_source_key(source_key, weight_renamings, weight_converters, "
        "base_model_prefix, meta_state_dict): wagle.compat.transformers.stored_names needs another "
        "way to find out which tensors of a folder a parameter is made from"
    )


def test_every_row_is_of_something_that_is_there_and_every_file_has_one():
    for row in CONTRACTS:
        library, name = row.user.split(".")
        assert hasattr(importlib.import_module(f"wagle.compat.{library}"), name)
        assert row.library in TESTED
    assert {row.user.split(".")[0] for row in CONTRACTS} == set(FILES) - OWN == set(TESTED)
    assert len({(row.home, row.name) for row in CONTRACTS}) == len(CONTRACTS)


def test_the_trainer_overrides_no_private_method():
    private = {name for name in vars(UnlearnTrainer) if re.match("_[a-z]", name)}
    theirs = {name for kind in UnlearnTrainer.__mro__[1:] for name in vars(kind)}
    assert not private & theirs


@pytest.mark.parametrize("library", TESTED)
def test_the_versions_that_were_tested_are_those_that_are_installed_here(library):
    locked = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
    )
    assert locked[library] == TESTED[library]
    doc = importlib.import_module(f"wagle.compat.{library}").__doc__
    assert f"Tested with {library} {TESTED[library]}." in doc


def test_no_file_here_imports_its_library_before_it_is_used():
    code = (
        "import sys, importlib\n"
        f"for name in {FILES}: importlib.import_module('wagle.compat.' + name)\n"
        f"print(sorted(set({sorted(TESTED)}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_pyproject_says_which_versions_were_tested():
    text = (ROOT / "pyproject.toml").read_text().split("[tool.wagle.tested]\n")[1].split("\n\n")[0]
    assert dict(re.findall(r'(\w+) = "(.+)"', text)) == TESTED
