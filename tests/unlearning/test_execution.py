"""From a plan to a trained model: what trains, where it is kept, and what is told of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.unlearning.conftest import mask_of
from wagle.system.errors import WagleError
from wagle.unlearning.execution import _only, open_checkpoints, train_result
from wagle.unlearning.objectives.choice import choose_objective


def trainer(changed, *, saved=(torch.float32,), rounding="nearest", stopped_by=None, best=None):
    """A trainer that has run; ``cleared`` counts how often its checkpoints were thrown away."""
    cleared = []
    course = SimpleNamespace(
        selected=SimpleNamespace(count=12, saved=list(saved)),
        checkpoints=SimpleNamespace(clear=lambda: cleared.append(True)),
        training=SimpleNamespace(rounding=rounding),
        history=[{"step": 1}],
        stopped_by=stopped_by,
        chosen=choose_objective("grad_diff"),
        best=best,
    )
    return SimpleNamespace(course=course, changed=changed, cleared=cleared)


def test_a_run_tells_what_it_selected_changed_and_why_it_stopped():
    found = train_result(trainer(7, stopped_by="forget.nll >= 3.0", best={"step": 1}))
    assert (found.selected, found.changed, found.stopped) == (12, 7, "forget.nll >= 3.0")
    assert (found.history, found.best) == ([{"step": 1}], {"step": 1})
    assert found.objective["name"] == "grad_diff"


def test_a_run_that_no_rule_stopped_came_to_its_end():
    made = trainer(1)
    assert train_result(made).stopped == "end"
    assert made.cleared == []


@pytest.mark.parametrize(
    ("saved", "rounding", "kinds", "hint"),
    [
        ([torch.float32], "nearest", "float32", False),
        ([torch.bfloat16], "nearest", "bfloat16", True),
        ([torch.bfloat16], "stochastic", "bfloat16", False),
        ([torch.bfloat16, torch.float32], "nearest", "bfloat16 and float32", True),
    ],
)
def test_a_run_that_changed_nothing_says_in_which_precision_and_keeps_no_checkpoint(
    saved, rounding, kinds, hint
):
    made = trainer(0, saved=saved, rounding=rounding)
    with pytest.raises(
        WagleError, match=rf"none of its 12 selected weights in {kinds}, as"
    ) as told:
        train_result(made)
    assert ("set rounding: stochastic" in str(told.value)) is hint
    assert made.cleared == [True]


class Blocks(nn.Module):
    """Two blocks with a down projection each, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.ModuleDict({"down_proj": nn.Linear(2, 2, bias=False)}) for _ in range(2)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(2)


def chosen(*patterns):
    """An objective that trains the parameters of these patterns where there is no mask."""
    entry = SimpleNamespace(trains=(lambda _: patterns) if patterns else None)
    return SimpleNamespace(name="mine", settings={}, entry=entry)


def test_an_objective_trains_the_parameters_of_its_patterns():
    model = Blocks()
    assert _only(model, None, chosen("*1.down_proj.weight", "norm.b*")) == {
        "layers.1.down_proj.weight",
        "norm.bias",
    }


def test_without_patterns_with_a_mask_and_in_an_adapter_nothing_is_narrowed():
    model = Blocks()
    assert _only(model, None, chosen()) is None
    assert _only(model, mask_of(model), chosen("norm.*")) is None
    model.disable_adapter = lambda: None
    assert _only(model, None, chosen("norm.*")) is None


def test_patterns_that_name_nothing_train_everything_and_say_so_once(caplog):
    assert _only(Blocks(), None, chosen("*.up_proj.*", "*.gate.*")) is None
    (record,) = caplog.records
    said = "objective mine trains *.up_proj.*, *.gate.* where there is no mask"
    assert record.getMessage().startswith(said)


def test_checkpoints_without_a_folder_do_not_ask_what_the_run_is_and_are_gone_afterwards():
    with open_checkpoints(nn.Linear(1, 1), None, None, None) as made:  # type: ignore[arg-type]
        assert not made.lasting
        folder = made.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_checkpoints_in_a_folder_are_those_of_the_plan_and_the_mask(tmp_path):
    model = nn.Linear(1, 1)
    plan = SimpleNamespace(checkpoint_key=lambda *given: {"given": [x is model for x in given]})
    with open_checkpoints(model, plan, None, tmp_path / "kept") as made:  # type: ignore[arg-type]
        assert made.lasting
        assert made.key == {"given": [True, False]}
    assert (tmp_path / "kept").is_dir()
