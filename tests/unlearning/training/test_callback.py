"""What happens around a step, as far as a whole run does not show it."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from wagle.system.errors import TrainingStopped
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
