"""A metric of one record: its function, and which of the record's answers the function takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """What is known about one record under a model; None if it was not asked for, or is absent.

    M is the mean NLL of an answer's scored tokens in nats. Metrics name the fields that they need.

    Attributes:
        right: M of the right answer.
        hits: for each scored token of it but the EOS, whether the arg-max token is correct.
        reworded: M of the right answer in other words, or of the right answer if there are none.
        wrong: M of each wrong answer.
        paraphrased: M of the right answer after the paraphrased question.
        expected: the right answer.
        said: what the model wrote.
        finished: whether it ended by itself.
    """

    right: float | None = None
    hits: Sequence[bool] | None = None
    reworded: float | None = None
    wrong: Sequence[float] | None = None
    paraphrased: float | None = None
    expected: str | None = None
    said: str | None = None
    finished: bool | None = None


@dataclass(frozen=True)
class Metric:
    """The definition of a figure.

    Attributes:
        unit: the unit of its values.
        of: its value for one record; None if a benchmark or a classifier computes it from more than
            one record's answers. It may return None: not defined for this record.
        needs: fields of ``Answered``: the arguments of ``of``, in order.
        direction: ``higher``, ``lower`` or ``target``: what is better where the model should know
            less.
        kept: the same where it should know as much as before.
        share: whether it is a share of records, whose interval is Wilson's.
        everywhere: whether it is computed from all that a model writes in any benchmark, whatever
            was asked; it has a value for every text, even an empty one.
    """

    unit: str
    of: Callable[..., float | None] | None = None
    needs: tuple[str, ...] = ()
    direction: str = "target"
    kept: str = "higher"
    share: bool = False
    everywhere: bool = False

    def value(self, answered: Answered) -> float | None:
        """The value for one record; None if something it needs is missing."""
        given = [getattr(answered, need) for need in self.needs]
        if self.of is None or any(one is None for one in given):
            return None
        return self.of(*given)


def values(metrics: Mapping[str, Metric], answered: Answered) -> dict[str, float]:
    """The values of one record, by metric; metrics without a value are left out.

    Args:
        metrics: the metrics, by name.
        answered: what is known about the record.
    """
    found = {name: metric.value(answered) for name, metric in metrics.items()}
    return {name: value for name, value in found.items() if value is not None}
