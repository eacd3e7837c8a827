"""The trainer: a ``transformers.Trainer`` whose optimiser sees only the selected weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)

from wagle.compat.accelerate import forget_notes
from wagle.compat.transformers import prepared_inputs, use_one_gpu
from wagle.data.batches import Pairs, Steps
from wagle.data.draws import uniform
from wagle.mask.mask import Mask
from wagle.model.placing import place
from wagle.model.streaming.opening import is_streamed
from wagle.model.structure import device_of, is_sharded, without_dropout
from wagle.recipe.sections.training import Training
from wagle.system.errors import TrainingStopped, WagleError
from wagle.system.processes import group
from wagle.unlearning.inputs import Supply
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.objectives.entry import FORGET_SIDE
from wagle.unlearning.training.callback import AroundSteps, OnStep
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.course import Course
from wagle.unlearning.training.curvature import take_curvature
from wagle.unlearning.training.optimizers import SophiaG, make_optimizer
from wagle.unlearning.training.parts import step_in_parts
from wagle.unlearning.training.steps import Gradient, Micro, StepLoss
from wagle.unlearning.training.trackers import place_events, report
from wagle.unlearning.training.weights.selected import SelectedWeights
from wagle.unlearning.watching.checks import Checks

logger = logging.getLogger(__name__)
_SCHEDULES = {"constant": "constant_with_warmup"}  # transformers' "constant" has no warm-up


def move_to_training(model: nn.Module) -> None:
    """Move a model to the device it trains on, this process's GPU if there is one.

    Done before training, so that whatever is computed or copied from the original model is there
    too. A quantised model, or one spread over devices, stays where it is, as the Trainer would
    leave it.
    """
    place(model, must=True)


class UnlearnTrainer(Trainer):
    """Trains the selected weights of a model on planned pairs of forget and retain records.

    The loss is the mean over the records of the whole optimiser step, for each set, so splitting
    the step into batches, or over processes, does not change it: what the Trainer takes for a batch
    is this process's part of a step. The Trainer does not know of the others: they tell one another
    their compact gradients, and all take the same step. Forget and retain figures are kept
    separately in ``course.history``.

    Args:
        model: trained in place.
        pairs: the planned records.
        mask: which weights may move; None: all.
        only: names of the parameters that may move; None: all.
        saved: the precision in which each parameter will be saved, by name; None: the model's own.
        chosen: the objective.
        supply: gives the objective what it asks for.
        gradient: how the gradient of a step is made.
        training: the settings.
        seed: of the draws of Sophia's curvature and of stochastic rounding.
        what: shown by the progress bar.
        checks: what is looked at during training.
        checkpoints: where a killed run resumes.
        epochs: how many passes over the anchor set the plan holds.
        on_step: called with every step's figures.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pairs: Pairs,
        *,
        mask: Mask | None,
        chosen: Chosen,
        supply: Supply,
        gradient: Gradient,
        training: Training,
        seed: int,
        what: str,
        checks: Checks,
        checkpoints: Checkpoints,
        epochs: float = 1.0,
        only: set[str] | None = None,
        saved: Mapping[str, torch.dtype] | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.mask: Mask | None = mask
        self.only, self.saved = only, saved
        self.training, self.seed = training, seed
        self.selected: SelectedWeights | None = None
        self.changed = 0  # selected weights that differ from before; known at the end
        self._ranks = {"rank": group.rank(), "world": group.world()}
        self._owner = model
        use_cache, self._own = model.config.use_cache, frozenset(vars(model))
        self._planned = pairs
        per_step = training.batch_size * training.accumulation
        self.total_steps = -(-len(pairs) // per_step)
        with group.unseen():
            super().__init__(
                model=model,
                args=_arguments(training, checkpoints, seed),
                train_dataset=self._steps(0),
                data_collator=_only_one,
            )
        model.config.use_cache = use_cache  # the Trainer clears it, and it would be saved
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        place_events(self, checkpoints.folder if checkpoints.lasting else None)
        steps = self.total_steps
        self.course = Course(
            model, chosen, supply, gradient, training, checks, checkpoints, seed, steps, epochs
        )
        self.step_loss = StepLoss(chosen, supply, pairs, training.precision)
        self._around = AroundSteps(self.course, self.step_loss, what, self._report, on_step)
        self.add_callback(self._around)

    # ----- the run -----

    def run(self) -> None:
        """Train; afterwards the unselected weights are proven unchanged."""
        model = self.model
        assert isinstance(model, nn.Module)
        owner: Any = model
        training = model.training
        # a streamed model keeps no more than what enters each block anyway
        checkpointing = self.training.activation_checkpointing and not is_streamed(model)
        if checkpointing:
            owner.activation_checkpointing_enable()
        try:
            self.create_optimizer(model)
            self._resume()
            if self.course.done < self.total_steps and self.course.stopped_by is None:
                if self.training.dropout:
                    self.train()
                else:
                    with without_dropout(model):
                        self.train()
            self._finish()
        except TrainingStopped as error:
            step = self.course.retreat()
            self.course.checkpoints.clear()  # resuming from them would end the same way
            where = f"back at step {step}" if step else "as it was before training"
            raise TrainingStopped(f"{error}; the model is {where}", step) from None
        finally:
            self._around.close()
            if self.selected is not None:
                self.course.trail.close()
                self.selected.close()
            if checkpointing:
                owner.activation_checkpointing_disable()
                owner.disable_input_require_grads()
            model.train(training)
            forget_notes(model, self._own)

    def _finish(self) -> None:
        """Take the best checkpoint, scale a task vector, round as saved, prove the rest unmoved."""
        course, selected = self.course, self.course.selected
        step = self.step
        if course.best is not None:
            step = course.take_best()
            course.land_best(step)
        else:
            course.land(step)
        scaled = course.gradient.wrapper == "task_vector"
        if scaled:
            selected.extrapolate(course.gradient.settings["scale"])
            selected.write_back(course.narrow(self.total_steps))
        selected.settle(course.narrow(step))
        if scaled or course.moved:
            self._around.look_again(self.step)
        selected.verify()
        self.changed = selected.changed()

    def _resume(self) -> None:
        """Resume a killed run."""
        if self.course.resume():
            self.train_dataset = self._steps(self.course.done)

    def _steps(self, first: int) -> Steps:
        """The plan from a step on."""
        size = self.training.batch_size
        per_step = size * self.training.accumulation
        fill = is_sharded(self._owner)
        return Steps(self._planned, per_step, size, first, **self._ranks, fill=fill)

    @property
    def step(self) -> int:
        """Finished optimiser steps, including those of earlier processes."""
        return self.course.done + self.state.global_step

    def _report(self, figures: Mapping[str, Any], step: int) -> None:
        report(self, figures, step)

    # ----- hooks of the Trainer -----

    def log(self, *_: Any, **__: Any) -> None:
        """Keep the Trainer's own summary from the trackers: the loss it knows is 0."""

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Make the optimiser of the selected weights; norms and biases do not decay."""
        if self.optimizer is None:
            owner = model or self.model
            assert isinstance(owner, nn.Module)
            self.selected = SelectedWeights(owner, self.mask, self.only, self.saved)
            if self.training.rounding == "stochastic" and torch.bfloat16 not in self.selected.saved:
                logger.warning(
                    "rounding: stochastic has no effect: no selected weight is saved in bfloat16"
                )
            self.mask = None  # masks of large models are large
            decayed = set(self.get_decay_parameter_names(owner))
            masters = list(self.selected.named_masters())
            groups = [
                {"params": [m for n, m in masters if n in decayed], "decay": True},
                {"params": [m for n, m in masters if n not in decayed], "decay": False},
            ]
            self.optimizer = make_optimizer(groups, self.training)
            if is_streamed(owner):
                step_in_parts(self.optimizer, self.selected.parts(), self.selected.where)
            self.course.equip(self.selected, self.optimizer, decayed)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LambdaLR:
        """The whole run's schedule, at the step where this process begins."""
        del num_training_steps
        whole: Any = super().create_scheduler(self.total_steps, optimizer)
        shapes = [self._later(shape) for shape in whole.lr_lambdas]
        self.lr_scheduler = LambdaLR(whole.optimizer, shapes)
        return self.lr_scheduler

    def _later(self, shape: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: shape(step + self.course.done)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Compute the gradient of a step."""
        del num_items_in_batch
        model.train()
        if self.training.dropout:  # so that a resumed run makes the same draws
            drawn = uniform(self.seed, "dropout", self.step, self._ranks["rank"])
            torch.manual_seed(int(drawn * 2.0**53))
        counts: list[int] = inputs["counts"]
        micros: list[Micro] = prepared_inputs(self, inputs)["micros"]
        course = self.course
        course.supply.foresee(micros)
        losses = self.step_loss.begin(model, counts, self.step + 1)
        self.step_loss.note(course.gradient.take(course.selected, micros, losses, self.step))
        if isinstance(course.optimizer, SophiaG) and self.step % self.training.curvature_every == 0:
            name = self._curvature_set()
            take_curvature(
                model,
                course.selected,
                course.optimizer,
                micros,
                name,
                counts[name not in FORGET_SIDE],
                self.training.precision,
                (self.seed, "curvature", self.step),
            )
        return torch.zeros((), device=device_of(model))

    def _curvature_set(self) -> str:
        there = self._planned.collate([self._planned[0]])
        wanted = (self.training.curvature, "retain", "forget", *there)
        return next(name for name in wanted if name in there)


def _only_one(items: list[Any]) -> Any:
    """What the Trainer takes for a batch is a step already."""
    return items[0]


def _arguments(training: Training, checkpoints: Checkpoints, seed: int) -> TrainingArguments:
    """The Trainer's arguments; what the selected weights need is done around its steps."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":  # accelerate would want it now
        raise _split_already()
    arguments = TrainingArguments(
        output_dir=str(checkpoints.folder),
        num_train_epochs=1,  # the plan holds all epochs
        per_device_train_batch_size=1,  # a whole step
        learning_rate=training.learning_rate,
        lr_scheduler_type=_SCHEDULES.get(training.schedule, training.schedule),
        warmup_steps=training.warmup_steps,
        max_grad_norm=0.0,  # the model's gradients are freed; the step callback clips
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        train_sampling_strategy="sequential",  # the plan is the order
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=(list(training.report_to) if group.main_process() else []) or "none",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    if arguments.world_size > 1:
        raise _split_already()
    # Several GPUs would train replicas (nn.DataParallel), whose gradients our hooks never see.
    use_one_gpu(arguments)
    return arguments


def _split_already() -> WagleError:
    return WagleError(
        "accelerate or DeepSpeed has already split this program into processes; start it with torchrun "
        "alone: wagle shares the work itself, and shards a model with FSDP2 (model.shard: true)"
    )
