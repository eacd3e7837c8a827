"""What happens around every optimiser step: clipping, writing back, looking, logging, stopping."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from wagle.system.errors import Stopped, TrainingStopped
from wagle.system.processes import group
from wagle.system.progress import Bar, asked_to_stop, finishing
from wagle.unlearning.training.course import Course
from wagle.unlearning.training.steps import StepLoss

OnStep: TypeAlias = Callable[[dict[str, Any]], None]
Report: TypeAlias = Callable[[Mapping[str, Any], int], None]
"""Passes a step's figures and number to the trackers."""


class AroundSteps(TrainerCallback):
    """Clips and writes back around the optimiser's step; logs, looks, keeps and stops after it.

    Args:
        course: the course of the run.
        loss: the loss whose figures are logged.
        what: shown by the progress bar.
        report: passes figures to the trackers.
        on_step: called with every step's figures.
    """

    def __init__(
        self, course: Course, loss: StepLoss, what: str, report: Report, on_step: OnStep | None
    ) -> None:
        self.course, self.loss = course, loss
        self.report, self.on_step = report, on_step
        self._bar = Bar(what, course.total_steps)
        self._norm = 0.0
        self._rate = 0.0
        self._saved = time.monotonic()
        self._step = contextlib.ExitStack()  # a signal waits for the end of a step

    def close(self) -> None:
        """Remove the progress bar, however training ended."""
        with contextlib.suppress(Stopped):  # how training ended comes first
            self._step.close()
        self._bar.__exit__(None, None, None)

    # ----- hooks of the Trainer -----

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Look at the model before training, unless an earlier process has."""
        course = self.course
        self._step.enter_context(finishing())
        self._bar.__enter__()
        self._bar.advance(course.done)
        if course.done == 0:
            self._tell({"step": 0, **course.checks.start(course.model)})

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """From here on a signal ends the process at once."""
        self._step.close()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Clip the gradient of the selected weights; a non-finite one is an error."""
        del args, control
        course = self.course
        self._norm = course.selected.ready(course.training.max_grad_norm)
        self._rate = course.optimizer.param_groups[0]["lr"]
        if not math.isfinite(self._norm):
            raise TrainingStopped(
                f"the gradient is not finite at step {self._done(state) + 1}; lower the learning rate, "
                "or set precision: float32"
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Pull weights towards zero if the objective says so, and write them back to the model."""
        del args, control
        course = self.course
        proximal = course.chosen.entry.proximal
        if proximal is not None:
            amount = self._rate * float(course.chosen.settings[proximal])
            course.selected.soft_threshold(amount, course.decayed)
        course.selected.write_back(course.narrow(self._done(state) + 1))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Log the step, look at the model, keep good weights, and stop if a rule says so."""
        del args
        course, step = self.course, self._done(state)
        checks, last = course.checks, step == course.total_steps
        figures: dict[str, Any] = {
            "step": step,
            **self.loss.take_figures(),
            "grad_norm": self._norm,
        }
        retain = figures.get("retain_nll")
        if retain is not None:
            course.supply.step(retain, step * course.epochs / course.total_steps)
            first = next((h["retain_nll"] for h in course.history if "retain_nll" in h), retain)
            self._check_diverged(retain, first, step)
        if retain is not None or not checks.watches:
            course.confirm(step - 1)  # this loss was that of the previous weights
        looked = checks.at(course.model, step, last)
        figures.update(looked)
        if looked and course.see(looked, step) is not None:
            control.should_training_stop = True
            figures.update(checks.at(course.model, step, True))
        self._tell(figures)
        if course.stopped_by is None and (
            last or (retain is None and step % checks.check_every == 0)
        ):
            self._watch(step)
        minutes = (time.monotonic() - self._saved) / 60
        ends = group.from_main(asked_to_stop() is not None)
        due = group.from_main(minutes >= course.training.checkpoint_minutes)
        if (due or ends) and course.checkpoints.lasting:
            course.save(step)
            self._saved = time.monotonic()
        if ends:
            raise Stopped(everywhere=True)

    # ----- what they do -----

    def _done(self, state: TrainerState) -> int:
        """Finished optimiser steps, including those of earlier processes."""
        return self.course.done + state.global_step

    def _tell(self, figures: dict[str, Any]) -> None:
        if len(figures) > 1:
            self.course.history.append(figures)
            shown = {k: v for k, v in figures.items() if k.endswith(("_nll", ".probability"))}
            self._bar.advance(1 if figures["step"] else 0, **shown)
            if self.course.training.report_to and group.main_process():
                self.report(figures, figures["step"])
            if self.on_step is not None:
                self.on_step(figures)

    def look_again(self, step: int) -> None:
        """Look again at a model changed after its last step, and replace that step's figures."""
        course = self.course
        course.history[-1] = {**course.history[-1], **course.checks.look(course.model)}
        if self.on_step is not None:  # the trackers are closed by now
            self.on_step(course.history[-1])
        self._watch(step)

    def _watch(self, step: int) -> None:
        """Check that the records to keep are not lost, if the step's loss does not show it."""
        course = self.course
        if course.checks.watches:
            first = course.checks.known["start"]["retain.nll"]
            self._check_diverged(course.checks.watch(course.model), first, step)
            course.confirm(step)

    def _check_diverged(self, retain: float, first: float, step: int) -> None:
        """Stop if the records to keep are lost: above a uniform guess's NLL and twice the start's."""
        limit = self.course.checks.known["uniform"]["retain.nll"]
        if not retain <= max(limit, 2 * first):  # nor NaN
            raise TrainingStopped(
                f"training has diverged at step {step}: the retain NLL is {retain:.1f} nats, up "
                f"from {first:.1f} at the start; lower the learning rate"
            )
