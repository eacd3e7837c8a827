"""The course of a run: how far it is, what was best, its checkpoints and how to go back to them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from wagle.recipe.sections.training import Training
from wagle.system.mapped import Lazy
from wagle.unlearning.inputs import Supply
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.landing import Landed, Line, Trail, edge, land
from wagle.unlearning.training.steps import Gradient
from wagle.unlearning.training.weights.rounding import stochastic_bfloat16
from wagle.unlearning.training.weights.selected import SelectedWeights
from wagle.unlearning.training.weights.slices import Round
from wagle.unlearning.watching.checks import Checks
from wagle.unlearning.watching.rules import Best, Rule
from wagle.unlearning.watching.targets import target_of

logger = logging.getLogger(__name__)

EARLIER = "earlier"  # the last look, as long as no rule has ended training
BEFORE, AFTER = "before-best", "after-best"  # looks next to the best that failed its conditions


@dataclass
class Course:
    """A run in progress.

    Attributes:
        model: trained in place.
        chosen: the objective.
        supply: gives the objective what it asks for.
        gradient: how the gradient of a step is made.
        training: the settings.
        checks: what is looked at during training.
        checkpoints: where a killed run resumes.
        seed: of the draws of stochastic rounding.
        total_steps: optimiser steps of the whole run.
        epochs: how many passes over the anchor set these are.
        history: the figures of every step so far.
        done: steps done by an earlier process.
        confirmed: the last step whose weights are known to be good.
        kept: the step of the checkpoint ``last``.
        stopped_by: the rule that ended training.
        best: step and figures of the best checkpoint.
        landed: where the run landed, if it did.
        decayed: names of the parameters that decay.
    """

    model: nn.Module
    chosen: Chosen
    supply: Supply
    gradient: Gradient
    training: Training
    checks: Checks
    checkpoints: Checkpoints
    seed: int
    total_steps: int
    epochs: float
    history: list[dict[str, Any]] = field(default_factory=list, init=False)
    done: int = field(default=0, init=False)
    confirmed: int = field(default=0, init=False)
    kept: int = field(default=0, init=False)
    stopped_by: str | None = field(default=None, init=False)
    best: dict[str, Any] | None = field(default=None, init=False)
    landed: Landed | None = field(default=None, init=False)
    decayed: set[str] = field(default_factory=set, init=False)
    _rule: Rule | None = field(default=None, init=False)
    _met: bool | None = field(
        default=None, init=False
    )  # whether the last look met best's conditions
    _trail: Trail | None = field(default=None, init=False)
    _selected: SelectedWeights | None = field(default=None, init=False)
    _optimizer: Optimizer | None = field(default=None, init=False)

    def equip(self, selected: SelectedWeights, optimizer: Optimizer, decayed: set[str]) -> None:
        """Give the run its weights, and the optimiser that steps on them."""
        self._selected, self._optimizer, self.decayed = selected, optimizer, decayed
        self._trail = Trail(selected)

    @property
    def selected(self) -> SelectedWeights:
        """The weights that train; available once the run is equipped."""
        assert self._selected is not None
        return self._selected

    @property
    def trail(self) -> Trail:
        """The weights of earlier looks; available once the run is equipped."""
        assert self._trail is not None
        return self._trail

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser of the selected weights, unwrapped."""
        assert self._optimizer is not None
        return self._optimizer

    def narrow(self, step: int) -> Round | None:
        """How masters are rounded to bfloat16 weights after a step; None rounds to the nearest."""
        if self.training.rounding == "nearest":
            return None

        def rounded(values: Tensor, name: str, part: int) -> Tensor:
            return stochastic_bfloat16(values, (self.seed, "rounding", step, name, part))

        return rounded

    # ----- what was good -----

    def confirm(self, step: int) -> None:
        """Record that a step's weights are good: their loss is finite and has not exploded."""
        self.confirmed = max(self.confirmed, step)
        if self.kept <= self.confirmed:
            self.checkpoints.drop("good")

    def see(self, looked: Mapping[str, float], step: int) -> Rule | None:
        """Take note of a look: keep the best weights; the rule that ends training, if one does.

        A run that lands keeps the weights of each look until the next one. A rule then counts only
        if it holds as an evaluation would measure it too, and no other probe asks for more.
        """
        self.keep_best(looked, step)
        rule, land = self.checks.stops(looked), self.checks.land
        if rule is not None and land:
            rule = self._confirmed(rule)
        if rule is not None:
            self._rule, self.stopped_by = rule, str(rule)
        elif land:
            self.trail.keep(EARLIER, step)
        return rule

    def _confirmed(self, rule: Rule) -> Rule | None:
        """The rule, if it holds in an evaluation's precision and its target asks for no more."""
        figures = self.checks.measure(self.model, rule.figures)
        spent = target_of(rule, self.checks.known).spent(figures)
        return self.checks.stops(figures) if spent else None

    def keep_best(self, looked: Mapping[str, float], step: int) -> None:
        """Keep the masters if they are the best so far.

        A run that lands also keeps those of the looks before and after, if these failed the
        conditions: the edge of the conditions lies between.
        """
        best = self.checks.best
        if best is None or best.figure not in looked:
            return
        incumbent = self.best["figures"] if self.best else None
        meets, land = best.meets(looked, self.checks.known), self.checks.land
        if best.better(looked, incumbent, self.checks.known):
            self.best = {"step": step, "figures": dict(looked)}
            self.checkpoints.save("best", self.selected, {"step": step})
            self.trail.drop(AFTER)
            self.trail.drop(BEFORE)
            if land and meets and self._met is False:
                self.trail.rename(EARLIER, BEFORE)
        elif (
            land and not meets and self.best and self.best["step"] == self.trail.steps.get(EARLIER)
        ):
            self.trail.keep(AFTER, step)
        self._met = meets

    # ----- resuming a killed run -----

    def save(self, step: int) -> None:
        """Write the state of the run after a step, so that a killed run resumes from here."""
        names = [name for name, _ in self.selected.named_masters()]
        remembered = self.gradient.remembered
        state = {
            "step": step,
            "history": self.history,
            "best": self.best,
            "dual": self.supply.dual,
            "stopped_by": self.stopped_by,
            "before": dict(self.checks.known.get("before", {})),
            "start": dict(self.checks.known.get("start", {})),
            "confirmed": self.confirmed,
            "kept": self.trail.steps,
            "met": self._met,
        }
        own = zip(names, remembered, strict=True) if remembered else ()
        more = Lazy({**{n: t.detach for n, t in own}, **self.trail.tensors().makers})
        if self.kept <= self.confirmed < step:
            self.checkpoints.rename("last", "good")
        self.checkpoints.save("last", self.selected, state, self.optimizer, more)
        self.kept = step

    def resume(self) -> bool:
        """Return to where a killed run was; says whether there was one."""
        if not self.checkpoints.has("last"):  # killed while writing it
            self.checkpoints.rename("good", "last")
        if not self.checkpoints.has("last"):
            return False
        masters, more, state = self.checkpoints.load("last", self.selected, self.optimizer)
        self.selected.restore(masters, self.narrow(state["step"]))
        self.kept = state["step"]
        self.confirmed = state.get("confirmed", self.kept - 1)  # older checkpoints lack it
        self.done, self.history = state["step"], state["history"]
        self.best, self.supply.dual = state["best"], state["dual"]
        self.stopped_by, self._met = state["stopped_by"], state.get("met")
        self._rule = next((r for r in self.checks.rules if str(r) == self.stopped_by), None)
        self.trail.restore(more, state.get("kept", {}))
        self.checks.resume(state["before"], state.get("start", {}), self.history)
        if more.keys() & set(self.selected.masters()):
            self.gradient.remembered = [
                self.selected.where.put(more[n].to(master.device))
                for n, master in self.selected.named_masters()
            ]
        return True

    # ----- the way back -----

    def take_best(self) -> int:
        """Go back to the best checkpoint; warn if none has met the conditions."""
        best, rule = self.best, self.checks.best
        assert best is not None
        assert rule is not None
        best["meets"] = rule.meets(best["figures"], self.checks.known)
        if not best["meets"]:
            logger.warning(
                "no step meets the conditions of '%s'; the model kept is that of step %d, whose %s "
                "is %.3g; lower the learning rate, or change best",
                rule,
                best["step"],
                rule.figure,
                best["figures"][rule.figure],
            )
        return self._go_back("best")

    def land(self, step: int) -> None:
        """Go back between the last two looks, to where the figure of the rule lies in its aim."""
        rule = self._rule
        if rule is None or not self.checks.land:
            return
        began = self.trail.steps.get(EARLIER, 0)
        late = Trail(self.selected)
        late.keep("late", step)
        early = self.trail.of(EARLIER) if began else self.selected.before
        line = Line(self.selected, early, late.of("late"), partial(self._settle, step))
        target = target_of(rule, self.checks.known)
        self.landed = land(line, partial(self._measured, rule), target, (began, step))
        late.close()
        if not self.landed.inside:
            logger.warning(
                "the run did not land: between steps %d and %d no point has a %s in %.3g to %.3g; "
                "it is %.3g; lower the learning rate",
                began,
                step,
                rule.figure,
                *target.band,
                self.landed.value,
            )

    def land_best(self, step: int) -> None:
        """Go to the edge of the conditions of ``best`` on either side of it, if that is better."""
        best, rule = self.best, self.checks.best
        assert best is not None
        assert rule is not None
        late = Trail(self.selected)
        late.keep("late", step)
        known, chosen = self.checks.known, 1.0
        self._settle(step)
        figures = self._measured(rule)
        line = Line(self.selected, late.of("late"), late.of("late"), partial(self._settle, step))
        for name in (BEFORE, AFTER) if rule.meets(figures, known) else ():
            if name not in self.trail.steps:
                continue
            here = replace(line, early=self.trail.of(name))
            share = edge(here, lambda: rule.meets(self._measured(rule), known))
            here.go(share)
            found = self._measured(rule)
            if share < 1 and rule.better(found, figures, known):
                line, chosen, figures = here, share, found
                steps = (self.trail.steps[name], step)
                best["landed"] = {"between": sorted(steps), "share": share, "figures": found}
        line.go(chosen)
        late.close()

    @property
    def moved(self) -> bool:
        """Whether landing left the weights elsewhere than at a step that was looked at."""
        if self.best is not None:
            return "landed" in self.best
        return self.landed is not None and self.landed.share < 1

    def _settle(self, step: int) -> None:
        """Make the model what will be saved: the masters, rounded."""
        self.selected.write_back(self.narrow(step))
        self.selected.settle(self.narrow(step))

    def _measured(self, rule: Rule | Best) -> dict[str, float]:
        return self.checks.measure(self.model, rule.figures)

    def retreat(self) -> int:
        """After a step that went wrong, go back to the last weights known to be good.

        A checkpoint's weights are judged by the loss of the next step, which may be the one that
        went wrong. A best checkpoint unknown to this run is left over from a killed one.
        """
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

    def _go_back(self, name: str) -> int:
        masters, _, state = self.checkpoints.load(name, self.selected)
        self.selected.restore(masters, self.narrow(state["step"]))
        return int(state["step"])
