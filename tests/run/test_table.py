"""The table of stages: every row has its file, and no stage reads what a later one writes."""

from importlib import import_module
from pathlib import Path

import pytest

from wagle.run import stages
from wagle.run.stages.table import STAGES, Stage

HOME = Path(stages.__file__).parent


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_file_and_a_function_of_its_name(name):
    stage = STAGES[name]
    assert (HOME / stage.kind / f"{name}.py").is_file()
    module = import_module(f"wagle.run.stages.{stage.kind}.{name}")
    assert callable(getattr(module, name))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_needs_earlier_stages_only(name):
    names = list(STAGES)
    assert set(STAGES[name].needs) <= set(names[: names.index(name)])


def test_every_file_named_like_a_stage_has_a_row():
    helpers = {"__init__", "training", "evaluations", "knowing"}
    files = {p.stem for kind in ("making", "measuring") for p in (HOME / kind).glob("*.py")}
    assert files - helpers == set(STAGES)


def test_no_two_stages_write_the_same_file():
    written = [path for stage in STAGES.values() for path in stage.writes]
    assert len(set(written)) == len(written)


def test_a_stage_without_a_check_passes_it():
    assert STAGES["ledger"].check(None) is None


def test_an_unknown_stage_is_no_module():
    with pytest.raises(ModuleNotFoundError):
        Stage("dance", "making")(None)
