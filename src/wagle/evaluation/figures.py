"""Figures: what is measured on a set of records, with intervals; and a benchmark's task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from wagle.evaluation.asking.requests import Answers, Request
from wagle.metrics.statistics import bootstrap_interval, width_note, wilson_interval
from wagle.metrics.utility import Distance
from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


HIGHER, LOWER, TARGET = "higher", "lower", "target"  # which way is better
HOLDOUT = "holdout"  # records like the forget set's, which no model was trained on
SETS = ("forget", "retain", "retain_heldout", "general", HOLDOUT)
FORGOTTEN = "forgotten"  # one more set: what earlier requests asked to forget
GONE = ("forget", FORGOTTEN)  # sets that the model should know less about
OVERALL = "overall"  # figures made from several sets
ROLES = ("before", "after", "reference")  # the models of a run, in the order they are shown


@dataclass(frozen=True)
class Figure:
    """A number, with what is needed to trust it.

    Attributes:
        value: the number, finite; None if it is not defined (``note`` says why).
        interval: its 95 % interval, or None.
        interval_method: how the interval was computed.
        per_record: the values it is made from, by the record's place; empty if it is made from
            figures.
        direction: ``higher`` or ``lower`` is better, or ``target``.
        unit: the unit of the value.
        target: what the value should be, a number or ``reference``, if direction is ``target``.
        note: what its reader needs to know, or None.
        count: how many records it is made from; None counts ``per_record``.
    """

    value: float | None
    interval: tuple[float, float] | None
    interval_method: str
    per_record: Mapping[str, float] = field(default_factory=dict)
    direction: str = TARGET
    unit: str = "share"
    target: float | str | None = None
    note: str | None = None
    count: int | None = None

    @property
    def n(self) -> int:
        """How many records it is made from."""
        return len(self.per_record) if self.count is None else self.count

    @property
    def number(self) -> float:
        """The value, which must be defined."""
        assert self.value is not None
        return self.value

    @property
    def low(self) -> float:
        """The lower end of the interval, or the value if there is none."""
        return self.interval[0] if self.interval else self.number

    @property
    def high(self) -> float:
        """The upper end of the interval, or the value if there is none."""
        return self.interval[1] if self.interval else self.number


@dataclass(frozen=True)
class Written:
    """A question, the right answer and what the model said: private, as it holds record text."""

    place: str
    question: str
    expected: str
    said: str
    finished: bool


@dataclass(frozen=True)
class Measured:
    """What a benchmark found.

    Attributes:
        figures: ``figures[set][metric]``; what is made from several sets stands under ``overall``.
        texts: what the model wrote, by set.
        summary: the figures under the names that other tools give them.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    texts: Mapping[str, Sequence[Written]] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def joined(one: Measured, other: Measured) -> Measured:
    """Everything in either; the second wins where both have a value."""
    names = dict.fromkeys([*one.figures, *other.figures])
    return Measured(
        {name: {**one.figures.get(name, {}), **other.figures.get(name, {})} for name in names},
        {**one.texts, **other.texts},
        {**one.summary, **other.summary},
    )


CALLED = {"before": "the model before", "reference": "the reference"}  # in messages, by role


@dataclass(frozen=True)
class Task:
    """A benchmark made ready: what it asks, and how it turns answers into figures.

    Attributes:
        requests: in any order, with repeats.
        measure: a pure function of the answers.
        against: makes, from a model's figures and those of a reference, which never learned the
            forget set, the figures that need both (forget quality, privacy leakage); None: there
            are none.
        since: makes, from a model's figures and those of the model before unlearning, the figures
            that need both; None: there are none.
        ask: measures what goes through another library, which queries the model itself; None:
            nothing does.
        data: what was asked, for the result file: split, revision; no text.
        probes: the figures that a verdict depends on, as pairs of set and metric: above the
            reference's, the forget set is still known. Empty: there is no verdict.
        records: what was asked about, as text, by set and place: the result file has only a digest.
        settings: what else determines the figures: a reference must agree on what both state,
            except for None, which does not matter.
        published: whether the records are public, so that their digests need no key.
        fits: refuses, before any model is asked, the figures of a reference that ``against`` could
            not use, and with the role ``before`` those of the model before unlearning. None:
            accepts all.
    """

    requests: Sequence[Request]
    measure: Callable[[Answers], Measured]
    against: Callable[[Measured, Measured], Measured] | None = None
    ask: Callable[[PreTrainedModel], Measured] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    probes: Sequence[tuple[str, str]] = ()
    records: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: bool = False
    fits: Callable[..., None] | None = None
    since: Callable[[Measured, Measured], Measured] | None = None


def mean_figure(
    rows: Mapping[str, float],
    *,
    unit: str,
    direction: str = TARGET,
    target: float | str | None = None,
    share: bool = False,
    note: str | None = None,
    seed: int = 0,
) -> Figure:
    """The mean over records, with a bootstrap interval (Wilson's for a ``share`` of 0s and 1s).

    Args:
        rows: value per record, by place; at least one, all finite.
        unit: the unit of the values.
        direction: which way is better.
        target: the goal, if direction is ``target``.
        share: the values are 0 or 1.
        note: for the reader.
        seed: for the bootstrap.

    Raises:
        WagleError: there is no record, or a value is not finite.
    """
    if not rows:
        raise WagleError(f"a mean ({unit}) needs at least one record")
    for place, value in rows.items():
        if not math.isfinite(value):
            raise WagleError(f"{place}: {unit} is {value}; the model's answers are unusable")
    values = list(rows.values())
    mean = math.fsum(values) / len(values)
    if share:
        interval, method = wilson_interval(round(sum(values)), len(values)), "wilson 95 %"
    else:
        interval = bootstrap_interval(values, seed)
        method, note = "bootstrap 95 %, 10000 replicates", note or width_note(values)
    return Figure(mean, interval, method, dict(rows), direction, unit, target, note)


def distance_figures(name: str, found: Distance) -> dict[str, Figure]:
    """Figures of a distance: its p under ``name``, and what that follows from."""

    def figure(value: float | None, unit: str, direction: str, note: str | None = None) -> Figure:
        return Figure(
            value, None, "none", direction=direction, unit=unit, note=note, count=sum(found.counts)
        )

    lost = "p is too small for a number" if found.log10_p is None else found.note
    return {
        name: figure(found.p, "p of Kolmogorov-Smirnov", HIGHER, found.note),
        f"{name}_log10": figure(found.log10_p, "log10 p", HIGHER, lost),
        f"{name}_distance": figure(found.statistic, "D", LOWER),
        f"{name}_shift": replace(figure(found.shift, "difference of medians", TARGET), target=0),
    }
