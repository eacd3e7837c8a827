"""What was lost: how far the sets that must stay have fallen, and how far they may fall."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from wagle.evaluation.figures import GONE, HIGHER, HOLDOUT, OVERALL, Figure
from wagle.evaluation.result import Evaluation
from wagle.metrics.statistics import paired_difference

LIMIT = 0.05  # of the figure before: what a set may lose unless the recipe says otherwise
Limits: TypeAlias = Mapping[str, float | None]
"""By set: the share of its figure that may be lost; None: any."""

_MAIN = ("probability", "accuracy")  # of a set that must stay: the first one that was measured


class Loss(NamedTuple):
    """How a set that must stay has changed.

    Attributes:
        name: the set.
        metric: its figure.
        now: the figure after unlearning.
        then: the figure before.
        interval: 95 % interval of the share lost, negative where the figure rose.
        limit: the share that may be lost; None: any.
    """

    name: str
    metric: str
    now: float
    then: float
    interval: tuple[float, float]
    limit: float | None

    @property
    def share(self) -> float:
        """The share lost."""
        return 1 - self.now / self.then

    @property
    def beyond(self) -> bool:
        """Whether more than the limit was lost."""
        return self.limit is not None and self.share > self.limit

    @property
    def surely_beyond(self) -> bool:
        """Whether the whole interval lies beyond the limit."""
        return self.limit is not None and self.interval[0] > self.limit

    def sentence(self) -> str:
        """What was lost, in a sentence."""
        low, high = (100 * end for end in self.interval)
        allowed = "" if self.limit is None else f"; at most {100 * self.limit:g} % may be lost"
        return (
            f"{self.name}.{self.metric} fell from {self.then:.3f} to {self.now:.3f}, by "
            f"{100 * self.share:.1f} % (95 % interval {low:.1f} to {high:.1f} %){allowed}."
        )


def losses(after: Evaluation, before: Evaluation, limits: Limits | None = None) -> list[Loss]:
    """How each set that must stay has changed, if both models were asked about the same records.

    Args:
        after: the unlearned model.
        before: the model before.
        limits: what each set may lose; sets that are not named may lose ``LIMIT``.
    """
    found = []
    for name in after.figures:
        metric = None if name in (*GONE, HOLDOUT, OVERALL) else _main(name, after, before)
        if metric is None:
            continue
        now, then = (e.figures[name][metric] for e in (after, before))
        gap = paired_difference(now.per_record, then.per_record)
        low, high = (-end / then.number for end in reversed(gap.interval))
        limit = (limits or {}).get(name, LIMIT)
        found.append(Loss(name, metric, now.number, then.number, (low, high), limit))
    return found


def _main(name: str, after: Evaluation, before: Evaluation) -> str | None:
    """The figure that stands for a set, if it should be high and is paired."""
    for metric in _MAIN:
        pair = [e.figures.get(name, {}).get(metric) for e in (after, before)]
        if all(_good(figure) for figure in pair):
            one, other = (figure.per_record for figure in pair if figure is not None)
            if one.keys() == other.keys() and sum(other.values()) > 0:
                return metric
    return None


def _good(figure: Figure | None) -> bool:
    return (
        figure is not None
        and figure.value is not None
        and figure.direction == HIGHER
        and bool(figure.per_record)
    )


def what_was_lost(found: Iterable[Loss]) -> tuple[str, ...]:
    """The sentences about sets that surely lost more than they may."""
    return tuple(loss.sentence() for loss in found if loss.surely_beyond)
