"""From a plan to a trainer; what a whole run shows is tested beside ``unlearn`` and ``finetune``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.conftest import OTHERS, RECORDS
from tests.unlearning.conftest import encoder, mask_of
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.errors import WagleError
from wagle.unlearning.execution import (
    _only,
    make_supply,
    make_trainer,
    open_checkpoints,
    train_result,
)
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.plan import plan_unlearning


def _plan(model, **settings):
    asked = Unlearning(**{"objective": "npo", "stop_when": [], "max_steps": 1, **settings})
    return plan_unlearning(model, encoder(), RECORDS, OTHERS, asked)


def test_without_a_folder_checkpoints_are_of_this_process_and_with_one_of_this_run(model, tmp_path):
    plan = _plan(model)
    with open_checkpoints(model, plan, None, None) as found:
        assert (found.lasting, found.key) == (False, {})
    with open_checkpoints(model, plan, None, tmp_path) as found:
        assert found.lasting
        assert found.key == plan.checkpoint_key(model, None)


def test_the_original_model_is_asked_about_the_planned_records_alone(model):
    plan = _plan(model, batch_size=2)
    supply = make_supply(model, plan)
    assert sorted(supply.scores["forget"]) == sorted({forget for forget, _ in plan.pairs.pairs})
    assert len(supply.scores["forget"]) == 2


@pytest.mark.parametrize("masked", [True, False])
def test_an_objective_that_trains_few_layers_does_so_where_no_mask_says_which(model, masked):
    mask = mask_of(model, 0.5) if masked else None
    plan = _plan(model, objective="rmu", objective_settings={"layer": 1})
    with open_checkpoints(model, plan, mask, None) as checkpoints:
        trainer = make_trainer(
            model, plan, mask, checkpoints, make_supply(model, plan), what="testing"
        )
    down = {f"model.layers.{block}.mlp.down_proj.weight" for block in (0, 1)}
    assert trainer.only == (None if masked else down)
    assert trainer.mask is mask


def test_a_run_that_changed_nothing_is_an_error_and_leaves_no_checkpoint(model, tmp_path):
    plan = _plan(model, checkpoint_minutes=0)
    with open_checkpoints(model, plan, None, tmp_path) as checkpoints:
        trainer = make_trainer(
            model, plan, None, checkpoints, make_supply(model, plan), what="testing"
        )
        trainer.run()
        assert checkpoints.has("last")
        assert train_result(trainer).changed > 0
        trainer.changed = 0
        with pytest.raises(
            WagleError, match=r"changed none of its \d+ selected weights in float32"
        ):
            train_result(trainer)
        assert not checkpoints.has("last")


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
        landed=None,
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
        WagleError, match=rf"none of its 12 selected weights in {kinds}, the"
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
    said = "objective mine without a mask trains *.up_proj.*, *.gate.*, and the"
    assert record.getMessage().startswith(said)
