"""The trainer: a ``transformers.Trainer`` whose optimiser sees the selected weights only."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler, Subset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from wagle.data.batches import Pairs
from wagle.data.draws import uniform
from wagle.mask.mask import Mask
from wagle.model.scoring import Scored
from wagle.model.structure import precision, without_dropout
from wagle.recipe.sections.training import Training
from wagle.system.errors import TrainingStopped, WagleError
from wagle.system.progress import Bar
from wagle.unlearning.inputs import Supply
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.objectives.entry import FORGET_SIDE
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.curvature import take_curvature
from wagle.unlearning.training.optimizers import SophiaG, make_optimizer
from wagle.unlearning.training.rounding import stochastic_bfloat16
from wagle.unlearning.training.selected import Round, SelectedWeights
from wagle.unlearning.training.steps import Gradient, Loss, Micro
from wagle.unlearning.training.trackers import place_events, report
from wagle.unlearning.watching.checks import Checks

logger = logging.getLogger(__name__)
OnStep = Callable[[dict[str, Any]], None]
_SCHEDULES = {"constant": "constant_with_warmup"}  # transformers' own one leaves the warm-up out


def move_to_training(model: nn.Module) -> None:
    """Move a model to where it trains, the first GPU if there is one.

    Before training, so that what is computed or copied of the original model is there too. One that is
    quantised, or spread over devices, stays where it is, as the Trainer would leave it.
    """
    owner: Any = model
    placed = getattr(owner, "is_quantized", False) or getattr(owner, "hf_device_map", None)
    if torch.cuda.is_available() and not placed:
        model.to("cuda:0")


class UnlearnTrainer(Trainer):
    """Trains the selected weights of a model on planned pairs of forget and retain records.

    The loss is the mean over the records of the whole optimiser step, for each set, so batch size
    and accumulation do not change it: the batches of a step are collected and its gradient is made
    at the last of them. Forget and retain figures are kept apart in ``history``.

    Args:
        model: trained in place.
        pairs: the planned records.
        mask: which weights may move; None: all.
        only: names of the parameters that may move; None: all.
        saved: the precision that a parameter will be saved in, by name; None: the model's own.
        chosen: the objective.
        supply: gives the objective what it asks for.
        gradient: how the gradient of a step is made.
        training: the settings.
        seed: of the draws of Sophia's curvature and of stochastic rounding.
        what: shown by the progress bar.
        checks: what is looked at during training.
        checkpoints: where a killed run goes on.
        epochs: passes over the anchor set that the plan holds.
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
        self.epochs = epochs
        self.mask: Mask | None = mask
        self.only, self.saved = only, saved
        self.chosen, self.supply, self.gradient = chosen, supply, gradient
        self.training, self.seed = training, seed
        self.checks, self.checkpoints = checks, checkpoints
        self.selected: SelectedWeights | None = None
        self.history: list[dict[str, Any]] = []
        self.done = 0  # steps of an earlier process
        self.confirmed = 0  # the last step whose weights have been seen to be good
        self.kept = 0  # the step of the checkpoint ``last``
        self.changed = 0  # selected weights that differ from before, at the end
        self.stopped_by: str | None = None
        self.best: dict[str, Any] | None = None  # step and figures of the best checkpoint
        self._sums: dict[str, float] = {}
        self._held: list[Micro] = []
        self._expected = 0
        use_cache, self._own = model.config.use_cache, frozenset(vars(model))
        self._planned = pairs
        per_step = training.batch_size * training.accumulation
        self.total_steps = -(-len(pairs) // per_step)
        arguments = TrainingArguments(
            output_dir=str(checkpoints.folder),
            num_train_epochs=1,  # the plan holds all epochs
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.accumulation,
            learning_rate=training.learning_rate,
            lr_scheduler_type=_SCHEDULES.get(training.schedule, training.schedule),
            warmup_steps=training.warmup_steps,
            max_grad_norm=0.0,  # the model's own gradients are gone; the step callback clips
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to=list(training.report_to) or "none",
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        if arguments.world_size > 1:
            raise WagleError("training runs on one process for now; start it without torchrun")
        # More GPUs would train replicas (nn.DataParallel), whose gradients our hooks never see.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        super().__init__(
            model=model, args=arguments, train_dataset=pairs, data_collator=pairs.collate
        )
        model.config.use_cache = use_cache  # the Trainer clears it, and it would be saved
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        place_events(self, checkpoints.folder if checkpoints.lasting else None)
        self._steps = _Steps(self, what, on_step)
        self.add_callback(self._steps)

    # ----- the run -----

    def run(self) -> None:
        """Train; afterwards the unselected weights are proven to be what they were."""
        model = self.model
        assert isinstance(model, nn.Module)
        owner: Any = model
        training = model.training
        if self.training.activation_checkpointing:
            owner.activation_checkpointing_enable()
        try:
            self.create_optimizer(model)
            self._resume()
            if self.done < self.total_steps and self.stopped_by is None:
                if self.training.dropout:
                    self.train()
                else:
                    with without_dropout(model):
                        self.train()
            self._finish()
        except TrainingStopped as error:
            step = self._retreat()
            self.checkpoints.clear()  # from which the same run would come to the same end
            where = f"back at step {step}" if step else "as it was before training"
            raise TrainingStopped(f"{error}; the model is {where}", step) from None
        finally:
            self._steps.close()
            if self.selected is not None:
                self.selected.close()
            if self.training.activation_checkpointing:
                owner.activation_checkpointing_disable()
                owner.disable_input_require_grads()
            model.train(training)
            for name in vars(model).keys() - self._own:
                del vars(model)[name]  # what accelerate 1.15 notes on it

    def _finish(self) -> None:
        """Take the best checkpoint, scale a task vector, round as saved, prove what did not move."""
        assert self.selected is not None
        step = self.step if self.best is None else self._take_best()
        scaled = self.gradient.wrapper == "task_vector"
        if scaled:
            self.selected.extrapolate(self.gradient.settings["scale"])
            self.selected.write_back(self.narrow(self.total_steps))
        self.selected.settle(self.narrow(step))
        if scaled:
            self._steps.look_again()
        self.selected.verify()
        self.changed = self.selected.changed()

    def _take_best(self) -> int:
        """Go back to the best checkpoint; say aloud where none has met the conditions."""
        best, rule = self.best, self.checks.best
        assert best is not None
        assert rule is not None
        best["meets"] = rule.meets(best["figures"], self.checks.known)
        if not best["meets"]:
            logger.warning(
                "no step meets the conditions of '%s'; the model is that of step %d, whose %s is "
                "%.3g; lower the learning rate, or change best",
                rule,
                best["step"],
                rule.figure,
                best["figures"][rule.figure],
            )
        return self._go_back("best")

    def _go_back(self, name: str) -> int:
        assert self.selected is not None
        masters, _, state = self.checkpoints.load(name, self.selected)
        self.selected.restore(masters, self.narrow(state["step"]))
        return int(state["step"])

    def _retreat(self) -> int:
        """After a step that went wrong: back to the last weights that were seen to be good.

        The weights of a checkpoint are seen at the next step, by its loss, which may be what went
        wrong. A best checkpoint of which this run knows nothing is left from a killed one.
        """
        assert self.selected is not None
        best = self.best["step"] if self.best else math.inf
        good = {
            "best": best <= self.confirmed,
            "last": self.checkpoints.has("last") and self.kept <= self.confirmed,
            "good": self.checkpoints.has("good"),
        }
        for name in good if not self.gradient.turns else ():
            if good[name]:
                return self._go_back(name)
        self.selected.reset()
        return 0

    def confirm(self, step: int) -> None:
        """The weights of a step have been seen to be good: a loss is finite and has not exploded."""
        self.confirmed = max(self.confirmed, step)
        if self.kept <= self.confirmed:
            self.checkpoints.drop("good")

    def narrow(self, step: int) -> Round | None:
        """How masters become bfloat16 weights after a step; None rounds to the nearest."""
        if self.training.rounding == "nearest":
            return None

        def rounded(values: Tensor, name: str, part: int) -> Tensor:
            return stochastic_bfloat16(values, (self.seed, "rounding", step, name, part))

        return rounded

    @property
    def step(self) -> int:
        """Finished optimiser steps, those of earlier processes included."""
        return self.done + self.state.global_step

    # ----- going on where a killed run was -----

    def _resume(self) -> None:
        if not self.checkpoints.has("last"):  # killed while it was written
            self.checkpoints.rename("good", "last")
        if not self.checkpoints.has("last"):
            return
        assert self.selected is not None
        masters, more, state = self.checkpoints.load("last", self.selected, self.optimizer)
        self.selected.restore(masters, self.narrow(state["step"]))
        self.kept = state["step"]
        self.confirmed = state.get("confirmed", self.kept - 1)  # older ones do not say
        self.done, self.history = state["step"], state["history"]
        self.best, self.supply.dual = state["best"], state["dual"]
        self.stopped_by = state["stopped_by"]
        self.checks.resume(state["before"], state.get("start", {}), self.history)
        if more:
            self.gradient.remembered = [
                more[n].to(master.device) for n, master in self.selected.named_masters()
            ]
        per_step = self.training.batch_size * self.training.accumulation
        rest = range(self.done * per_step, len(self._planned))
        self.train_dataset = Subset(self._planned, list(rest))

    def checkpoint(self) -> None:
        """Write where the run is, so that a killed one goes on from here."""
        assert self.selected is not None
        names = [name for name, _ in self.selected.named_masters()]
        remembered = self.gradient.remembered
        state = {
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "dual": self.supply.dual,
            "stopped_by": self.stopped_by,
            "before": dict(self.checks.known.get("before", {})),
            "start": dict(self.checks.known.get("start", {})),
            "confirmed": self.confirmed,
        }
        more = dict(zip(names, remembered, strict=True)) if remembered else None
        if self.kept <= self.confirmed < self.step:
            self.checkpoints.rename("last", "good")
        self.checkpoints.save("last", self.selected, state, self._bare_optimizer, more)
        self.kept = self.step

    # ----- hooks of the Trainer -----

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def log(self, *_: Any, **__: Any) -> None:
        """Keep the Trainer's own summary from the trackers: the loss that it knows of is 0."""

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Make the optimiser of the selected weights; decay spares norms and biases."""
        if self.optimizer is None:
            owner = model or self.model
            assert isinstance(owner, nn.Module)
            self.selected = SelectedWeights(owner, self.mask, self.only, self.saved)
            if self.training.rounding == "stochastic" and torch.bfloat16 not in self.selected.saved:
                logger.warning(
                    "rounding: stochastic does nothing: no selected weight is saved in bfloat16"
                )
            self.mask = None  # large models have large masks
            self.decayed = set(self.get_decay_parameter_names(owner))
            masters = list(self.selected.named_masters())
            groups = [
                {"params": [m for n, m in masters if n in self.decayed], "decay": True},
                {"params": [m for n, m in masters if n not in self.decayed], "decay": False},
            ]
            self.optimizer = make_optimizer(groups, self.training)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LambdaLR:
        """The schedule of the whole run, at the step where this process begins."""
        del num_training_steps
        whole: Any = super().create_scheduler(self.total_steps, optimizer)
        shapes = [self._later(shape) for shape in whole.lr_lambdas]
        self.lr_scheduler = LambdaLR(whole.optimizer, shapes)
        return self.lr_scheduler

    def _later(self, shape: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: shape(step + self.done)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Tensor:
        """Records of the whole optimiser step: (forget, retain)."""
        self._expected = len(batch_samples)
        counts = []
        for side in (self._planned.forget, self._planned.retain):
            name = next(iter(side), None)
            counts.append(sum(len(b[name]["index"]) for b in batch_samples if name in b))
        return torch.tensor(counts, device=device)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Hold a batch back; with the last one of a step, make the step's gradient."""
        assert isinstance(num_items_in_batch, Tensor)
        model.train()
        if self.training.dropout:  # so that a run that goes on draws what it would have drawn
            torch.manual_seed(int(uniform(self.seed, "dropout", self.step) * 2.0**53))
        self._held.append(self._prepare_inputs(inputs))
        none = torch.zeros((), device=num_items_in_batch.device)
        if len(self._held) < self._expected:
            return none
        micros, self._held = self._held, []
        self._sums = {}
        counts = num_items_in_batch.tolist()
        assert self.selected is not None

        losses = [self._loss(model, part, counts) for part in self.chosen.parts()]
        figures = self.gradient.take(self.selected, micros, losses, self.step)
        self._sums.update(figures)
        if (
            isinstance(self._bare_optimizer, SophiaG)
            and self.step % self.training.curvature_every == 0
        ):
            take_curvature(
                model,
                self.selected,
                self._bare_optimizer,
                micros,
                self._curvature_set(micros),
                self.training.precision,
                (self.seed, "curvature", self.step),
            )
        return none

    @property
    def _bare_optimizer(self) -> Optimizer:
        wrapped: Any = self.optimizer
        made: Optimizer = getattr(wrapped, "optimizer", wrapped)
        return made

    def _curvature_set(self, micros: Sequence[Micro]) -> str:
        wanted = self.training.curvature
        if wanted in micros[0]:
            return wanted
        return next(name for name in ("retain", "forget", *micros[0]) if name in micros[0])

    def _loss(self, model: nn.Module, chosen: Chosen, counts: Sequence[int]) -> Loss:
        def loss(micro: Micro, *, log: bool = True) -> Terms:
            return self._terms(model, chosen, micro, counts, log)

        return loss

    def _terms(
        self,
        model: nn.Module,
        chosen: Chosen,
        micro: Micro,
        counts: Sequence[int],
        log: bool,
    ) -> Terms:
        """The part of the step's loss that these records make up, forget and retain apart."""
        device = next(iter(micro.values()))["index"].device
        with precision(device, self.training.precision):
            given, shown = self.supply(model, micro, chosen)
            for name, answers in shown.items():
                self._check_finite(name, answers, micro[name]["index"])
            terms = chosen.terms(given)
        parts: list[Tensor | None] = []
        for side, term, count in zip(("forget", "retain"), terms, counts, strict=True):
            parts.append(None if term is None else term.sum() / count)
            if term is not None and log:
                self._add(f"{side}_loss", term, count)
            if side in shown and log:
                self._add(f"{side}_nll", shown[side].nll_mean, count)
        total = sum(float(p.detach()) for p in parts if p is not None)
        if not math.isfinite(total):
            raise TrainingStopped(
                f"the loss is {total} at step {self.step + 1}; lower the learning rate"
            )
        return Terms(*parts)

    def _add(self, name: str, values: Tensor, count: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(values.detach().sum()) / count

    def _check_finite(self, name: str, answers: Scored, index: Tensor) -> None:
        values = answers.nll_mean.detach()
        wrong = ~torch.isfinite(values)
        if wrong.any():
            side = self._planned.forget if name in FORGET_SIDE else self._planned.retain
            raise TrainingStopped(
                f"the loss of {side[name][int(index[wrong][0])].place} is {float(values[wrong][0])} "
                f"at step {self.step + 1}; lower the learning rate, or set precision: float32"
            )

    def take_figures(self) -> dict[str, float]:
        """The figures of the step that has just ended."""
        figures, self._sums = self._sums, {}
        return figures


class _Steps(TrainerCallback):
    """Clips and writes back around the optimiser's step; logs, looks, keeps and stops after it."""

    def __init__(self, trainer: UnlearnTrainer, what: str, on_step: OnStep | None) -> None:
        self.trainer, self.on_step = trainer, on_step
        self._bar = Bar(what, trainer.total_steps)
        self._norm = 0.0
        self._rate = 0.0
        self._saved = time.monotonic()

    @property
    def _selected(self) -> SelectedWeights:
        assert self.trainer.selected is not None
        return self.trainer.selected

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        trainer = self.trainer
        self._bar.__enter__()
        self._bar.advance(trainer.done)
        if trainer.done == 0:
            assert isinstance(trainer.model, nn.Module)
            self._tell({"step": 0, **trainer.checks.start(trainer.model)})

    def close(self) -> None:
        """Take the progress bar away, however training ended."""
        self._bar.__exit__(None, None, None)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        trainer = self.trainer
        self._norm = self._selected.ready(trainer.training.max_grad_norm)
        self._rate = trainer._bare_optimizer.param_groups[0]["lr"]
        if not math.isfinite(self._norm):
            raise TrainingStopped(
                f"the gradient is not finite at step {trainer.step + 1}; lower the learning rate, or "
                "set precision: float32"
            )

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        trainer = self.trainer
        proximal = trainer.chosen.entry.proximal
        if proximal is not None:
            amount = self._rate * float(trainer.chosen.settings[proximal])
            self._selected.soft_threshold(amount, trainer.decayed)
        self._selected.write_back(trainer.narrow(trainer.step + 1))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, state
        trainer = self.trainer
        step = trainer.step
        figures: dict[str, Any] = {"step": step, **trainer.take_figures(), "grad_norm": self._norm}
        retain = figures.get("retain_nll")
        if retain is not None:
            trainer.supply.step(retain, step * trainer.epochs / trainer.total_steps)
            first = next((h["retain_nll"] for h in trainer.history if "retain_nll" in h), retain)
            self._check_diverged(retain, first)
        if retain is not None or not trainer.checks.watches:
            trainer.confirm(step - 1)  # whose loss it was
        assert isinstance(trainer.model, nn.Module)
        last = step == trainer.total_steps
        looked = trainer.checks.at(trainer.model, step, last)
        figures.update(looked)
        if looked:
            self._keep(looked, step)
            rule = trainer.checks.stops(looked)
            if rule is not None:
                trainer.stopped_by = str(rule)
                control.should_training_stop = True
                figures.update(trainer.checks.at(trainer.model, step, True))
        self._tell(figures)
        if trainer.stopped_by is None and (
            last or (retain is None and step % trainer.checks.check_every == 0)
        ):
            self._watch(step)
        minutes = (time.monotonic() - self._saved) / 60
        if minutes >= trainer.training.checkpoint_minutes and trainer.checkpoints.lasting:
            trainer.checkpoint()
            self._saved = time.monotonic()

    def _tell(self, figures: dict[str, Any]) -> None:
        trainer = self.trainer
        if len(figures) > 1:
            trainer.history.append(figures)
            shown = {k: v for k, v in figures.items() if k.endswith(("_nll", ".probability"))}
            self._bar.advance(1 if figures["step"] else 0, **shown)
            if trainer.training.report_to:
                report(trainer, figures, trainer.step)
            if self.on_step is not None:
                self.on_step(figures)

    def look_again(self) -> None:
        """Look at a model that was changed after its last step: that step's figures are of it then."""
        trainer = self.trainer
        assert isinstance(trainer.model, nn.Module)
        trainer.history[-1] = {**trainer.history[-1], **trainer.checks.look(trainer.model)}
        if self.on_step is not None:  # the trackers are closed by now
            self.on_step(trainer.history[-1])
        self._watch(trainer.step)

    def _watch(self, step: int) -> None:
        """Look whether the records to keep are still there, where the step's loss does not show it."""
        trainer = self.trainer
        assert isinstance(trainer.model, nn.Module)
        if trainer.checks.watches:
            self._check_diverged(
                trainer.checks.watch(trainer.model), trainer.checks.known["start"]["retain.nll"]
            )
            trainer.confirm(step)

    def _keep(self, looked: Mapping[str, float], step: int) -> None:
        """Keep the masters where they are the best so far."""
        trainer = self.trainer
        best = trainer.checks.best
        if best is None or best.figure not in looked:
            return
        incumbent = trainer.best["figures"] if trainer.best else None
        if best.better(looked, incumbent, trainer.checks.known):
            trainer.best = {"step": step, "figures": dict(looked)}
            trainer.checkpoints.save("best", self._selected, {"step": step})

    def _check_diverged(self, retain: float, first: float) -> None:
        """Stop where the records to keep are lost: worse than a uniform guess, twice their start."""
        trainer = self.trainer
        limit = trainer.checks.known["uniform"]["retain.nll"]
        if not retain <= max(limit, 2 * first):  # nor NaN
            raise TrainingStopped(
                f"training has diverged at step {trainer.step}: the retain NLL is {retain:.1f} nats, "
                f"{first:.1f} at its start; lower the learning rate"
            )
