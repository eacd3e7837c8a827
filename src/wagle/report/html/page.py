"""What a run's page shows, as plain data, and what several sections derive from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from wagle.evaluation.figures import GONE, HOLDOUT, OVERALL, ROLES, SETS, Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE
from wagle.recipe.recipe import Recipe
from wagle.report.attack_findings import Found
from wagle.report.disclosure import Shortener


@dataclass(frozen=True)
class Arm:
    """What was found about one arm's unlearned model.

    Attributes:
        evaluation: its evaluation on the recipe's sets.
        attacks: its ``wagle-attack/1`` files, by the recipe's names for the attacks.
        selected: how many weights were trained.
        steps: how many unlearning steps were taken.
        verdict: the word of its own verdict.
    """

    evaluation: Evaluation
    attacks: Mapping[str, Found] = field(default_factory=dict)
    selected: int = 0
    steps: int = 0
    verdict: str = ""


@dataclass(frozen=True)
class Page:
    """Everything a report shows, as plain data: nothing here reads a run folder.

    Attributes:
        recipe: the recipe of the run.
        recipe_text: the resolved recipe as YAML.
        state: per finished stage, its seconds, peak memory and results.
        evaluations: the evaluations by role: ``before``, ``after``, ``reference`` (may be missing).
        history: the figures of every unlearning step.
        teaching: the figures of every teaching step, if the model was taught here.
        warnings: the run's warnings.
        density: (selected, weights) per ``block``, ``kind`` of module and ``parameter``.
        answers: by role, question/expected/said of some forget records; empty unless asked for.
        environment: versions and machine.
        benchmarks: evaluations by role, by the recipe's names for the benchmarks.
        attacks: the content of ``wagle-attack/1`` files, by the recipe's names for the attacks.
        controls: what was found about each control arm's model, by arm.
    """

    recipe: Recipe
    recipe_text: str
    state: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Evaluation]
    history: list[dict[str, Any]]
    teaching: list[dict[str, Any]]
    warnings: list[str]
    density: Mapping[str, Mapping[str, tuple[int, int]]]
    answers: Mapping[str, list[dict[str, Any]]]
    environment: Mapping[str, Any]
    benchmarks: Mapping[str, Mapping[str, Evaluation]] = field(default_factory=dict)
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    controls: Mapping[str, Arm] = field(default_factory=dict)

    @cached_property
    def short(self) -> Shortener:
        """Cuts paths in a text to names."""
        return Shortener(self.recipe)

    @property
    def verdict(self) -> str:
        """The verdict's word; without a verdict, inconclusive."""
        return str(self.state.get("after", {}).get("verdict", INCONCLUSIVE))

    @property
    def roles(self) -> list[str]:
        """The models that were evaluated."""
        return [role for role in ROLES if role in self.evaluations]

    @property
    def measured(self) -> list[str]:
        """The sets for which any evaluation has figures."""
        names = [name for found in self.evaluations.values() for name in found.figures]
        return [*dict.fromkeys([name for name in SETS if name in names] + names)]

    @property
    def kept(self) -> list[str]:
        """The sets that must stay."""
        return [name for name in self.measured if name not in (*GONE, HOLDOUT, OVERALL)]

    @property
    def goal(self) -> Figure | None:
        """The forget probability of the reference."""
        return self.figures("forget", "probability").get("reference")

    @property
    def ratio(self) -> float | None:
        """The ratio that was trained, if known."""
        asked = self.recipe.attribution
        ratios = self.state.get("mask", {}).get("ratios")
        if ratios is None and asked.mask is None:
            ratios = asked.ratio if isinstance(asked.ratio, list) else [asked.ratio]
        return asked.use or (ratios[0] if ratios and len(ratios) == 1 else None)

    def figures(self, name: str, metric: str) -> dict[str, Figure]:
        """A figure of a set, for every model that has it."""
        found = {role: self.evaluations[role].figures.get(name, {}) for role in self.roles}
        return {role: figures[metric] for role, figures in found.items() if metric in figures}

    def count(self, name: str) -> int | None:
        """How many records a set has: as the run counted them, else as the figures do."""
        for found in self.evaluations.values():
            counted = found.details.get("data", {}).get("sets", {}).get(name, {}).get("n")
            if counted is not None:
                return int(counted)
        known = [e.figures.get(name, {}) for e in self.evaluations.values()]
        return max((figure.n for figures in known for figure in figures.values()), default=None)
