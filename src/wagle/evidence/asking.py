"""What an audit computes: the figures of some records on a model, and how they compare.

All comparisons are pure functions of figures per record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.result import Evaluation
from wagle.evidence.protocol import FIGURES, Protocol
from wagle.metrics.statistics import bootstrap_interval
from wagle.system.memory import give_memory_back

if TYPE_CHECKING:
    from wagle.evaluation.models import Way

COUNTED = ("extraction_strength", "exact_memorization")  # made of predicted tokens
_EQUAL = 1e-4  # two counts of tokens, each divided by as many

PerRecord = Mapping[str, Mapping[str, float]]  # by figure and place


@dataclass(frozen=True)
class Compared:
    """One figure over the probes, for every model that was asked.

    Attributes:
        figure: its name.
        n: over how many records.
        model: the mean for the model that is audited.
        base: the mean for the model before, if it was asked.
        reference: the mean for the reference, if there is one.
        low, high: the reference's 95 % interval over the same records.
    """

    figure: str
    n: int
    model: float
    base: float | None = None
    reference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def leaks(self) -> bool:
        """Whether the model's mean lies above the reference's interval."""
        return self.high is not None and self.model > self.high

    @property
    def fails_before(self) -> bool:
        """Whether the model before fails this probe, so that it can find something at all."""
        return self.high is not None and self.base is not None and self.base > self.high

    def sentence(self) -> str:
        """The means in words."""
        found = f"{self.figure} {self.model:.3f}"
        if self.base is not None:
            found += f", before {self.base:.3f}"
        if self.reference is not None:
            found += f", reference {self.reference:.3f} ({self.low:.3f} to {self.high:.3f})"
        return found


def ask_records(
    folder: Path, way: Way, records: Sequence[Record], name: str, attention: str = "auto"
) -> PerRecord:
    """The figures of some records on the model in a folder; nothing is generated.

    Args:
        folder: the model folder.
        way: how to ask.
        records: with the places that their figures are named by.
        name: of their set.
        attention: how attention is computed, as the evaluation did.
    """
    from wagle.evaluation.tasks.questions import qa
    from wagle.model.loading import load_model

    model = load_model(folder, attention=attention)
    task = qa(way.encoder, sets={name: records}, generate=False)
    found = way.ask(model, task).figures[name]
    del model
    give_memory_back()
    return {metric: found[metric].per_record for metric in FIGURES if metric in found}


def way_to_ask(encoder: Encoder, settings: Mapping[str, object]) -> Way:
    """How an audit asks: as the evaluation did, without a cache."""
    from wagle.evaluation.models import Way

    precision, tokens = settings["precision"], settings["batch_tokens"]
    assert isinstance(precision, str)
    assert tokens is None or isinstance(tokens, int)
    return Way(encoder, precision, tokens)


def told_by(result: Evaluation) -> PerRecord:
    """The same figures as a pack tells them."""
    found = result.figures.get("forget", {})
    return {metric: found[metric].per_record for metric in FIGURES if metric in found}


def contradiction(own: PerRecord, told: PerRecord, protocol: Protocol) -> str | None:
    """In which figure what was computed again differs from what a pack tells; None: in none."""
    for figure, values in own.items():
        stated = told.get(figure, {})
        missing = [place for place in values if place not in stated]
        if missing:
            return f"the pack tells no {figure} of {missing[0]}"
        gaps = {place: abs(value - stated[place]) for place, value in values.items()}
        worst = max(gaps, key=lambda place: gaps[place])
        if figure not in COUNTED and gaps[worst] > protocol.tolerance:
            return (
                f"{figure} of {worst} is {values[worst]:.4f}, the pack tells {stated[worst]:.4f} "
                f"(tolerance {protocol.tolerance:g})"
            )
        odd = [place for place, gap in gaps.items() if gap > _EQUAL]
        if figure in COUNTED and len(odd) > max(1, int(protocol.odd_ones * len(gaps))):
            return (
                f"{figure} differs for {len(odd)} of {len(gaps)} records, such as {odd[0]}: "
                f"{values[odd[0]]:.4f}, the pack tells {stated[odd[0]]:.4f}"
            )
    return None


def largest_gap(own: PerRecord, told: PerRecord) -> float:
    """The largest difference between figures that were computed again and those of a pack."""
    return max(
        abs(value - told[figure][place])
        for figure, values in own.items()
        for place, value in values.items()
    )


def compare(
    model: PerRecord, base: PerRecord | None, reference: PerRecord | None
) -> list[Compared]:
    """Every figure over the records that all of these models were asked about."""
    made = []
    for figure, values in model.items():
        others = [one[figure] for one in (base, reference) if one is not None and figure in one]
        places = [place for place in values if all(place in other for other in others)]
        if not places:
            continue
        mean = fmean(values[place] for place in places)
        before = None
        if base is not None and figure in base:
            before = fmean(base[figure][place] for place in places)
        goal: tuple[float | None, float | None, float | None] = (None, None, None)
        if reference is not None and figure in reference:
            usual = [reference[figure][place] for place in places]
            goal = (fmean(usual), *bootstrap_interval(usual))
        made.append(Compared(figure, len(places), mean, before, *goal))
    return made
