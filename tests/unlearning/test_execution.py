"""From a plan to a trainer; what a whole run shows is tested beside ``unlearn`` and ``finetune``."""

import pytest

from tests.conftest import OTHERS, RECORDS
from tests.unlearning.conftest import encoder, mask_of
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.errors import WagleError
from wagle.unlearning.execution import make_supply, make_trainer, open_checkpoints, train_result
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
