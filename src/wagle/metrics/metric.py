"""What a metric of one record is: its function, and which of the record's answers that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """What is known of one record under a model; None where that was not asked, or is not there.

    M is the mean NLL of an answer's scored tokens in nats. A metric names these as what it needs.

    Attributes:
        right: M of the right answer.
        hits: of each scored token of it, without the EOS, whether the arg-max token is right.
        reworded: M of the right answer in other words; of the right answer where there are none.
        wrong: M of each wrong answer.
        paraphrased: M of the right answer after the paraphrased question.
        expected: the right answer.
        said: what the model wrote itself.
        finished: whether it came to its own end.
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
    """What a figure is.

    Attributes:
        unit: of its values.
        of: its value for one record; None where it is made of more than one record's answers, by a
            benchmark or a classifier. It may return None: not defined of this record.
        needs: fields of ``Answered``: the arguments of ``of``, in their order.
        direction: ``higher``, ``lower`` or ``target`` is better where the model should know less.
        kept: the same where it should know as much as before.
        share: a share of records, whose interval is Wilson's.
        everywhere: made of all that a model writes in any benchmark, whatever was asked; it has a
            value for every text, the empty one too.
    """

    unit: str
    of: Callable[..., float | None] | None = None
    needs: tuple[str, ...] = ()
    direction: str = "target"
    kept: str = "higher"
    share: bool = False
    everywhere: bool = False

    def value(self, answered: Answered) -> float | None:
        """The value for one record; None where something that it needs is not there."""
        given = [getattr(answered, need) for need in self.needs]
        if self.of is None or any(one is None for one in given):
            return None
        return self.of(*given)


def values(metrics: Mapping[str, Metric], answered: Answered) -> dict[str, float]:
    """The values of one record by metric, of those that have one.

    Args:
        metrics: by name.
        answered: what is known of the record.
    """
    found = {name: metric.value(answered) for name, metric in metrics.items()}
    return {name: value for name, value in found.items() if value is not None}
