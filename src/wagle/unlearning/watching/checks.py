"""Checks during training: when to look, stop rules, the choice of the best checkpoint.

The figures are those of ``looks.py``, and whatever the caller's ``evaluate`` gives.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from wagle.system.errors import WagleError
from wagle.unlearning.watching.looks import Looked, look_at_set
from wagle.unlearning.watching.rules import (
    CEILING,
    OF_OPTIONS,
    REACHED,
    Best,
    Rule,
    parse_best,
    parse_rule,
    uniform_guess,
)

logger = logging.getLogger(__name__)

_ALREADY = 1.25  # times the reference's probability, at most: what counts as forgotten
# From grammar and the question alone, an untaught model predicts half to two thirds of an answer's
# tokens and can finish its last tenth; a taught one predicts nearly all and can finish the last half.
# A model that knows the fact in other words lies between: no taught model is below both limits.
_UNTAUGHT = {"forget.exact_memorization": 0.5, "forget.extraction_strength": 0.1}
_WATCHED = 8  # records to keep that show whether training has diverged

Evaluate = Callable[[nn.Module], Mapping[str, float]]


def stop_rules(
    stop_when: str | Sequence[str],
    *,
    bounded: bool,
    reference: Mapping[str, float] | None,
    turned: bool = False,
) -> list[Rule]:
    """The rules that end training.

    Args:
        stop_when: rules, or ``auto``: the forget probability reaches the reference's, if there is
            one, and for an unbounded objective the forget NLL reaches that of a uniform guess.
        bounded: whether the objective is bounded below.
        reference: the reference's figures.
        turned: whether the weights' change is reversed at the end, so that ``auto`` has no rules.
    """
    if stop_when == "auto" and turned:
        return []
    if stop_when == "auto":
        return [parse_rule(REACHED)] * (reference is not None) + [parse_rule(CEILING)] * (
            not bounded
        )
    return [parse_rule(text) for text in ([stop_when] if isinstance(stop_when, str) else stop_when)]


@dataclass
class Checks:
    """What is looked at during training, and when.

    Attributes:
        looked: the records that looks use.
        precision: of the matrix products.
        rules: training ends when one of them holds.
        best: which checkpoint is best; None: the last.
        known: the figures of ``before``, ``uniform`` and, if there is one, ``reference``; under
            ``start``, the figure that is watched for divergence.
        check_every: steps between looks at the rules.
        evaluate_every: steps between looks at everything; None never looks.
        evaluate: gives further figures of the live model.
        land: whether the run goes back to where the figure of a rule lies in its band.
        precise: the precision of an evaluation's matrix products, for landing.
    """

    looked: Looked
    precision: str
    rules: list[Rule]
    best: Best | None
    known: dict[str, Mapping[str, float]]
    check_every: int
    evaluate_every: int | None
    evaluate: Evaluate | None
    land: bool = False
    precise: str = "float32"
    _last: float = field(default=math.inf, init=False)

    def start(self, model: nn.Module) -> dict[str, float]:
        """Look at the original model; from here on, everything that the rules need is known."""
        reads = [text.needs for text in self._texts]
        everything = self.evaluate_every or any("before" in r.names for r in reads)
        names = [name for name in self.looked.sets if name == "forget" or everything]
        before = self._look(model, names, everything=bool(self.evaluate_every))
        self.known["before"] = before
        if self.watches:
            self.known["start"] = {"retain.nll": self.watch(model)}
        return self._with_evaluate(model, before) if self.evaluate_every else {}

    def resume(
        self,
        before: Mapping[str, float],
        start: Mapping[str, float],
        history: Iterable[Mapping[str, float]],
    ) -> None:
        """Restore what a killed run had seen, so that later looks are the same."""
        self.known["before"], self.known["start"] = before, start or self.known["uniform"]
        for figures in (before, *history):
            self._last = figures.get("forget.probability", self._last)

    def at(self, model: nn.Module, step: int, last: bool) -> dict[str, float]:
        """The figures of a step; none if there is no look after it."""
        if self.evaluate_every and (step % self.evaluate_every == 0 or last):
            return self.look(model)
        wanted = {name for text in self._texts for name in text.needs.sets}
        if wanted and (step % self.check_every == 0 or last or self._near()):
            return self._look(model, wanted)
        return {}

    def look(self, model: nn.Module) -> dict[str, float]:
        """All figures of the current model, and the caller's if ``evaluate_every`` is set."""
        figures = self._look(model, self.looked.sets, everything=True)
        return self._with_evaluate(model, figures) if self.evaluate_every else figures

    @property
    def _texts(self) -> list[Rule | Best]:
        """All that reads figures."""
        return [*self.rules, *([self.best] if self.best else [])]

    @property
    def watches(self) -> bool:
        """Whether there are records to keep that can be watched."""
        return bool(self.looked.sets.get("retain"))

    def watch(self, model: nn.Module) -> float:
        """The mean NLL in nats of a few records to keep; far above its start means divergence."""
        few = self.looked.sets["retain"][:_WATCHED]
        return look_at_set(model, "retain", few, self.precision)["retain.nll"]

    def measure(self, model: nn.Module, figures: Iterable[str]) -> dict[str, float]:
        """The figures of the sets that some are about, as an evaluation measures them."""
        names = dict.fromkeys(figure.split(".")[0] for figure in figures)
        found: dict[str, float] = {}
        for name in names:
            options = self.looked.options if name == "retain" and OF_OPTIONS & {*figures} else None
            found |= look_at_set(model, name, self.looked.sets[name], self.precise, options)
        return found

    def _look(
        self, model: nn.Module, names: Iterable[str], *, everything: bool = False
    ) -> dict[str, float]:
        """The figures of some sets; those of options only if everything, or a rule, needs them."""
        found: dict[str, float] = {}
        wanted = everything or any(OF_OPTIONS & set(text.figures) for text in self._texts)
        for name in names:
            options = self.looked.options if wanted and name == "retain" else None
            tokens = self.looked.sets[name]
            found.update(look_at_set(model, name, tokens, self.precision, options))
        self._last = found.get("forget.probability", self._last)
        return found

    def _with_evaluate(self, model: nn.Module, figures: dict[str, float]) -> dict[str, float]:
        return {**figures, **(self.evaluate(model) if self.evaluate is not None else {})}

    def _near(self) -> bool:
        """Whether the forget probability has been within twice the reference's.

        From then on there is a look after every step.
        """
        goal = self.known.get("reference", {}).get("forget.probability")
        follows = any(r.name == "reference" for r in self.rules)
        return goal is not None and follows and self._last <= 2 * goal

    def stops(self, figures: Mapping[str, float]) -> Rule | None:
        """The first rule that holds, among those whose figures were taken."""
        for rule in self.rules:
            if rule.figure in figures and rule.holds(figures, self.known):
                return rule
        return None


def make_checks(
    looked: Looked,
    *,
    vocabulary: int,
    rules: list[Rule],
    best: str | None,
    reference: Mapping[str, float] | None,
    precision: str,
    check_every: int,
    evaluate_every: int | None,
    evaluate: Evaluate | None,
    land: bool = False,
    precise: str = "float32",
) -> Checks:
    """Assemble the checks; a rule that lacks something it needs is an error here, not later."""
    for what, every in (("check_every", check_every), ("evaluate_every", evaluate_every)):
        if every is not None and every < 1:
            raise WagleError(f"{what} is {every}; it must be at least 1 step")
    chosen = parse_best(best) if best is not None else None
    known: dict[str, Mapping[str, float]] = {"uniform": uniform_guess(vocabulary)}
    if reference is not None:
        known["reference"] = reference
    texts: list[Rule | Best] = [*rules, *([chosen] if chosen else [])]
    for text in texts:
        if "reference" in text.needs.names and reference is None:
            raise WagleError(f"the rule '{text}' needs a reference; name one, or change the rule")
        for name in text.needs.sets:
            if name not in looked.sets:
                raise WagleError(f"the rule '{text}' needs a {name} set; give one")
        if OF_OPTIONS & set(text.figures) and not looked.options:
            raise WagleError(
                f"the rule '{text}' needs wrong answers of retain records; add a field "
                "perturbed_answers to them, or change the rule"
            )
    for rule in [*rules, *(chosen.conditions if chosen else ())]:
        if rule.name == "reference" and reference is not None and rule.figure not in reference:
            raise WagleError(f"the rule '{rule}' needs {rule.figure} of the reference")
    return Checks(
        looked,
        precision,
        rules,
        chosen,
        known,
        check_every,
        evaluate_every,
        evaluate,
        land=land,
        precise=precise,
    )


def warn_over_unlearned(
    figures: Mapping[str, float], known: Mapping[str, Mapping[str, float]]
) -> None:
    """Warn if forgetting went clearly past its target."""
    nll, uniform = figures.get("forget.nll"), known["uniform"]["forget.nll"]
    if nll is not None and nll > uniform:
        logger.warning(
            "over-unlearned: the forget NLL is %.1f nats, above the %.1f of a uniform guess; stop "
            "earlier or lower the learning rate",
            nll,
            uniform,
        )
        return
    goal = known.get("reference", {}).get("forget.probability")
    probability = figures.get("forget.probability")
    if goal is not None and probability is not None and probability < 0.5 * goal:
        logger.warning(
            "over-unlearned: the forget probability is %.3g, under half of the reference's %.3g; "
            "lower the learning rate or check_every",
            probability,
            goal,
        )


def warn_unknown(
    known: Mapping[str, Mapping[str, float]], records: int, *, questions: bool = False
) -> None:
    """Warn if the model never knew the forget set, so that there is nothing to forget.

    This is so if its answers are no likelier than a uniform guess. With a reference, also if they
    would already count as forgotten: a probability within the reference's interval and at most 1.25
    times its value, as few records make the interval wide. Without one, also if the model
    reproduces next to nothing of the answers; this does not apply to texts, whose content can be
    known in other words.

    Args:
        known: the figures of ``before``, ``uniform`` and, if there is one, ``reference``, where
            ``forget.probability.high`` is the upper end of the interval, if known.
        records: how many records the forget set has.
        questions: whether they are questions with answers.
    """
    before, goal = known["before"], known.get("reference", {})
    nll, chance = before["forget.nll"], known["uniform"]["forget.nll"]
    if nll > chance:
        logger.warning(
            "the model never knew the forget set (%d records): its mean NLL of %.1f nats is above "
            "a uniform guess (%.1f); check the template",
            records,
            nll,
            chance,
        )
    elif "forget.probability" in goal:
        value = goal["forget.probability"]
        limit = min(_ALREADY * value, goal.get("forget.probability.high", value))
        if before["forget.probability"] <= limit:
            logger.warning(
                "the model never knew the forget set (%d records): its probability before unlearning is "
                "%.3g, %s above the reference's %.3g; check the records, the template and the reference",
                records,
                before["forget.probability"],
                "not" if before["forget.probability"] <= value else "hardly",
                value,
            )
    elif questions and all(before[figure] <= most for figure, most in _UNTAUGHT.items()):
        logger.warning(
            "the model never knew the forget set (%d records): before unlearning it predicts %.0f%% "
            "of an answer's tokens and reproduces its last %.0f%%; check the records and the template",
            records,
            100 * before["forget.exact_memorization"],
            100 * before["forget.extraction_strength"],
        )
