"""The course of a run: what is kept of it, and to which weights it goes back."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.conftest import OTHERS, RECORDS, make_model
from tests.unlearning.conftest import encoder, mask_of, same, weights
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.unlearning.execution import make_supply
from wagle.unlearning.plan import plan_unlearning
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.course import Course
from wagle.unlearning.training.weights.selected import SelectedWeights
from wagle.unlearning.watching.rules import parse_best


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


class Checks:
    """Checks with this best rule; ``resumed`` is what a killed run told of itself."""

    def __init__(self, best=None, known=None):
        self.best = None if best is None else parse_best(best)
        self.land, self.rules = False, []
        self.known = known if known is not None else {"before": {}, "start": {"retain.nll": 2.0}}
        self.resumed = None

    def resume(self, before, start, history):
        self.resumed = (before, start, history)


@pytest.fixture
def begin(tmp_path):
    """Makes a course over a model of four weights, all in one folder of checkpoints."""

    def make(best=None, *, turns=False, remembered=None, rounding="nearest", known=None):
        model = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        selected = SelectedWeights(model, None)
        made = Course(
            model,
            chosen=None,  # type: ignore[arg-type]
            supply=SimpleNamespace(dual=None),  # type: ignore[arg-type]
            gradient=SimpleNamespace(turns=turns, remembered=remembered),  # type: ignore[arg-type]
            training=Training(rounding=rounding),
            checks=Checks(best, known),  # type: ignore[arg-type]
            checkpoints=Checkpoints(tmp_path / "kept", {"run": 1}),
            seed=5,
            total_steps=9,
            epochs=1.0,
        )
        masters = [master for _, master in selected.named_masters()]
        made.equip(selected, torch.optim.SGD(masters, lr=1.0), set())
        return made

    return make


def move(course, value):
    """Set all masters, as a step would, and write them into the model."""
    with torch.no_grad():
        for _, master in course.selected.named_masters():
            master.fill_(value)
    course.selected.write_back()


def weight(course):
    return course.model.weight.detach()


def test_a_step_once_confirmed_stays_so(begin):
    course = begin()
    course.confirm(3)
    course.confirm(1)
    assert course.confirmed == 3


def test_an_unconfirmed_checkpoint_never_takes_the_place_of_the_good_one(begin):
    course = begin()
    course.confirm(1)
    course.save(1)
    move(course, 7.0)
    course.save(2)
    move(course, 9.0)
    course.save(3)  # step 2 was never confirmed: ``good`` is still that of step 1
    masters, _, state = course.checkpoints.load("good", course.selected)
    assert state["step"] == 1
    assert torch.cat([m.flatten() for m in masters.values()]).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_without_a_rule_or_without_its_figure_nothing_is_kept(begin):
    begin_without = begin()
    begin_without.keep_best({"forget.extraction_strength": 0.5}, 1)
    other = begin("min forget.extraction_strength")
    other.keep_best({"forget.probability": 0.5}, 1)
    assert begin_without.best is other.best is None
    assert not other.checkpoints.has("best")


@pytest.mark.parametrize(("before", "meets"), [(0.5, True), (1.0, False)])
def test_the_best_says_whether_it_meets_its_conditions_and_warns_where_not(
    begin, before, meets, caplog
):
    rule = "min forget.extraction_strength where retain.probability >= 0.95 * before"
    course = begin(rule, known={"before": {"retain.probability": before}})
    figures = {"forget.extraction_strength": 0.25, "retain.probability": 0.5}
    course.keep_best(figures, 4)
    with caplog.at_level(logging.WARNING):
        assert course.take_best() == 4
    assert course.best is not None
    assert course.best["meets"] is meets
    said = "the model kept is that of step 4, whose forget.extraction_strength is 0.25"
    assert [said in record.getMessage() for record in caplog.records] == [True] * (not meets)


def test_a_run_killed_while_the_last_checkpoint_was_written_resumes_from_the_good_one(begin):
    first = begin()
    first.confirm(1)
    move(first, 6.0)
    first.save(1)
    first.checkpoints.rename("last", "good")  # and no further

    again = begin()
    assert again.resume()
    assert again.done == 1
    assert weight(again).unique().tolist() == [6.0]
    assert (again.checkpoints.has("last"), again.checkpoints.has("good")) == (True, False)


def test_a_checkpoint_of_an_older_version_is_taken_for_good_up_to_the_step_before(begin):
    first = begin()
    first.checkpoints.save(
        "last",
        first.selected,
        {
            "step": 4,
            "history": [],
            "best": None,
            "dual": None,
            "stopped_by": None,
            "before": {},
        },
        first.optimizer,
    )
    again = begin()
    assert again.resume()
    assert (again.kept, again.confirmed) == (4, 3)
    assert again.checks.resumed == ({}, {}, [])


def test_what_the_gradient_remembers_comes_back_with_the_masters(begin):
    first = begin(remembered=[torch.tensor([1.0, -2.0, 3.0, -4.0])])
    first.save(2)
    again = begin()
    again.resume()
    assert [part.tolist() for part in again.gradient.remembered] == [[1.0, -2.0, 3.0, -4.0]]


@pytest.mark.parametrize(
    ("confirmed", "step", "value"),
    [
        (0, 0, None),  # nothing was seen to be good: the model as it was
        (1, 1, 1.5),  # the good one; the last is of step 3
        (3, 3, 3.5),
    ],
)
def test_a_run_that_went_wrong_goes_back_to_the_last_weights_that_were_good(
    begin, confirmed, step, value
):
    course = begin()
    if confirmed:
        course.confirm(1)
        move(course, 1.5)
        course.save(1)
    move(course, 3.5)
    course.save(3)
    course.confirm(confirmed)
    move(course, 99.0)
    assert course.retreat() == step
    found = weight(course).flatten().tolist()
    assert found == ([1.0, 2.0, 3.0, 4.0] if value is None else [value] * 4)


def test_the_best_is_what_a_run_goes_back_to_first_unless_it_is_not_known_to_be_good(begin):
    for confirmed, step in ((3, 2), (1, 0)):
        course = begin("min forget.extraction_strength")
        move(course, 2.5)
        course.keep_best({"forget.extraction_strength": 0.5}, 2)
        course.confirm(confirmed)
        assert course.retreat() == step
        course.checkpoints.clear()


def test_a_best_of_a_killed_run_of_which_nothing_is_known_is_not_gone_back_to(begin):
    left = begin("min forget.extraction_strength")
    left.keep_best({"forget.extraction_strength": 0.5}, 2)
    course = begin("min forget.extraction_strength")
    course.confirm(5)
    assert course.checkpoints.has("best")
    assert course.retreat() == 0


def test_a_task_vector_that_went_wrong_goes_back_to_the_start_whatever_was_kept(begin):
    course = begin(turns=True)
    course.confirm(1)
    move(course, 6.0)
    course.save(1)
    assert course.retreat() == 0
    assert weight(course).tolist() == [[1.0, 2.0], [3.0, 4.0]]
