"""One optimiser step: its loss, and how the gradients of its two terms are combined.

A *wrapper* changes how the gradient is taken (``gru``, ``sam``, ``smooth``), or transforms the
weights at the end (``task_vector``); a *dynamic mask* zeroes entries of the gradient at each step
(``sign_agreement``, ``row_norm``). Each works on the compact gradients of the selected weights.
To add one: its settings in WRAPPERS or DYNAMIC_MASKS, its function in ``surgery.py``, and a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wagle.data.batches import Pairs
from wagle.model.scoring import Scored
from wagle.model.structure import precision
from wagle.system.errors import TrainingStopped, WagleError, choose, no_setting
from wagle.system.processes import group
from wagle.unlearning.inputs import Supply
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.objectives.entry import FORGET_SIDE
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.objectives.table import OBJECTIVES
from wagle.unlearning.training.passes import Loss as Loss
from wagle.unlearning.training.passes import Micro as Micro
from wagle.unlearning.training.passes import pass_back
from wagle.unlearning.training.weights.selected import SelectedWeights
from wagle.unlearning.training.weights.surgery import (
    gru,
    noise,
    perturbation,
    row_norm,
    sign_agreement,
)
from wagle.unlearning.watching.rules import Rule

WRAPPERS: dict[str, dict[str, float]] = {
    "none": {},
    "gru": {"momentum": 0.8, "floor": 1.0},
    "sam": {"rho": 0.01},
    "smooth": {"rho": 1e-4, "draws": 3},
    "task_vector": {"scale": -1.0},
}
DYNAMIC_MASKS: dict[str, dict[str, float]] = {
    "none": {},
    "sign_agreement": {},
    "row_norm": {"quantile": 0.99},
}
_TWO_SIDED = {"gru", "sign_agreement"}


class StepLoss:
    """The loss of a step's micro-batches, and the figures logged for it.

    Args:
        chosen: the objective.
        supply: gives the objective what it asks for.
        pairs: the planned records, for messages.
        dtype: the precision of the matrix products.
    """

    def __init__(self, chosen: Chosen, supply: Supply, pairs: Pairs, dtype: str) -> None:
        self.chosen, self.supply, self.pairs, self.dtype = chosen, supply, pairs, dtype
        self._sums: dict[str, float] = {}
        self._notes: dict[str, float] = {}

    def begin(self, model: nn.Module, counts: Sequence[int], step: int) -> list[Loss]:
        """The losses of a step: the forget and retain terms separately, or one that gives both.

        Args:
            model: the trained model.
            counts: forget and retain records of the whole step.
            step: its number, from 1, for messages.
        """
        self._sums, self._notes = {}, {}
        return [self._loss(model, part, counts, step) for part in self.chosen.parts()]

    def _loss(self, model: nn.Module, part: Chosen, counts: Sequence[int], step: int) -> Loss:
        def loss(micro: Micro, *, log: bool = True) -> Terms:
            return self._terms(model, part, micro, counts, step, log)

        return loss

    def _terms(
        self,
        model: nn.Module,
        chosen: Chosen,
        micro: Micro,
        counts: Sequence[int],
        step: int,
        log: bool,
    ) -> Terms:
        """These records' part of the step's loss, forget and retain separately."""
        if not micro:  # the other processes have records left
            return Terms(None, None)
        idle = any(one.get("idle", False) for one in micro.values())
        device = next(iter(micro.values()))["index"].device
        with precision(device, self.dtype):
            given, shown = self.supply(model, micro, chosen)
            for name, answers in shown.items():
                self._check_finite(name, answers, micro[name]["index"], step)
            terms = chosen.terms(given)
        parts: list[Tensor | None] = []
        for side, term, count in zip(("forget", "retain"), terms, counts, strict=True):
            parts.append(None if term is None else (not idle) * term.sum() / count)
            if term is not None and log and not idle:
                self._add(f"{side}_loss", term, count)
            if side in shown and log and not idle:
                self._add(f"{side}_nll", shown[side].nll_mean, count)
        total = sum(float(p.detach()) for p in parts if p is not None)
        if not math.isfinite(total):
            raise TrainingStopped(f"the loss is {total} at step {step}; lower the learning rate")
        return Terms(*parts)

    def _add(self, name: str, values: Tensor, count: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(values.detach().sum()) / count

    def _check_finite(self, name: str, answers: Scored, index: Tensor, step: int) -> None:
        values = answers.nll_mean.detach()
        wrong = ~torch.isfinite(values)
        if wrong.any():
            side = self.pairs.forget if name in FORGET_SIDE else self.pairs.retain
            raise TrainingStopped(
                f"the loss of {side[name][int(index[wrong][0])].place} is {float(values[wrong][0])} "
                f"at step {step}; lower the learning rate, or set precision: float32"
            )

    def note(self, figures: Mapping[str, float]) -> None:
        """Add figures of the step to those to be logged."""
        self._notes.update(figures)

    def take_figures(self) -> dict[str, float]:
        """The figures of the step that just ended, over the records of all processes."""
        figures: dict[str, float] = {}
        for own in group.gather(self._sums):
            for name, value in own.items():
                figures[name] = figures.get(name, 0.0) + value
        figures |= self._notes
        self._sums, self._notes = {}, {}
        return figures


class Gradient:
    """How a run makes the gradient of a step.

    Args:
        wrapper: a name in WRAPPERS.
        wrapper_settings: override its defaults.
        dynamic_mask: a name in DYNAMIC_MASKS.
        dynamic_settings: override its defaults.
        seed: of the perturbations that are drawn.

    Attributes:
        remembered: the smoothed retain gradients of ``gru``; checkpoints keep them.

    Raises:
        WagleError: a name or setting is unknown, a setting is out of range, or the two are
            incompatible.
    """

    def __init__(
        self,
        wrapper: str = "none",
        wrapper_settings: Mapping[str, float] | None = None,
        dynamic_mask: str = "none",
        dynamic_settings: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.wrapper, self.dynamic_mask, self.seed = wrapper, dynamic_mask, seed
        self.settings = _settings(WRAPPERS, wrapper, "wrapper", wrapper_settings)
        self.dynamic = _settings(DYNAMIC_MASKS, dynamic_mask, "dynamic_mask", dynamic_settings)
        self.remembered: list[Tensor] | None = None
        if {wrapper, dynamic_mask} == _TWO_SIDED:
            raise WagleError(
                "gru and sign_agreement both decide what remains of the forget gradient; choose one"
            )
        self._probe()

    def _probe(self) -> None:
        """Refuse settings that are out of range, before anything is computed."""
        one = [torch.ones(1)]
        if self.wrapper == "gru":
            gru(one, one, remembered=None, **self.settings)
        if self.dynamic_mask == "row_norm":
            row_norm(one, [None], **self.dynamic)
        if self.settings.get("rho", 0.0) < 0:
            raise WagleError(
                f"wrapper {self.wrapper}: rho is {self.settings['rho']}; give a number >= 0"
            )
        draws = self.settings.get("draws", 1)
        if draws < 1 or draws % 1:
            raise WagleError(f"wrapper smooth: draws is {draws}; give a whole number >= 1")

    @property
    def plain(self) -> bool:
        """Whether the gradient is simply that of the sum of both terms."""
        return self.wrapper in {"none", "task_vector"} and self.dynamic_mask == "none"

    @property
    def turns(self) -> bool:
        """Whether the weights end on the opposite side of where training takes them."""
        return self.settings.get("scale", 0.0) < 0

    def check(self, chosen: Chosen, rules: Sequence[Rule] = (), best: str | None = None) -> None:
        """Refuse what is incompatible with the wrapper or the dynamic mask.

        Args:
            chosen: an objective, which may lack the term that they work on, or teach what a negated
                task vector would then reverse.
            rules: the rules that end training; they see the model before it is negated.
            best: the choice of a checkpoint, which does too.
        """
        if self.turns:
            self._check_turned(chosen, rules, best)
        for name in (self.wrapper, self.dynamic_mask):
            if name == "none" or name == "task_vector":
                continue
            forgets = any(s not in ("retain", "retain_refusal") for s in chosen.sets)
            if not forgets or (name in _TWO_SIDED and chosen.retain == "none"):
                raise WagleError(
                    f"{name} needs a forget term{' and a retain term' * (name in _TWO_SIDED)}; "
                    f"objective {chosen.name} with retain_term {chosen.retain} lacks one"
                )

    def _check_turned(self, chosen: Chosen, rules: Sequence[Rule], best: str | None) -> None:
        what = f"task_vector with scale {self.settings['scale']:g}"
        ours = OBJECTIVES.get(chosen.name) is chosen.entry  # a user's own is its author's concern
        if ours and chosen.name != "forget_finetune":
            raise WagleError(
                f"{what} reverses objective {chosen.name}, which would bring the forget set back; "
                "set objective: forget_finetune, or a scale above 0"
            )
        if chosen.retain == "nll":
            raise WagleError(
                f"{what} also reverses what retain_term nll teaches, which would unlearn the retain "
                "set; set retain_term: none, or a scale above 0"
            )
        blind = [str(rule) for rule in rules if rule.figure.startswith("forget.")]
        if best is not None or blind:
            said = f"best {best!r}" if best is not None else f"the rule '{blind[0]}'"
            raise WagleError(
                f"{what} reverses the model's change after its last step, but {said} would judge it "
                "before that; remove it"
            )

    def take(
        self,
        selected: SelectedWeights,
        micros: Sequence[Micro],
        losses: Sequence[Loss],
        step: int,
    ) -> dict[str, float]:
        """Fill in the gradient of one step; returns figures to log.

        Every term has its own backward pass: in a joint one, the dense gradients of one term would
        all stay in memory, waiting for those of the other.

        Args:
            selected: where the gradient goes.
            micros: the batches of the step.
            losses: the forget and retain terms separately, or one that gives both.
            step: number of the step, for random draws.
        """
        slots = ("total", "total") if self.plain else ("forget", "retain")
        pass_back(selected, micros, losses, slots)
        selected.add_up(*dict.fromkeys(slots))
        if self.plain:
            return {}
        forget, retain = selected.take("forget"), selected.take("retain")
        figures: dict[str, float] = {}
        if self.wrapper in {"sam", "smooth"}:
            forget = self._perturbed(selected, micros, losses[0], forget, step)
        if self.wrapper == "gru":
            total, self.remembered = gru(
                forget, retain, remembered=self.remembered, **self.settings
            )
        elif self.dynamic_mask == "sign_agreement":
            masked = sign_agreement(forget, retain)
            total = masked.gradients
            figures["kept_share"] = masked.kept / max(1, selected.count)
        else:
            total = [f + r for f, r in zip(forget, retain, strict=True)]
        if self.dynamic_mask == "row_norm":
            keep = row_norm(forget, selected.rows(), **self.dynamic)
            total = [g * k for g, k in zip(total, keep, strict=True)]
            kept = sum(int(torch.count_nonzero(k)) for k in keep)
            figures["kept_share"] = kept / max(1, selected.count)
        selected.give(total)
        return figures

    def _perturbed(
        self,
        selected: SelectedWeights,
        micros: Sequence[Micro],
        loss: Loss,
        forget: list[Tensor],
        step: int,
    ) -> list[Tensor]:
        """The forget gradient at perturbed weights: SAM's worst case, or a mean over noise."""
        rho = self.settings["rho"]
        if self.wrapper == "sam":
            shifts = [perturbation(forget, rho=rho)]
        else:
            named = dict(selected.named_masters())
            shifts = [
                noise(named, rho=rho, key=(self.seed, step, draw))
                for draw in range(int(self.settings["draws"]))
            ]
        for shift in shifts:
            with selected.shifted(shift):
                pass_back(selected, micros, [loss], ("forget",), log=False)
        selected.add_up("forget")
        return [g / len(shifts) for g in selected.take("forget")]


def _settings(
    table: Mapping[str, dict[str, float]], name: str, what: str, given: Mapping[str, float] | None
) -> dict[str, float]:
    known = choose(table, name, what)
    for key, value in (given or {}).items():
        if key not in known:
            raise no_setting(f"{what} {name}", key, known, near="; nearest: {}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise WagleError(f"{what} {name}: {key} is {value!r}, not a number")
    return {**known, **(given or {})}
