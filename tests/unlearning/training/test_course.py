"""The course of a run: what is kept of it, and to which weights it goes back."""

import pytest
import torch

from tests.conftest import OTHERS, RECORDS, make_model
from tests.unlearning.conftest import encoder, mask_of, same, weights
from wagle.recipe.sections.unlearning import Unlearning
from wagle.unlearning.execution import make_supply
from wagle.unlearning.plan import plan_unlearning
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.course import Course
from wagle.unlearning.training.selected import SelectedWeights


@pytest.fixture
def course(model, tmp_path):
    return _course(model, tmp_path)


def _course(model, folder, **settings):
    asked = Unlearning(objective="grad_diff", stop_when=[], max_steps=4, **settings)
    plan = plan_unlearning(model, encoder(), RECORDS, OTHERS, asked)
    made = Course(
        model=model,
        chosen=plan.chosen,
        supply=make_supply(model, plan),
        gradient=plan.gradient,
        training=plan.settings,
        checks=plan.checks,
        checkpoints=Checkpoints(folder / "kept", {"run": 1}),
        seed=0,
        total_steps=4,
        epochs=1.0,
    )
    selected = SelectedWeights(model, mask_of(model))
    masters = [m for _, m in selected.named_masters()]
    made.equip(selected, torch.optim.SGD(masters, lr=0.1), set())
    return made


def _move(course, by=0.5):
    """A step, of which nothing is known yet: its weights."""
    with torch.no_grad():
        for _, master in course.selected.named_masters():
            master += by
    course.selected.write_back(None)
    return weights(course.model)


def test_a_run_that_knows_of_nothing_good_goes_back_to_its_start(course, model):
    before = weights(model)
    _move(course)
    course.save(1)
    assert course.retreat() == 0  # no later loss has shown that step 1 is good
    assert same(model, before)


def test_a_checkpoint_is_good_once_a_later_loss_was_seen(course, model):
    first = _move(course)
    course.save(1)
    _move(course)
    course.confirm(1)
    assert course.retreat() == 1
    assert same(model, first)


def test_the_checkpoint_before_is_kept_until_the_last_one_is_seen_to_be_good(course, model):
    first = _move(course)
    course.save(1)
    course.confirm(1)
    _move(course)
    course.save(2)
    assert [course.checkpoints.has(name) for name in ("last", "good")] == [True, True]
    assert course.retreat() == 1
    assert same(model, first)
    course.confirm(2)
    assert not course.checkpoints.has("good")


def test_a_resumed_run_is_where_the_killed_one_was(course, tmp_path):
    moved = _move(course)
    course.history.append({"step": 1, "retain_nll": 2.0})
    course.stopped_by, course.supply.dual = "a rule", 3.0
    course.checks.known["before"] = {"forget.probability": 0.5}
    course.save(1)
    other = _course(make_model("llama-tied"), tmp_path)
    assert other.resume()
    assert (other.done, other.kept, other.confirmed) == (1, 1, 0)
    assert (other.history, other.stopped_by) == (course.history, "a rule")
    assert other.supply.dual == 3.0
    assert other.checks.known["before"] == {"forget.probability": 0.5}
    assert same(other.model, moved)


def test_without_a_checkpoint_there_is_nothing_to_resume(course):
    assert not course.resume()
    assert course.done == 0


def test_the_best_so_far_is_kept_and_taken(tmp_path):
    model = make_model("llama-tied")
    course = _course(model, tmp_path, best="min forget.nll where retain.probability >= 0.5")
    seen = []
    for step, nll in enumerate((3.0, 1.0, 2.0), 1):
        seen.append(_move(course))
        course.keep_best({"forget.nll": nll, "retain.probability": 0.1}, step)
    course.keep_best({"retain.probability": 1.0}, 4)  # a look that has not the figure
    assert course.best == {"step": 2, "figures": {"forget.nll": 1.0, "retain.probability": 0.1}}
    assert course.take_best() == 2
    assert course.best["meets"] is False
    assert same(model, seen[1])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_masters_are_rounded_by_chance_only_where_that_is_asked_for(rounding, tmp_path):
    course = _course(make_model("llama-tied"), tmp_path, rounding=rounding)
    narrow = course.narrow(1)
    assert (narrow is None) == (rounding == "nearest")
    if narrow is not None:
        values = torch.full((64,), 1.0 + 2**-9)
        first, second = narrow(values, "w", 0), narrow(values, "w", 1)
        assert first.dtype == torch.bfloat16
        assert torch.equal(first, narrow(values, "w", 0))
        assert not torch.equal(first, second)
        assert not torch.equal(first, course.narrow(2)(values, "w", 0))
