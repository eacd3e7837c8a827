"""Around every step: what is clipped, logged, looked at and kept, and what stops a run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from wagle.system.errors import TrainingStopped
from wagle.unlearning.training import callback
from wagle.unlearning.training.callback import AroundSteps

LIMIT = 6.0  # nats: the retain NLL of a uniform guess


class Checks:
    """Checks that see ``looks`` at their steps; ``again`` is what a last look sees."""

    def __init__(self, looks=None, watches=False, watched=0.0, stop=None, check_every=1):
        self.looks, self.watches, self.watched = looks or {}, watches, watched
        self.stop, self.check_every = stop, check_every
        self.known = {"uniform": {"retain.nll": LIMIT}, "start": {"retain.nll": 1.0}}
        self.asked: list[tuple[int, bool]] = []

    def start(self, _):
        return self.looks.get(0, {})

    def at(self, _, step, last):
        self.asked.append((step, last))
        return self.looks.get(step, {})

    def look(self, _):
        return {"forget.probability": 0.125}

    def stops(self, _):
        return self.stop

    def watch(self, _):
        return self.watched


class Course:
    """A course of four steps that keeps a note of what it is told."""

    def __init__(self, checks, **training):
        self.model, self.checks = object(), checks
        self.history: list[dict[str, Any]] = []
        self.done, self.total_steps, self.epochs, self.stopped_by = 0, 4, 2.0, None
        self.training = SimpleNamespace(
            **{"max_grad_norm": 1.0, "report_to": [], "checkpoint_minutes": 1e9, **training}
        )
        self.checkpoints = SimpleNamespace(lasting=True)
        self.confirmed: list[int] = []
        self.best: list[int] = []
        self.saved: list[int] = []
        self.duals: list[tuple[float, float]] = []
        self.supply = SimpleNamespace(step=lambda nll, epoch: self.duals.append((nll, epoch)))
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 0.25}])
        self.chosen = SimpleNamespace(entry=SimpleNamespace(proximal=None), settings={})
        self.decayed = {"a.weight"}
        self.norm = 0.5
        self.thresholds: list[tuple[float, set[str]]] = []
        self.written: list[int] = []
        self.selected = SimpleNamespace(
            ready=lambda _: self.norm,
            soft_threshold=lambda amount, names: self.thresholds.append((amount, names)),
            write_back=self.written.append,
        )

    def confirm(self, step):
        self.confirmed.append(step)

    def keep_best(self, _, step):
        self.best.append(step)

    def save(self, step):
        self.saved.append(step)

    def narrow(self, step):
        return step  # what write_back is given


def around(checks=None, on_step=None, report=None, **training):
    course = Course(checks or Checks(), **training)
    figures: dict[str, float] = {"forget_nll": 3.0, "retain_nll": 2.0}
    loss = SimpleNamespace(take_figures=lambda: dict(figures))
    reported = report or (lambda *_: None)
    made = AroundSteps(course, loss, "testing", reported, on_step)  # type: ignore[arg-type]
    return made, course, figures


def end(made, step):
    """The end of a step, counted in this process from 1; says whether training should stop."""
    control = SimpleNamespace(should_training_stop=False)
    made.on_step_end(None, SimpleNamespace(global_step=step), control)
    return control.should_training_stop


def test_the_model_as_it_was_is_told_once_and_not_after_a_resumption():
    made, course, _ = around(Checks({0: {"forget.probability": 0.5}}))
    made.on_train_begin()
    assert course.history == [{"step": 0, "forget.probability": 0.5}]
    made, course, _ = around(Checks({0: {"forget.probability": 0.5}}))
    course.done = 2
    made.on_train_begin()
    assert course.history == []


def test_a_look_that_sees_nothing_is_no_line_of_the_history():
    made, course, _ = around(Checks())
    made.on_train_begin()
    assert course.history == []


def test_a_step_is_told_with_its_losses_norm_and_looks():
    told: list[dict[str, Any]] = []
    made, course, _ = around(Checks({1: {"forget.probability": 0.25}}), told.append)
    made.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None)
    assert not end(made, 1)
    assert course.history == told
    assert told == [
        {
            "step": 1,
            "forget_nll": 3.0,
            "retain_nll": 2.0,
            "grad_norm": 0.5,
            "forget.probability": 0.25,
        }
    ]
    assert course.best == [1]


def test_steps_are_counted_on_from_those_of_an_earlier_process():
    made, course, _ = around()
    course.done = 2
    end(made, 1)
    assert course.history[0]["step"] == 3
    assert course.duals == [(2.0, 1.5)]  # 3 of 4 steps, of 2 epochs
    made.on_optimizer_step(None, SimpleNamespace(global_step=1), None)
    assert course.written == [4]


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_stops_before_the_step_that_it_was_for(norm):
    made, course, _ = around()
    course.norm, course.done = norm, 1
    with pytest.raises(TrainingStopped, match="the gradient is not finite at step 2; lower the"):
        made.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None)


def test_weights_are_drawn_to_zero_by_the_rate_of_the_step_where_the_objective_says_so():
    made, course, _ = around()
    made.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None)
    made.on_optimizer_step(None, SimpleNamespace(global_step=0), None)
    assert course.thresholds == []
    course.chosen = SimpleNamespace(
        entry=SimpleNamespace(proximal="l1_weight"), settings={"l1_weight": 3}
    )
    course.optimizer.param_groups[0]["lr"] = 99.0  # the scheduler has gone on since
    made.on_optimizer_step(None, SimpleNamespace(global_step=0), None)
    assert course.thresholds == [(0.75, {"a.weight"})]


def test_a_rule_ends_training_after_a_last_look_at_everything():
    made, course, _ = around(Checks({2: {"forget.probability": 0.25}}, stop="forget.nll >= 3"))
    assert not end(made, 1)  # nothing was looked at, so no rule was asked
    assert end(made, 2)
    assert course.stopped_by == "forget.nll >= 3"
    assert course.checks.asked == [(1, False), (2, False), (2, True)]


def test_the_last_step_is_looked_at_as_such():
    made, course, _ = around()
    end(made, 4)
    assert course.checks.asked == [(4, True)]


# ----- what is good, and what has gone wrong -----


def test_a_loss_confirms_the_step_before():
    made, course, _ = around()
    end(made, 1)
    end(made, 2)
    assert course.confirmed == [0, 1]


def test_without_a_loss_of_what_stays_a_step_counts_unless_it_is_watched():
    for watches, confirmed in ((False, [0]), (True, [1])):
        checks = Checks(watches=watches, watched=1.5)
        made, course, figures = around(checks)
        del figures["retain_nll"]
        end(made, 1)
        assert course.confirmed == confirmed  # of a watched one the weights that were looked at
        assert course.duals == []


def test_what_is_watched_is_looked_at_at_its_steps_and_at_the_last():
    checks = Checks(watches=True, watched=1.5, check_every=3)
    made, course, figures = around(checks)
    del figures["retain_nll"]
    for step in (1, 2, 3, 4):
        end(made, step)
    assert course.confirmed == [3, 4]


def test_after_a_rule_has_ended_training_nothing_is_watched():
    checks = Checks({4: {"forget.probability": 0.1}}, watches=True, watched=99.0, stop="a rule")
    made, _, figures = around(checks)
    del figures["retain_nll"]
    assert end(made, 4)


@pytest.mark.parametrize(
    ("first", "later", "diverged"),
    [
        (2.0, 6.0, False),  # no worse than a uniform guess
        (2.0, 6.5, True),
        (4.0, 8.0, False),  # twice its start
        (4.0, 8.5, True),
        (2.0, math.nan, True),
        (2.0, math.inf, True),
    ],
)
def test_training_has_diverged_past_a_uniform_guess_and_twice_the_start(first, later, diverged):
    made, _, figures = around()
    figures["retain_nll"] = first
    end(made, 1)
    figures["retain_nll"] = later
    if not diverged:
        end(made, 2)
        return
    said = f"diverged at step 2: the retain NLL is {later:.1f} nats, {first:.1f} at its start"
    with pytest.raises(TrainingStopped, match=said):
        end(made, 2)


def test_a_watched_set_that_is_lost_stops_training_too():
    checks = Checks(watches=True, watched=6.5)
    made, course, figures = around(checks)
    del figures["retain_nll"]
    with pytest.raises(TrainingStopped, match=r"the retain NLL is 6\.5 nats, 1\.0 at its start"):
        end(made, 1)
    assert course.confirmed == []
    assert len(course.history) == 1  # the step itself was told before


# ----- checkpoints, trackers, and a look afterwards -----


def test_a_checkpoint_is_written_where_its_minutes_are_over_and_it_outlasts_the_process(
    monkeypatch,
):
    clock = [0.0]
    monkeypatch.setattr(callback.time, "monotonic", lambda: clock[0])
    made, course, _ = around(checkpoint_minutes=2.0)
    for step, seconds in ((1, 119.0), (2, 120.0), (3, 239.0), (4, 241.0)):
        clock[0] = seconds
        end(made, step)
    assert course.saved == [2, 4]
    made, course, _ = around(checkpoint_minutes=0.0)
    course.checkpoints.lasting = False
    end(made, 1)
    assert course.saved == []


def test_trackers_are_told_where_there_are_any():
    seen: list[int] = []
    for trackers, told in (([], []), (["tensorboard"], [1])):
        seen.clear()
        made, _, _ = around(report=lambda _, step: seen.append(step), report_to=trackers)
        end(made, 1)
        assert seen == told


def test_the_last_step_is_told_again_of_a_model_that_was_changed_after_it():
    told: list[dict[str, Any]] = []
    made, course, _ = around(on_step=told.append)
    end(made, 1)
    made.look_again(1)
    assert len(course.history) == 1
    assert course.history[0]["forget.probability"] == 0.125
    assert course.history[0]["forget_nll"] == 3.0
    assert told[1] == course.history[0]
