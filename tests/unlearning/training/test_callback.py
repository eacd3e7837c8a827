"""What happens around a step, as far as a whole run does not show it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from wagle.system.errors import TrainingStopped
from wagle.unlearning.training import callback
from wagle.unlearning.training.callback import AroundSteps


class _Course:
    """A run of ten steps, three of which an earlier process did."""

    def __init__(self, norm=1.0, proximal=None):
        self.done, self.total_steps, self.epochs, self.model = 3, 10, 2.0, torch.nn.Identity()
        self.history, self.stopped_by, self.decayed, self.events = [], None, {"w"}, []
        self.training = SimpleNamespace(
            max_grad_norm=1.0, checkpoint_minutes=0, report_to=["tensorboard"]
        )
        self.chosen = SimpleNamespace(
            entry=SimpleNamespace(proximal=proximal), settings={"l1_weight": 2.0}
        )
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
        self.checkpoints = SimpleNamespace(lasting=True)
        self.supply = SimpleNamespace(step=lambda *given: self.events.append(("dual", *given)))
        self.selected = SimpleNamespace(
            ready=lambda limit: norm * limit,
            soft_threshold=lambda *given: self.events.append(("draw", *given)),
            write_back=lambda narrow: self.events.append(("write", narrow)),
        )
        self.checks = SimpleNamespace(
            watches=True,
            check_every=2,
            known={"uniform": {"retain.nll": 6.0}, "start": {"retain.nll": 1.0}},
            at=lambda *_: {},
            watch=lambda _: 1.0,
        )

    def narrow(self, step):
        return f"of {step}"

    def confirm(self, step):
        self.events.append(("good", step))

    def save(self, step):
        self.events.append(("saved", step))


def _around(course, figures=None, **more):
    loss = SimpleNamespace(take_figures=lambda: dict(figures or {}))
    told = []
    around = AroundSteps(
        course,
        loss,
        "testing",
        lambda _, step: told.append(("tracked", step)),
        lambda figures: told.append(("told", figures)),
        **more,
    )
    return around, told


def _hook(around, name, steps=1):
    control = TrainerControl()
    getattr(around, name)(None, TrainerState(global_step=steps), control)
    return control


def test_a_step_is_drawn_to_zero_by_its_rate_and_written_back_under_its_number():
    course = _Course(proximal="l1_weight")
    around, _ = _around(course)
    _hook(around, "on_pre_optimizer_step")
    _hook(around, "on_optimizer_step")
    assert course.events == [("draw", 1.0, {"w"}), ("write", "of 5")]


def test_a_gradient_that_is_not_finite_names_the_step_of_the_whole_run():
    around, _ = _around(_Course(norm=float("nan")))
    with pytest.raises(TrainingStopped, match="the gradient is not finite at step 5; lower the"):
        _hook(around, "on_pre_optimizer_step")


def test_a_step_with_a_retain_loss_is_logged_shown_and_kept():
    course = _Course()
    around, told = _around(course, {"retain_nll": 1.5})
    _hook(around, "on_pre_optimizer_step")
    _hook(around, "on_step_end", 2)
    figures = {"step": 5, "retain_nll": 1.5, "grad_norm": 1.0}
    assert course.history == [figures]
    assert told == [("tracked", 5), ("told", figures)]
    assert course.events == [("dual", 1.5, 1.0), ("good", 4), ("saved", 5)]


def test_a_step_without_a_retain_loss_is_good_where_a_look_says_so():
    course = _Course()
    around, _ = _around(course, {"forget_nll": 1.5})
    _hook(around, "on_step_end", 2)  # step 5 is not looked at
    assert course.events == [("saved", 5)]
    course.events.clear()
    _hook(around, "on_step_end", 3)
    assert course.events == [("good", 6), ("saved", 6)]


@pytest.mark.parametrize(("retain", "stops"), [(5.9, False), (7.0, True), (float("nan"), True)])
def test_a_retain_loss_above_a_uniform_guess_and_twice_its_start_stops(retain, stops):
    course = _Course()
    course.history.append({"step": 4, "retain_nll": 1.0})
    around, _ = _around(course, {"retain_nll": retain})
    if not stops:
        _hook(around, "on_step_end", 2)
        return
    with pytest.raises(
        TrainingStopped, match=r"training has diverged at step 5: the retain NLL is"
    ):
        _hook(around, "on_step_end", 2)
    assert len(course.history) == 1


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

    def see(self, looked, step):
        self.best.append(step)
        self.stopped_by = self.checks.stops(looked)
        return self.stopped_by

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


def test_steps_are_counted_on_from_those_of_an_earlier_process():
    made, course, _ = around()
    course.done = 2
    end(made, 1)
    assert course.history[0]["step"] == 3
    assert course.duals == [(2.0, 1.5)]  # 3 of 4 steps, of 2 epochs
    made.on_optimizer_step(None, SimpleNamespace(global_step=1), None)
    assert course.written == [4]


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
    said = (
        f"diverged at step 2: the retain NLL is {later:.1f} nats, up from {first:.1f} at the start"
    )
    with pytest.raises(TrainingStopped, match=said):
        end(made, 2)


def test_a_watched_set_that_is_lost_stops_training_too():
    checks = Checks(watches=True, watched=6.5)
    made, course, figures = around(checks)
    del figures["retain_nll"]
    with pytest.raises(
        TrainingStopped, match=r"the retain NLL is 6\.5 nats, up from 1\.0 at the start"
    ):
        end(made, 1)
    assert course.confirmed == []
    assert len(course.history) == 1  # the step itself was told before


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
