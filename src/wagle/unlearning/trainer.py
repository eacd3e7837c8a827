"""The trainer: a ``transformers.Trainer`` whose optimiser sees the selected weights only."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import SequentialSampler
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
from wagle.errors import TrainingStopped, WagleError, choose
from wagle.mask import Mask
from wagle.model import Scored, answer_nll, without_dropout
from wagle.progress import Bar
from wagle.unlearning.objectives import Needs, Objective
from wagle.unlearning.options import Training
from wagle.unlearning.selected import SelectedWeights

OnStep = Callable[[dict[str, Any]], None]
Check = Callable[[nn.Module], float]
# They mix the entries of a tensor (or need closures), so a compact vector is not the same thing.
_NOT_ELEMENTWISE = {"LBFGS", "Adafactor", "Muon", "SparseAdam", "Optimizer"}
_OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and name not in _NOT_ELEMENTWISE
}


class UnlearnTrainer(Trainer):
    """Trains the selected weights of a model on planned pairs of forget and retain records.

    The loss is the mean over the records of the whole optimiser step, for each set, so batch size
    and accumulation do not change it. Forget and retain figures are kept apart in ``history``.

    Args:
        model: trained in place.
        pairs: the planned records.
        mask: which weights may move; None: all.
        objective: a function of scored records.
        asked: what it asks for, with its settings.
        references: (all forget records) under the original model, by name.
        training: the settings.
        seed: of whatever the Trainer draws itself (nothing, without dropout).
        check: gives the figure that ends training, called every ``check_every`` steps, and at
            every step once it is within twice ``stop_at``.
        stop_at: training ends when that figure is at most this.
        on_step: called with every step's figures.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the records of the whole step

    def __init__(
        self,
        model: PreTrainedModel,
        pairs: Pairs,
        *,
        mask: Mask | None,
        objective: Objective,
        asked: Needs,
        references: Mapping[str, Scored],
        training: Training,
        seed: int,
        what: str,
        check: Check | None = None,
        check_every: int = 1,
        stop_at: float | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.mask = mask
        self.objective: Objective = objective
        self.asked = asked
        self.references, self.training = references, training
        self.selected: SelectedWeights | None = None
        self.history: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="wagle-")
        use_cache = model.config.use_cache
        self._own = frozenset(vars(model))
        arguments = TrainingArguments(
            output_dir=self._scratch.name,
            num_train_epochs=1,  # the plan holds all epochs
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.accumulation,
            learning_rate=training.learning_rate,
            lr_scheduler_type=training.schedule,
            warmup_steps=training.warmup_steps,
            max_grad_norm=0.0,  # the model's own gradients are gone; the step callback clips
            bf16=training.precision == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        if arguments.world_size > 1:
            raise WagleError("training runs on one process for now; start it without torchrun")
        super().__init__(
            model=model, args=arguments, train_dataset=pairs, data_collator=pairs.collate
        )
        model.config.use_cache = use_cache  # the Trainer clears it, and it would be saved
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Steps(self, what, check, check_every, stop_at, on_step))

    def run(self) -> None:
        """Train; afterwards the unselected weights are proven to be what they were."""
        model = self.model
        assert isinstance(model, nn.Module)
        training = model.training
        try:
            if self.training.dropout:
                self.train()
            else:
                with without_dropout(model):
                    self.train()
            assert self.selected is not None
            self.selected.verify()
        finally:
            if self.selected is not None:
                self.selected.close()
            self._scratch.cleanup()
            model.train(training)
            for name in vars(model).keys() - self._own:
                del vars(model)[name]  # accelerate 1.15 leaves its autocast around forward

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        assert isinstance(self.train_dataset, Pairs)
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Make the optimiser of the selected weights; decay spares norms and biases."""
        if self.optimizer is None:
            owner = model or self.model
            assert isinstance(owner, nn.Module)
            self.selected = SelectedWeights(owner, self.mask)
            decayed = set(self.get_decay_parameter_names(owner))
            masters = list(self.selected.named_masters())
            groups = [
                {"params": [m for n, m in masters if n in decayed], "decay": True},
                {"params": [m for n, m in masters if n not in decayed], "decay": False},
            ]
            self.optimizer = make_optimizer(groups, self.training)
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Tensor:
        """Records of the whole optimiser step: (forget, retain)."""
        counts = [
            sum(len(b[s]["index"]) for b in batch_samples if s in b) for s in ("forget", "retain")
        ]
        return torch.tensor(counts, device=device)

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: Mapping[str, Mapping[str, Tensor]],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """The part of the step's loss that these records make up."""
        assert not return_outputs
        assert num_items_in_batch is not None
        scored = {name: answer_nll(model, inputs[name]) for name in self.asked.sets}
        for name, answers in scored.items():
            self._check_finite(name, answers.nll_mean.detach(), inputs[name]["index"])
        references = {
            name: _rows(whole, inputs["forget"]["index"]) for name, whole in self.references.items()
        }
        terms = self.objective(**scored, **references, **self.asked.settings)
        loss = torch.zeros((), device=num_items_in_batch.device)
        for name, term, count in zip(
            ("forget", "retain"), terms, num_items_in_batch.tolist(), strict=True
        ):
            if term is not None:
                loss = loss + term.sum() / count
                self._add(f"{name}_loss", term, count)
            if name in scored:
                self._add(f"{name}_nll", scored[name].nll_mean, count)
        if not torch.isfinite(loss):
            raise TrainingStopped(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; lower the learning rate"
            )
        return loss

    def _add(self, name: str, values: Tensor, count: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(values.detach().sum()) / count

    def _check_finite(self, name: str, values: Tensor, index: Tensor) -> None:
        wrong = ~torch.isfinite(values)
        if wrong.any():
            tokens = getattr(self.train_dataset, name)[int(index[wrong][0])]
            raise TrainingStopped(
                f"the loss of {tokens.place} is {float(values[wrong][0])} at step "
                f"{self.state.global_step + 1}; lower the learning rate, or set precision: float32"
            )

    def take_figures(self) -> dict[str, float]:
        """The figures summed since the last step."""
        figures, self._sums = self._sums, {}
        return figures


def _rows(whole: Scored, index: Tensor) -> Scored:
    """The figures of some records, on the device of ``index``; per-token ones stay behind."""
    rows = [column[index.cpu()].to(index.device) for column in whole[:3]]
    return Scored(rows[0], rows[1], rows[2], whole.token_nll, whole.hit)


def make_optimizer(groups: list[dict[str, Any]], training: Training) -> Optimizer:
    """Build the optimiser of a run; ``decay`` in a group says whether weight decay applies."""
    kind = choose(_OPTIMIZERS, training.optimizer, "element-wise optimizer")
    known = inspect.signature(kind).parameters
    fused = {"fused": True} if "fused" in known else {}  # one pass over memory instead of ten
    settings = {"lr": training.learning_rate, **fused, **training.optimizer_settings}
    if training.weight_decay and "weight_decay" not in known:
        raise WagleError(f"{training.optimizer} has no weight decay; set weight_decay: 0")
    made = []
    for group in groups:
        decay = training.weight_decay if group["decay"] else 0.0
        if group["params"]:
            extra = {"weight_decay": decay} if "weight_decay" in known else {}
            made.append({"params": group["params"], **extra})
    try:
        return kind(made, **settings)
    except (TypeError, ValueError) as error:
        raise WagleError(f"cannot make {training.optimizer} with {settings}: {error}") from None


def check_optimizer(training: Training) -> None:
    """Refuse an optimiser or settings that cannot be made, before anything is computed."""
    probe = nn.Parameter(torch.zeros(1))
    make_optimizer([{"params": [probe], "decay": True}], training)


class _Steps(TrainerCallback):
    """Clips and writes back around the optimiser's step; logs, shows and stops after it."""

    def __init__(
        self,
        trainer: UnlearnTrainer,
        what: str,
        check: Check | None,
        check_every: int,
        stop_at: float | None,
        on_step: OnStep | None,
    ) -> None:
        self.trainer, self.what = trainer, what
        self.check, self.check_every, self.stop_at = check, check_every, stop_at
        self.on_step = on_step
        self._norm = 0.0
        self._checked = float("inf")

    def _near(self) -> bool:
        """Whether the figure was seen within twice the goal: from there every step is checked."""
        return self.stop_at is not None and self._checked <= 2 * self.stop_at

    @property
    def _selected(self) -> SelectedWeights:
        assert self.trainer.selected is not None
        return self.trainer.selected

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        self._bar = Bar(self.what, state.max_steps)
        self._bar.__enter__()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._bar.__exit__(None, None, None)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        self._norm = self._selected.clip(self.trainer.training.max_grad_norm)
        if not torch.isfinite(torch.tensor(self._norm)):
            raise TrainingStopped(
                f"the gradient is not finite at step {state.global_step + 1}; lower the learning "
                "rate, or set precision: float32"
            )

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._selected.write_back()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args
        step = state.global_step
        figures: dict[str, Any] = {"step": step, **self.trainer.take_figures()}
        figures["grad_norm"] = self._norm
        last = step == state.max_steps
        if self.check is not None and (step % self.check_every == 0 or last or self._near()):
            assert isinstance(self.trainer.model, nn.Module)
            self._checked = self.check(self.trainer.model)
            figures["forget_probability"] = self._checked
            if self.stop_at is not None and self._checked <= self.stop_at:
                control.should_training_stop = True
        self.trainer.history.append(figures)
        shown = {k: v for k, v in figures.items() if k.endswith("_nll")}
        if self._checked < float("inf"):
            shown["probability"] = self._checked
        self._bar.advance(1, **shown)
        if self.on_step is not None:
            self.on_step(figures)
